use proptest::prelude::*;

use super::*;

const LIMITS: CircuitLimits = CircuitLimits {
    cool_down: Duration::from_secs(10),
    quarantine_after: 6,
    within: Duration::from_secs(60),
};

fn at(seconds: u64) -> Instant {
    Instant(0).plus(Duration::from_secs(seconds))
}

fn faulty(faults: u32) -> Outcome {
    Outcome { messages: 10, faults }
}

#[test]
fn faults_in_a_row_open_it_and_a_delivery_without_one_closes_it() {
    let mut circuit = Circuit::new(LIMITS, false);
    for (second, faults) in [(0, 1), (1, 1), (2, 0), (3, 1), (4, 1)] {
        assert!(!circuit.passed(faulty(faults), at(second)), "second {second}");
    }
    assert_eq!(circuit.gate(at(5)), Gate::Pass);
    assert!(circuit.passed(faulty(1), at(5)), "three in a row");
    assert_eq!(circuit.gate(at(6)), Gate::Wait(at(15)));
    assert_eq!(circuit.gate(at(15)), Gate::Pass, "the probe");
    assert!(circuit.passed(faulty(0), at(16)));
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn without_a_cool_down_there_is_no_pause() {
    let mut circuit = Circuit::new(CircuitLimits { cool_down: Duration::ZERO, ..LIMITS }, false);
    for second in 0..5 {
        assert!(!circuit.passed(faulty(1), at(second)), "second {second}");
    }
    assert!(circuit.passed(faulty(1), at(5)), "too many are too many");
    assert_eq!(circuit.state(), State::Quarantined);
}

#[test]
fn a_probe_with_a_fault_opens_it_again() {
    let mut circuit = Circuit::new(CircuitLimits { quarantine_after: 100, ..LIMITS }, false);
    (0..3).for_each(|second| _ = circuit.passed(faulty(1), at(second)));
    assert_eq!(circuit.gate(at(12)), Gate::Pass);
    assert!(circuit.passed(faulty(1), at(12)));
    assert_eq!(circuit.gate(at(13)), Gate::Wait(at(22)));
}

#[test]
fn too_many_faults_within_the_time_are_the_end_until_it_is_resumed() {
    // Spread over more than the time, they are not too many.
    let mut circuit = Circuit::new(LIMITS, false);
    for second in (0..600).step_by(13) {
        circuit.gate(at(second));
        circuit.passed(faulty(1), at(second));
        assert_ne!(circuit.state(), State::Quarantined);
    }
    // One delivery may bring them all.
    let mut circuit = Circuit::new(LIMITS, false);
    assert!(circuit.passed(faulty(6), at(0)));
    assert_eq!(circuit.gate(at(1_000_000)), Gate::Shut);
    assert!(circuit.resume());
    assert_eq!(circuit.gate(at(0)), Gate::Pass);
    assert!(!circuit.passed(faulty(5), at(1)), "what was before is forgotten");
    assert!(!circuit.resume(), "there is nothing to resume");
    let mut circuit = Circuit::new(LIMITS, true);
    assert_eq!(circuit.gate(at(0)), Gate::Shut, "as it was left");
}

#[test]
fn retries_are_a_tenth_of_the_messages_in_the_long_run() {
    let mut circuit = Circuit::new(LIMITS, false);
    let mut retries = 0;
    for _ in 0..1_000 {
        circuit.earn(1);
        retries += u32::from(circuit.may_retry());
    }
    assert_eq!(retries, 20 + 100);
}

proptest! {
    /// Whatever happens, it never keeps more than it needs, a pause has an end, and only a
    /// resume ends a quarantine.
    #[test]
    fn a_quarantine_lasts_and_a_pause_does_not(
        steps in prop::collection::vec((0_u64..30, 0_u32..4), 0..300)
    ) {
        let mut circuit = Circuit::new(LIMITS, false);
        let (mut second, mut quarantined) = (0, false);
        for (wait, faults) in steps {
            second += wait;
            match circuit.gate(at(second)) {
                Gate::Pass => {
                    prop_assert!(!quarantined);
                    circuit.passed(faulty(faults), at(second));
                    quarantined = circuit.state() == State::Quarantined;
                }
                Gate::Wait(until) => prop_assert!(until <= at(second + 10)),
                Gate::Shut => prop_assert!(quarantined),
            }
            prop_assert!(circuit.faults.len() <= LIMITS.quarantine_after as usize);
        }
    }
}
