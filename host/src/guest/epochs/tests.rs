use super::*;
use crate::clock::VirtualClock;

/// A shard's on a virtual clock, and a guest that takes so many µs of it.
struct Shard {
    clock: Arc<VirtualClock>,
    epochs: Epochs,
    engine: Engine,
}

impl Shard {
    fn new() -> Self {
        let clock = Arc::<VirtualClock>::default();
        let epochs = Epochs::new(Clock::Virtual(clock.clone()));
        Shard { clock, epochs, engine: Engine::default() }
    }

    /// One poll of a call; gives after how many µs it would have been told to yield, and
    /// to end.
    fn poll(&self, takes_us: u64, result: Poll<()>) -> (u64, u64) {
        let began = Clock::Virtual(self.clock.clone()).now().0;
        let left = Duration::from_micros(1_000);
        let polled = self.epochs.slice(&self.engine, left, || {
            self.clock.advance(Duration::from_micros(takes_us));
            result
        });
        assert_eq!(polled, result);
        let us = |end: &AtomicU64| (end.load(Ordering::Relaxed) - began) / 1_000;
        (us(&self.epochs.ends.slice), us(&self.epochs.ends.call))
    }
}

#[test]
fn short_calls_have_one_slice_between_them() {
    let shard = Shard::new();
    for (takes_us, slice_us, is_over) in
        [(60, 200, false), (60, 140, false), (60, 80, false), (60, 20, true), (60, 200, false)]
    {
        assert_eq!(shard.poll(takes_us, Poll::Ready(())), (slice_us, 1_000));
        assert_eq!(shard.epochs.slice_is_over(), is_over);
    }
}

#[test]
fn whoever_yielded_begins_a_slice() {
    let shard = Shard::new();
    shard.poll(150, Poll::Ready(()));
    assert_eq!(shard.poll(90, Poll::Pending), (50, 1_000));
    assert!(!shard.epochs.slice_is_over(), "it has yielded");
    assert_eq!(shard.poll(90, Poll::Ready(())), (200, 1_000));
    assert!(!shard.epochs.slice_is_over());
}
