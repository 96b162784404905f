use proptest::prelude::*;

use super::*;

fn ctx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

proptest! {
    /// Whatever passes, when, and in what lots: over any time no more does than the burst,
    /// what that time filled, and one lot.
    #[test]
    fn no_more_passes_than_is_filled(
        rate in 1_u64..1_000,
        steps in prop::collection::vec((0_u64..500_000_000, 1_u64..100), 1..200),
    ) {
        let gate = RateGate::new(Rate { messages: Some(rate), bytes: None }, Instant(0));
        let (mut now, mut passed, mut most) = (Instant(0), 0_u64, 0_u64);
        for (wait_ns, lot) in steps {
            now = Instant(now.0 + wait_ns);
            if gate.poll_open(&mut ctx()).is_pending() {
                let again = gate.look(now);
                prop_assert_eq!(again.is_none(), gate.poll_open(&mut ctx()).is_ready());
                prop_assert!(again.is_none_or(|at| at > now), "it opens later than now, or is open");
            }
            if gate.poll_open(&mut ctx()).is_ready() {
                gate.pass(lot, 0);
                passed += lot;
                most = most.max(lot);
            }
            let filled = u128::from(rate) * u128::from(now.0) / 1_000_000_000;
            prop_assert!(u128::from(passed) <= u128::from(rate + most) + filled);
        }
    }
}

#[test]
fn messages_and_bytes_are_two_rights_and_both_are_needed() {
    let gate = RateGate::new(Rate { messages: Some(10), bytes: Some(100) }, Instant(0));
    gate.pass(1, 100);
    assert!(gate.poll_open(&mut ctx()).is_pending(), "no bytes are left");
    assert!(gate.is_waited_at());
    let at = gate.look(Instant(0)).expect("it is closed");
    assert_eq!(at, Instant(10_000_000), "one byte");
    assert_eq!(gate.look(at), None);
    assert!(gate.poll_open(&mut ctx()).is_ready() && !gate.is_waited_at());
}

#[test]
fn without_a_rate_there_is_no_gate() {
    let gates = Gates::new([("local", Rates::default())], Instant(0));
    assert!(gates.of_source("local").is_none() && gates.of_sink("local").is_none());
}
