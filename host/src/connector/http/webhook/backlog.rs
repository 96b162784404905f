//! `Backlog`: messages that are to be sent, or are under way: one at a time of each topic,
//! and topics in turn. A write is confirmed with its last message. Knows no HTTP.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::call::Message;
use crate::write::{Rejected, Write};

#[derive(Default)]
pub(super) struct Backlog {
    writes: HashMap<u64, Open>,
    /// Of the next write.
    number: u64,
    bytes: usize,
    /// Those of which something waits or is under way, with what waits.
    topics: HashMap<Bytes, VecDeque<(Place, Message)>>,
    /// Those of which something waits and nothing is under way.
    ready: VecDeque<Bytes>,
}

/// A write that is not confirmed.
struct Open {
    write: Write,
    left: usize,
    rejected: Vec<Rejected>,
}

/// Which message of which write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    write: u64,
    index: u32,
}

/// A message that is under way.
#[derive(Debug)]
pub(super) struct Job {
    topic: Bytes,
    place: Place,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Of all writes that are not confirmed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the write whose messages are added next.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Takes a write whose other messages are rejected already.
    pub(super) fn add(&mut self, write: Write, messages: Vec<(u32, Message)>, rejected: Vec<Rejected>) {
        if messages.is_empty() {
            write.confirm(rejected);
            return;
        }
        let number = self.number;
        self.number += 1;
        self.bytes += write.batch.bytes_held();
        self.writes.insert(number, Open { write, left: messages.len(), rejected });
        for (index, message) in messages {
            let topic = message.topic.clone();
            let place = Place { write: number, index };
            match self.topics.get_mut(&topic) {
                Some(waiting) => waiting.push_back((place, message)),
                None => {
                    self.topics.insert(topic.clone(), VecDeque::from([(place, message)]));
                    self.ready.push_back(topic);
                }
            }
        }
    }

    /// What may be sent beside all that is under way.
    pub(super) fn next(&mut self) -> Option<(Job, Message)> {
        let topic = self.ready.pop_front()?;
        let waiting = self.topics.get_mut(&topic).expect("a topic that is ready is there");
        let (place, message) = waiting.pop_front().expect("something of it waits");
        Some((Job { topic, place }, message))
    }

    /// The far side has it, or refuses it for good.
    pub(super) fn done(&mut self, Job { topic, place }: Job, refusal: Option<String>) {
        match self.topics.get(&topic) {
            Some(waiting) if !waiting.is_empty() => self.ready.push_back(topic),
            _ => _ = self.topics.remove(&topic),
        }
        let open = self.writes.get_mut(&place.write).expect("it is not confirmed");
        open.left -= 1;
        open.rejected.extend(refusal.map(|reason| Rejected { index: place.index, reason }));
        if open.left == 0 {
            let Open { write, rejected, .. } = self.writes.remove(&place.write).expect("it is there");
            self.bytes -= write.batch.bytes_held();
            write.confirm(rejected);
        }
    }
}

#[cfg(test)]
mod tests;
