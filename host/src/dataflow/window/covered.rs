//! `Covered`: which messages of a source windows have, so that one that is delivered
//! again does not count twice. Between the marks of deliveries and the records that
//! are committed with what windows took; knows no window.
//!
//! A file's messages are known by their place, and so are those of each partition of a
//! topic. Of what a broker sent, only that can come
//! again which it has not seen acknowledged: the last messages that it sent, how many of
//! them their source finds out. It says that it sends them again, under the packet id that
//! they had, which tells messages apart that say the same. One case stays open: a broker
//! that gives a packet id again at once, to a message that says the same as the one before,
//! and loses the connection while that is on its way: it is taken for the one before.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    Change,
    record::{self, Had},
};
use crate::{
    planted::{self, Bug},
    queue::{Marks, Places, Sendings},
};

/// Those messages of a delivery that windows have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// So many at its beginning.
    first: u32,
    /// And these, by origin, ascending.
    others: Vec<u32>,
}

impl Known {
    pub fn is_none(&self) -> bool {
        self.first == 0 && self.others.is_empty()
    }

    pub fn has(&self, origin: u32) -> bool {
        origin < self.first || self.others.binary_search(&origin).is_ok()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Covered {
    name: String,
    /// All messages of each stream up to this place.
    upto: BTreeMap<[u64; 2], u64>,
    /// Messages up to this place may be repeats of what volatile windows gave.
    complete: Option<([u64; 2], u64)>,
    sent: Sent,
    /// What is on its way, and whether windows have some of it.
    arriving: Option<(Arriving, bool)>,
}

#[derive(Debug)]
enum Arriving {
    Upto { stream: [u64; 2], is_one_of_many: bool, end: u64 },
    Sent(Vec<(u16, u64)>, Option<u64>),
}

/// The last messages that a broker sent.
#[derive(Debug, Default)]
struct Sent {
    /// Of the last delivery.
    number: u64,
    /// Packet ids by delivery, the oldest first.
    deliveries: VecDeque<(u64, Vec<u16>)>,
    /// Over all deliveries.
    messages: usize,
    /// The digest of each packet id's last message, and its delivery.
    by_id: HashMap<u16, (u64, u64)>,
    /// Deliveries of which nothing comes again, though the disk still has them.
    past: Vec<u64>,
}

impl Covered {
    pub(super) fn new(name: String) -> Self {
        Covered { name, upto: BTreeMap::new(), complete: None, sent: Sent::default(), arriving: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes up a record of an earlier run, in the order of their keys.
    pub(super) fn restore(&mut self, had: Had) {
        match had {
            Had::Upto { stream, place, .. } => _ = self.upto.insert(stream, place),
            Had::Sent(number, messages) => self.sent.push(number, &messages, None),
            Had::Complete(stream, place) => self.complete = Some((stream, place)),
        }
    }

    /// Whether an earlier run has completed windows of this source.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.is_some()
    }

    /// So many messages at the beginning of a delivery were read before windows were
    /// complete.
    pub(super) fn repeats(&self, marks: Option<&Marks>) -> u32 {
        match (marks, self.complete) {
            // A file that was truncated meanwhile is still itself.
            (Some(Marks::Places(Places { stream, ends, .. })), Some((same, upto)))
                if stream[0] == same[0] =>
            {
                ends.partition_point(|end| *end <= upto) as u32
            }
            _ => 0,
        }
    }

    /// A delivery has come.
    pub(super) fn arrived(&mut self, marks: Option<Marks>) -> Known {
        self.arriving = None;
        let known = match marks {
            None => return Known::default(),
            Some(Marks::Places(Places { stream, is_one_of_many, ends })) => {
                let Some(&end) = ends.last() else { return Known::default() };
                self.arriving = Some((Arriving::Upto { stream, is_one_of_many, end }, false));
                let upto = self.upto.get(&stream);
                let first = upto.map_or(0, |upto| ends.partition_point(|end| end <= upto));
                Known { first: first as u32, others: Vec::new() }
            }
            Some(Marks::Sendings(Sendings { anew, messages, open })) => {
                if anew {
                    self.sent.forget_all();
                }
                let is_known = |place: &usize| {
                    let sending = &messages[*place];
                    let before = self.sent.by_id.get(&sending.packet_id);
                    sending.again && before.is_some_and(|(digest, _)| *digest == sending.digest)
                };
                let others: Vec<u32> =
                    (0..messages.len()).filter(is_known).map(|place| place as u32).collect();
                let lasting = messages.iter().filter(|sending| sending.packet_id != 0);
                let ids = lasting.map(|sending| (sending.packet_id, sending.digest)).collect();
                self.arriving = Some((Arriving::Sent(ids, open), !others.is_empty()));
                Known { first: 0, others }
            }
        };
        if planted::is(Bug::CountTwice) { Known::default() } else { known }
    }

    /// What came last is through the region. What is to be committed for it goes to
    /// `changes`, if anything is.
    pub(super) fn absorbed(&mut self, is_committed: bool, changes: &mut Vec<Change>) {
        match self.arriving.take() {
            Some((Arriving::Upto { stream, is_one_of_many, end }, _))
                if is_committed && self.upto.get(&stream).is_none_or(|upto| *upto < end) =>
            {
                if !is_one_of_many {
                    self.upto.clear();
                }
                self.upto.insert(stream, end);
                changes.push(record::had(&self.name, &Had::Upto { stream, is_one_of_many, place: end }));
            }
            Some((Arriving::Sent(ids, open), is_known)) if !ids.is_empty() => {
                let number = self.sent.number + 1;
                self.sent.push(number, &ids, open);
                // What is known stays known: its earlier record may go before it does.
                if is_committed || is_known {
                    let past = self.sent.past.drain(..);
                    changes.extend(past.map(|number| record::not_again(&self.name, number)));
                    changes.push(record::had(&self.name, &Had::Sent(number, ids)));
                }
            }
            _ => {}
        }
    }
}

/// More messages than there are packet ids are never open.
const OPEN_MAX: u64 = u16::MAX as u64;

impl Sent {
    /// `open` of the last messages may come again, counted from the end of these.
    fn push(&mut self, number: u64, messages: &[(u16, u64)], open: Option<u64>) {
        let open = open.unwrap_or(OPEN_MAX).min(OPEN_MAX) as usize;
        self.number = number;
        self.messages += messages.len();
        self.deliveries.push_back((number, messages.iter().map(|(id, _)| *id).collect()));
        self.by_id.extend(messages.iter().map(|(id, digest)| (*id, (*digest, number))));
        while let Some((past, ids)) = self.deliveries.front()
            && self.messages - ids.len() >= open
        {
            for id in ids {
                if self.by_id.get(id).is_some_and(|(_, number)| number == past) {
                    self.by_id.remove(id);
                }
            }
            self.messages -= ids.len();
            self.past.push(*past);
            self.deliveries.pop_front();
        }
    }

    fn forget_all(&mut self) {
        self.past.extend(self.deliveries.drain(..).map(|(number, _)| number));
        self.messages = 0;
        self.by_id.clear();
    }
}

#[cfg(test)]
mod tests;
