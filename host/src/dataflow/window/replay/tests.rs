use super::*;

fn at(seconds: u64) -> Moment {
    Moment { seconds, ..Moment::default() }
}

fn places(end: u64) -> Option<Marks> {
    Some(Marks::Places(Places { stream: [7, 0], is_one_of_many: false, ends: vec![end] }))
}

/// One source, a delay `d` and an accumulate `a` behind it.
struct Chain {
    replay: Replay,
    /// What is open in the delay, and in the accumulate.
    open: [Members; 2],
}

impl Chain {
    fn new() -> Self {
        Chain { replay: Replay::new(2, 3), open: [Members::NONE; 2] }
    }

    /// A delivery that the delay takes for the end of its window.
    fn deliver(&mut self, sequence: u64, moment: u64) {
        self.replay.delivered(0, sequence, places(sequence * 10 + 10).as_ref());
        self.replay.takes(&mut self.open[0], 0, at(moment));
        self.replay.absorbed(sequence);
    }

    /// A window releases all that is open, and its release is in the region.
    fn release(&mut self, window: usize, number: u64) {
        let members = std::mem::replace(&mut self.open[window], Members::NONE);
        self.replay.leaves(members, 1, &[members]);
        self.replay.given(window, number, members, Vec::new());
    }

    /// Keys and values of what is to be written.
    fn complete(&mut self, unfinished: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        self.replay.complete(unfinished, |window| ["d", "a"][window], |_| "in", &mut changes);
        changes
    }
}

#[test]
fn a_delivery_is_needed_until_all_that_came_of_it_is_complete_on_disk() {
    let mut chain = Chain::new();
    chain.deliver(0, 10);
    chain.deliver(1, 10);
    assert_eq!(chain.replay.first(), Some(0));
    // The delay gives both to the accumulate, which keeps them.
    chain.release(0, 1);
    chain.replay.takes(&mut chain.open[1], 1, at(10));
    chain.replay.absorbed(2);
    chain.replay.passed(0, at(11));
    chain.replay.confirmed(0, 1, None);
    assert_eq!(chain.complete(3), []);
    assert_eq!(chain.replay.first(), Some(0));
    // Its release is written, and not confirmed.
    chain.release(1, 1);
    chain.replay.absorbed(3);
    chain.replay.passed(1, at(11));
    assert_eq!(chain.complete(3), []);
    chain.replay.confirmed(1, 1, None);
    let place = record::had("in", &Had::Complete([7, 0], 20));
    let reached = |window: &str| (Key::Reached.to_bytes(window), Some(record::reached(at(11), 1)));
    assert_eq!(chain.complete(4), [reached("a"), reached("d"), place]);
    assert_eq!((chain.replay.first(), chain.replay.is_written()), (Some(0), false));
    chain.replay.wrote();
    assert_eq!((chain.replay.first(), chain.replay.len()), (None, 0));
}

#[test]
fn nothing_is_complete_while_one_of_its_deliveries_is_on_its_way_elsewhere() {
    let mut chain = Chain::new();
    chain.deliver(0, 10);
    chain.deliver(1, 10);
    chain.release(0, 1);
    chain.replay.passed(0, at(11));
    chain.replay.confirmed(0, 1, None);
    // A dead letter of the second delivery is not on disk.
    assert_eq!(chain.complete(1), []);
    assert_eq!(chain.complete(2).len(), 2);
}

#[test]
fn what_was_released_together_is_complete_together() {
    let mut chain = Chain::new();
    chain.deliver(0, 10);
    let members = chain.open[0];
    chain.replay.leaves(members, 2, &[members]);
    for (number, passed) in [(1, Moment::default()), (2, at(11))] {
        chain.replay.given(0, number, members, Vec::new());
        chain.replay.passed(0, passed);
    }
    chain.replay.confirmed(0, 1, None);
    assert_eq!(chain.complete(9), []);
    chain.replay.confirmed(0, 2, None);
    assert_eq!(chain.complete(9).len(), 2);
    chain.replay.wrote();
    assert_eq!(chain.replay.first(), None);
}
