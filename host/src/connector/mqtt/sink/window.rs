//! `Window`: the messages that a sink has published and not yet seen answered, in
//! the order of their publication, whatever their packet ids. Knows messages only
//! by their place in a write.

use std::collections::VecDeque;

/// A published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Sequence number of its write.
    pub write: u64,
    /// Its place in that write.
    pub index: u32,
    answered: bool,
}

impl Slot {
    pub(super) fn new(write: u64, index: u32) -> Self {
        Slot { write, index, answered: false }
    }
}

/// Slot `i` has the packet id `first_id + i`, counted round from 65,535 to 1: the
/// ids in use are one run, so the place of an answer is a subtraction, and sending
/// again in the order of slots is sending again in order.
///
/// ```text
///  first_id
///  │ sent on this connection │ still to be sent again │
///  ▼                         ▼                        ▼
/// [a][ ][a][ ][ ]           [ ][a][ ]                  next_packet_id
/// ```
#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// Packet id of the first slot, from 1.
    first_id: u16,
    /// How many slots were sent on this connection.
    sent: usize,
    /// How many of those are unanswered.
    unanswered_sent: usize,
    unanswered: usize,
}

/// Packet ids run from 1 to 65,535.
const IDS: usize = u16::MAX as usize;

impl Default for Window {
    fn default() -> Self {
        Window { slots: VecDeque::new(), first_id: 1, sent: 0, unanswered_sent: 0, unanswered: 0 }
    }
}

impl Window {
    /// Unanswered messages of all connections.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Those of this connection.
    pub(super) fn unanswered_sent(&self) -> usize {
        self.unanswered_sent
    }

    /// What counts against the broker's window: all that was sent on this
    /// connection from the first unanswered message on, so that the run of ids
    /// stays short even if a broker answers out of order.
    pub(super) fn span(&self) -> usize {
        // Answered slots leave the front at once.
        if self.unanswered_sent == 0 { 0 } else { self.sent }
    }

    pub(super) fn next_packet_id(&self) -> u16 {
        self.id_at(self.slots.len())
    }

    fn id_at(&self, place: usize) -> u16 {
        ((usize::from(self.first_id) - 1 + place) % IDS + 1) as u16
    }

    /// A message was published with [`Self::next_packet_id`].
    pub(super) fn push(&mut self, slot: Slot) {
        debug_assert_eq!(self.sent, self.slots.len(), "what is new comes after what is sent again");
        self.slots.push_back(slot);
        self.sent += 1;
        self.unanswered_sent += 1;
        self.unanswered += 1;
    }

    /// The next message that an older connection left unanswered.
    pub(super) fn next_to_resend(&mut self) -> Option<Slot> {
        while self.slots.get(self.sent)?.answered {
            self.sent += 1;
        }
        self.slots.get(self.sent).copied()
    }

    /// [`Self::next_to_resend`] was sent; gives its packet id.
    pub(super) fn resent(&mut self) -> u16 {
        let id = self.id_at(self.sent);
        self.sent += 1;
        self.unanswered_sent += 1;
        id
    }

    /// The broker answered: gives the message, unless none of this connection waits
    /// under this id.
    pub(super) fn answer(&mut self, packet_id: u16) -> Option<Slot> {
        let place = (usize::from(packet_id) + IDS - usize::from(self.first_id)) % IDS;
        if packet_id == 0 || place >= self.sent {
            return None;
        }
        let slot = &mut self.slots[place];
        if std::mem::replace(&mut slot.answered, true) {
            return None;
        }
        let slot = *slot;
        self.unanswered -= 1;
        self.unanswered_sent -= 1;
        while self.slots.front().is_some_and(|slot| slot.answered) {
            self.slots.pop_front();
            self.first_id = self.id_at(1);
            // Answered on an older connection, it may stand after `sent`.
            self.sent = self.sent.saturating_sub(1);
        }
        Some(slot)
    }

    /// Answers the first message that was sent on this connection and waits.
    pub(super) fn answer_first_sent(&mut self) -> Option<Slot> {
        let place = self.slots.iter().take(self.sent).position(|slot| !slot.answered)?;
        self.answer(self.id_at(place))
    }

    /// A connection begins or ended: all that is unanswered is to be sent again.
    pub(super) fn begin_generation(&mut self) {
        self.sent = 0;
        self.unanswered_sent = 0;
    }
}

#[cfg(test)]
mod tests;
