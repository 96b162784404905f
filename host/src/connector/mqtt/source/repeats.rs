//! `Repeats`: which of its last messages a broker may send again, since it may not have
//! seen them acknowledged. How many a client allows says nothing of it: mosquitto sends
//! all that waited for a client at once, however many that are. So the broker is asked
//! now and then, by a PINGREQ behind PUBACKs, whose answer tells that it has read them.

/// PUBACKs that the broker may not have read before it is asked.
const ASK_FROM: u64 = 256;

/// Counts messages with a packet id, over one connection.
#[derive(Debug)]
pub(super) struct Repeats {
    taken: u64,
    acknowledged: u64,
    /// Of those acknowledged, these will not come again.
    seen: u64,
    /// The PINGREQ that asks, and how many were acknowledged before it.
    asked: Option<(u64, u64)>,
    /// All that an earlier connection has left has come.
    caught_up: bool,
}

impl Repeats {
    /// On a connection on which the broker may first send again what an earlier one left.
    pub(super) fn new() -> Self {
        Repeats { taken: 0, acknowledged: 0, seen: 0, asked: None, caught_up: false }
    }

    /// The broker remembers nothing of earlier connections.
    pub(super) fn begin_anew(&mut self) {
        self.caught_up = true;
    }

    /// A message came; what a broker sends again it sends first, and says so.
    pub(super) fn took(&mut self, again: bool) {
        self.taken += 1;
        self.caught_up |= !again;
    }

    /// So many PUBACKs were written.
    pub(super) fn acknowledged(&mut self, count: usize) {
        self.acknowledged += count as u64;
    }

    /// Whether the broker should be asked now what it has read.
    pub(super) fn wants_to_ask(&self) -> bool {
        self.asked.is_none() && self.acknowledged - self.seen >= ASK_FROM
    }

    /// The PINGREQ of this number was written behind all PUBACKs.
    pub(super) fn asked(&mut self, ping: u64) {
        self.asked = Some((ping, self.acknowledged));
    }

    /// The broker has answered so many PINGREQs.
    pub(super) fn answered(&mut self, pings: u64) {
        if let Some((_, acknowledged)) = self.asked.take_if(|(ping, _)| *ping <= pings) {
            self.seen = acknowledged;
        }
    }

    /// How many of the last messages may come again; `None` if any may.
    pub(super) fn open(&self) -> Option<u64> {
        self.caught_up.then(|| self.taken.saturating_sub(self.seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_has_read_does_not_come_again() {
        let mut repeats = Repeats::new();
        (0..300).for_each(|_| repeats.took(true));
        assert_eq!(repeats.open(), None, "more may come that an earlier connection has left");
        repeats.took(false);
        assert_eq!(repeats.open(), Some(301));
        repeats.acknowledged(255);
        assert!(!repeats.wants_to_ask());
        repeats.acknowledged(1);
        assert!(repeats.wants_to_ask());
        repeats.asked(7);
        assert!(!repeats.wants_to_ask(), "one question at a time");
        repeats.acknowledged(20);
        repeats.answered(6);
        assert_eq!(repeats.open(), Some(301), "the answer to an earlier PINGREQ tells nothing");
        repeats.answered(7);
        assert_eq!(repeats.open(), Some(45), "without those that were acknowledged behind the question");
        repeats.answered(8);
        assert_eq!(repeats.open(), Some(45));
    }

    #[test]
    fn a_broker_that_remembers_nothing_sends_nothing_again() {
        let mut repeats = Repeats::new();
        repeats.begin_anew();
        assert_eq!(repeats.open(), Some(0));
    }
}
