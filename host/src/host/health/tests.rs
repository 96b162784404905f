use std::sync::Arc;

use super::*;
use crate::clock::VirtualClock;

fn degraded() -> ConnectionState {
    ConnectionState::Degraded { since: Instant(0), error: "connection refused".into() }
}

fn ends(states: &[ConnectionState]) -> Vec<End<'static>> {
    states.iter().map(|state| End { name: "end", state: Some(state.clone()) }).collect()
}

#[test]
fn what_hurts_most_is_said_of_a_dataflow() {
    use ConnectionState::{Closed, Connected, Connecting};
    let failed = |failure| Health::Failed { failure, cause: "the cause".into() };
    // Health, sources, sinks, faults and refused messages of lately.
    let up = || vec![Connected];
    for (health, sources, sinks, lately, expected) in [
        (Health::Running, up(), up(), (0, 0), ("Available", None, None)),
        (Health::Running, vec![], vec![], (0, 0), ("Available", None, None)),
        (
            Health::Running,
            vec![degraded()],
            up(),
            (0, 0),
            ("Unavailable", Some("SourceChannelClosed"), Some("`end`: connection refused")),
        ),
        (
            Health::Running,
            vec![Connected, degraded()],
            up(),
            (0, 0),
            ("Degraded", Some("SourceChannelClosed"), Some("`end`: connection refused")),
        ),
        (
            Health::Running,
            vec![Connecting, degraded()],
            up(),
            (0, 0),
            ("Degraded", Some("SourceChannelClosed"), Some("`end`: connection refused")),
        ),
        (
            Health::Running,
            vec![Closed, degraded()],
            vec![degraded()],
            (1, 1),
            ("Unavailable", Some("SourceChannelClosed"), Some("`end` is closed; `end`: connection refused")),
        ),
        (
            Health::Running,
            up(),
            vec![degraded()],
            (1, 1),
            ("Degraded", Some("SinkChannelClosed"), Some("`end`: connection refused")),
        ),
        (
            Health::Running,
            up(),
            vec![Connecting],
            (0, 0),
            ("Unknown", None, Some("its connections are tried for the first time")),
        ),
        (
            Health::Running,
            up(),
            up(),
            (2, 1),
            (
                "Degraded",
                Some("ModuleRuntimeFault"),
                Some("calls of its operators that ended in a fault, with no quiet minute since: 2"),
            ),
        ),
        (
            Health::Running,
            up(),
            up(),
            (0, 3),
            (
                "Degraded",
                Some("OutputSendFailed"),
                Some("messages that its sinks refused for good, with no quiet minute since: 3"),
            ),
        ),
        (
            Health::Draining,
            vec![degraded()],
            up(),
            (1, 1),
            ("Unknown", None, Some("it takes nothing more, and ends")),
        ),
        (
            failed(Failure::Configuration),
            vec![degraded()],
            up(),
            (1, 1),
            ("Unavailable", Some("ConfigurationFailed"), Some("the cause")),
        ),
        (
            failed(Failure::Instantiation),
            up(),
            up(),
            (0, 0),
            ("Unavailable", Some("InstantiationFailed"), Some("the cause")),
        ),
        (
            failed(Failure::Panic),
            up(),
            up(),
            (0, 0),
            ("Unavailable", Some("ProcessingFailed"), Some("the cause")),
        ),
    ] {
        let clock = Clock::Virtual(Arc::new(VirtualClock::default()));
        let mut log = HealthLog::new(&clock);
        let (faults, rejected) = lately;
        let facts = Facts { health, sources: ends(&sources), sinks: ends(&sinks), faults, rejected };
        log.observe(&facts, &clock);
        let found = log.to_json();
        let reason =
            found["reasonCode"].as_str().map(|code| code.strip_prefix("DataflowGraph").expect("AIO's"));
        assert_eq!(
            (found["status"].as_str().expect("text"), reason, found["message"].as_str()),
            expected,
            "{facts:?}"
        );
    }
}

#[test]
fn a_health_state_says_since_when_and_a_fault_is_news_for_a_minute() {
    let hand = Arc::new(VirtualClock::default());
    let clock = Clock::Virtual(hand.clone());
    let mut log = HealthLog::new(&clock);
    let at = |second: u64| format!("2026-01-01T00:0{}:{:02}.000Z", second / 60, second % 60);
    let first = log.to_json();
    assert_eq!((&first["status"], &first["lastTransitionTime"]), (&json!("Unknown"), &json!(at(0))));
    let (up, down) = (vec![ConnectionState::Connected], vec![degraded()]);
    // Seconds that pass, the source, faults so far; what is then, and since when.
    let mut now = 0;
    for (seconds, source, faults, status, since) in [
        (1, &up, 0, "Available", 1),
        (9, &up, 0, "Available", 1),
        (10, &down, 0, "Unavailable", 20),
        (1, &down, 0, "Unavailable", 20),
        (1, &up, 0, "Available", 22),
        (8, &up, 2, "Degraded", 30),
        // Another reason is no transition of the status.
        (30, &up, 3, "Degraded", 30),
        (60, &up, 3, "Degraded", 30),
        (1, &up, 3, "Available", 121),
        (9, &up, 4, "Degraded", 130),
    ] {
        hand.advance(Duration::from_secs(seconds));
        now += seconds;
        let facts =
            Facts { health: Health::Running, sources: ends(source), sinks: vec![], faults, rejected: 0 };
        log.observe(&facts, &clock);
        let found = log.to_json();
        assert_eq!(
            (&found["status"], &found["lastTransitionTime"], &found["lastUpdateTime"]),
            (&json!(status), &json!(at(since)), &json!(at(now))),
            "after {now} s"
        );
    }
    // What was before the quiet minute is not counted again.
    assert_eq!(
        log.to_json()["message"],
        "calls of its operators that ended in a fault, with no quiet minute since: 1"
    );
}
