use super::*;

fn named(name: &str, cause: &str) -> Option<(String, String)> {
    Some((name.to_owned(), cause.to_owned()))
}

#[test]
fn the_worst_that_is_seen_is_the_step() {
    let before = Counts { dead: 3, throttled_cpu: 1, throttled_fuel: 1, throttled_calls: 1, closed_gates: 1 };
    let quiet = Facts { counts: before, ..Facts::default() };
    let counted = |counts: Counts| Facts { counts, ..Facts::default() };
    let cases = [
        (quiet.clone(), Step::Running, ""),
        (
            counted(Counts { throttled_cpu: 2, ..before }),
            Step::Throttled,
            "it has used up its CPU time (`cpu.rate`)",
        ),
        (
            counted(Counts { throttled_fuel: 2, throttled_calls: 5, ..before }),
            Step::Throttled,
            "it has used up its fuel (`fuel.rate`), host calls (`calls`)",
        ),
        (Facts { is_throttled: true, ..quiet.clone() }, Step::Throttled, ""),
        (
            Facts { waits_for_credit: true, is_throttled: true, ..quiet.clone() },
            Step::Paused,
            "all its credit is in flight (`inflight`)",
        ),
        (
            Facts { open: named("flow", "trap"), waits_for_credit: true, ..quiet.clone() },
            Step::Paused,
            "flow: trap",
        ),
        (
            Facts { open: named("flow", "trap"), ..counted(Counts { dead: 5, ..before }) },
            Step::DeadLettering,
            "2 messages were given up",
        ),
        (
            Facts { quarantined: named("flow", "traps"), ..counted(Counts { dead: 5, ..before }) },
            Step::Quarantine,
            "flow: traps",
        ),
    ];
    for (facts, step, cause) in cases {
        assert_eq!(judge(&facts, &before), (step, cause.to_owned()), "{facts:?}");
    }
}

/// What a ladder says at one second after the other.
fn steps(looks: &[Facts]) -> Vec<Step> {
    let mut ladder = Ladder::new(Duration::ZERO);
    let look = |(second, facts): (usize, &Facts)| {
        let now = Instant(second as u64 * 1_000_000_000);
        ladder.observe(facts, now, Duration::from_secs(second as u64));
        ladder.step()
    };
    looks.iter().enumerate().map(look).collect()
}

#[test]
fn a_step_is_over_once_it_has_been_quiet_and_quarantine_once_it_is() {
    let dead = |dead| Facts { counts: Counts { dead, ..Counts::default() }, ..Facts::default() };
    let mut looks = vec![dead(1), dead(1), dead(2)];
    looks.extend(std::iter::repeat_n(dead(2), 6));
    let (running, letters) = (Step::Running, Step::DeadLettering);
    // Five seconds after the last that was given up, and not before.
    let expected = [letters, letters, letters, letters, letters, letters, letters, running, running];
    assert_eq!(steps(&looks), expected);
    let quarantined = Facts { quarantined: named("flow", "traps"), ..Facts::default() };
    let looks = [quarantined.clone(), quarantined, Facts::default()];
    assert_eq!(steps(&looks), [Step::Quarantine, Step::Quarantine, running]);
}

#[test]
fn since_when_and_how_often_are_kept_and_one_that_waits_on_keeps_its_cause() {
    let mut ladder = Ladder::new(Duration::from_secs(100));
    let at = |second: u64| (Instant(second * 1_000_000_000), Duration::from_secs(100 + second));
    let spent = Counts { throttled_fuel: 1, ..Counts::default() };
    let facts = Facts { counts: spent, is_throttled: true, ..Facts::default() };
    let mut look = |second, facts: &Facts| {
        let (now, wall) = at(second);
        ladder.observe(facts, now, wall).then(|| ladder.to_json())
    };
    let first = look(3, &facts).expect("it is another step");
    assert_eq!(first["step"], "throttled");
    assert_eq!(first["since"], "1970-01-01T00:01:43.000Z");
    assert_eq!(first["entered"]["throttled"], 1);
    // It still waits: nothing has grown, and the cause is what it was.
    assert_eq!(look(20, &facts), None);
    let over = look(26, &Facts { counts: spent, ..Facts::default() }).expect("it is over");
    assert_eq!((&over["step"], &over["cause"]), (&"running".into(), &Value::Null));
    assert_eq!(over["entered"]["throttled"], 1);
    let again = Facts { counts: Counts { throttled_fuel: 2, ..Counts::default() }, ..Facts::default() };
    assert_eq!(look(27, &again).expect("it is another step")["entered"]["throttled"], 2);
}
