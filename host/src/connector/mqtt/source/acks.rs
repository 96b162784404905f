//! `Acks`: the PUBACKs that one connection of a source still owes, in the order in
//! which the messages came. Knows a delivery only by its number.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::connector::mqtt::publish::PubAck;

/// What must be settled before a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Only those before it.
    None,
    /// The delivery of this number.
    Delivery(u64),
    /// The dead letter of the message over the limit of this number.
    Oversize(u64),
}

/// Packet ids in order of receipt, and beside them how many of them in a row wait
/// for the same duty.
#[derive(Debug, Default)]
pub(super) struct Acks {
    packet_ids: VecDeque<u16>,
    runs: VecDeque<(Duty, usize)>,
}

impl Acks {
    /// A message came; those of QoS 0 have no packet id and need no answer.
    pub(super) fn push(&mut self, packet_id: Option<u16>, duty: Duty) {
        let Some(packet_id) = packet_id else { return };
        self.packet_ids.push_back(packet_id);
        match self.runs.back_mut() {
            Some((last, count)) if *last == duty => *count += 1,
            _ => self.runs.push_back((duty, 1)),
        }
    }

    /// Appends the PUBACKs that nothing stands before, given how far deliveries and
    /// dead letters are settled; gives their number.
    pub(super) fn write(&mut self, settled: u64, oversize: u64, out: &mut BytesMut) -> usize {
        let mut written = 0;
        while let Some((duty, count)) = self.runs.front() {
            let done = match *duty {
                Duty::None => true,
                Duty::Delivery(number) => number <= settled,
                Duty::Oversize(number) => number <= oversize,
            };
            if !done {
                break;
            }
            for packet_id in self.packet_ids.drain(..*count) {
                PubAck::write(packet_id, out);
            }
            written += count;
            self.runs.pop_front();
        }
        written
    }

    /// What the next PUBACK waits for.
    pub(super) fn next_duty(&self) -> Option<Duty> {
        self.runs.front().map(|(duty, _)| *duty)
    }

    pub(super) fn len(&self) -> usize {
        self.packet_ids.len()
    }

    /// The connection is gone, and with it what was owed on it.
    pub(super) fn clear(&mut self) {
        *self = Acks::default();
    }
}
