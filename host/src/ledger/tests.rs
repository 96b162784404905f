use super::*;
use proptest::prelude::*;

proptest! {
    /// Whatever is taken and returned, in any order, free and held always add up.
    #[test]
    fn credit_is_conserved(max in 1_usize..10_000, steps in prop::collection::vec((any::<bool>(), 0_usize..12_000), 0..200)) {
        let ledger = Ledger::new(max);
        let mut held = Vec::new();
        for (take, bytes) in steps {
            if take {
                let fits = bytes.min(max) <= max - ledger.bytes_in_flight();
                let credit = ledger.try_acquire(bytes);
                prop_assert_eq!(credit.is_some(), fits);
                held.extend(credit);
            } else if !held.is_empty() {
                drop(held.swap_remove(bytes % held.len()));
            }
            prop_assert_eq!(ledger.bytes_in_flight(), held.iter().map(Credit::bytes).sum::<usize>());
        }
        drop(held);
        prop_assert_eq!(ledger.bytes_in_flight(), 0);
    }
}

#[test]
fn whoever_waits_is_woken_when_credit_returns() {
    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let flag = Arc::new(Flag(false.into()));
    let waker = Waker::from(flag.clone());
    let ledger = Ledger::new(10);
    let all = ledger.try_acquire(10).expect("all is free");
    assert!(ledger.poll_acquire(1, &mut Context::from_waker(&waker)).is_pending());
    assert!(!flag.0.load(std::sync::atomic::Ordering::SeqCst));
    drop(all);
    assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
    assert!(ledger.try_acquire(1).is_some());
}
