use std::time::Duration;

use super::*;
use crate::{ledger::Ledger, scenario::Thresholds};

/// So many messages that came after so many ms each, and so many that did not.
fn figures(came: u64, ms: u64, lost: u64) -> Figures {
    let mut ledger = Ledger::new(1, ["out".to_owned()]);
    let phase = ledger.begin_phase();
    for number in 0..came + lost {
        let due = number * 1_000_000;
        let (_, id) = ledger.send(phase, 0, due);
        if number < came {
            ledger.arrive(b"out", id.as_bytes(), due + ms * 1_000_000);
        }
    }
    Figures::of(&[(ledger.tally(phase).clone(), Some(0.5))]).expect("one round")
}

pub fn scorecard() -> Scorecard {
    let row = |name: &str, alone: Figures, beside: Figures, interruptible| Row {
        name: name.to_owned(),
        about: format!("What {name} gets."),
        interruptible,
        ratio: Some(rounded(beside.p99_ms / alone.p99_ms)),
        quiet: Pair { alone: Some(alone), beside: Some(beside) },
        memory: Some(Memory { before_bytes: 50 << 20, peak_bytes: 60 << 20, after_bytes: 51 << 20 }),
        beside: Some(BesideRecord { sent: 1_000, taken: 900, errors: 30, ..BesideRecord::default() }),
        failure: None,
    };
    let buckets = (0..20).map(|second| Bucket {
        second,
        sent: 800,
        came: 790,
        p99_ms: 4.0,
        memory_bytes: (50 + second) << 20,
        cpu: 0.4,
    });
    Scorecard {
        schema: SCHEMA,
        version: "0.1.0".into(),
        scenario: ScenarioSummary {
            name: "noisy-neighbour".into(),
            about: "Each attack in turn.".into(),
            seed: 1,
            phase_seconds: 10.0,
            tenants: 8,
        },
        started_at: "2026-11-27T12:00:00Z".into(),
        seconds: 20.0,
        interrupted: false,
        setup: Setup {
            host: Some("tidegate 0.1.0".into()),
            broker: "mosquitto 2".into(),
            cpu: "a CPU".into(),
            host_cores: vec![0],
            other_cores: vec![1],
        },
        rows: vec![
            row("endless-loop", figures(1_000, 4, 0), figures(1_000, 7, 0), true),
            row("memory-fill", figures(1_000, 4, 0), figures(1_000, 14, 0), false),
        ],
        overall: Pair { alone: Some(figures(2_000, 4, 0)), beside: Some(figures(2_000, 9, 0)) },
        first_messages: Some(figures(8, 30, 0)),
        unexpected: 0,
        memory: Some(Memory { before_bytes: 50 << 20, peak_bytes: 70 << 20, after_bytes: 52 << 20 }),
        timeline: TimelineRecord {
            width_seconds: 1,
            buckets: buckets.collect(),
            marks: vec![
                Mark { second: 0.0, label: "alone".into() },
                Mark { second: 10.0, label: "endless-loop".into() },
            ],
        },
        checks: Vec::new(),
        holds: true,
    }
}

fn thresholds() -> Thresholds {
    Thresholds {
        p99: None,
        ratio: Some(2.0),
        slack: Duration::from_micros(200),
        uninterruptible: Duration::from_millis(8),
        lost: 0,
        duplicates: Some(0),
        out_of_order: Some(0),
        memory_growth: Some(10.0),
    }
}

/// The names of checks that do not hold.
fn missed(scorecard: &Scorecard, thresholds: &Thresholds) -> Vec<String> {
    let checks = checks(scorecard, thresholds);
    checks.iter().filter(|check| !check.holds).map(|check| check.name.clone()).collect()
}

#[test]
fn what_keeps_its_thresholds_holds() {
    // 7 ≤ 2 × 4 + 0.2, and 14 ≤ 2 × 4 + 0.2 + 8 where an attack cannot be interrupted.
    assert_eq!(missed(&scorecard(), &thresholds()), [""; 0]);
}

#[test]
fn each_threshold_bites_by_itself() {
    let with = |change: fn(&mut Scorecard)| {
        let mut scorecard = scorecard();
        change(&mut scorecard);
        missed(&scorecard, &thresholds())
    };
    assert_eq!(with(|it| it.rows[0].quiet.beside = Some(figures(1_000, 9, 0))), ["ratio"]);
    assert_eq!(with(|it| it.rows[1].interruptible = true), ["ratio"]);
    assert_eq!(with(|it| it.rows[0].quiet.beside = Some(figures(999, 4, 1))), ["lost"]);
    assert_eq!(with(|it| it.rows[0].quiet.alone = Some(figures(999, 4, 1))), ["lost"]);
    assert_eq!(with(|it| it.rows[1].quiet.beside.as_mut().expect("it is").duplicated = 1), ["duplicates"]);
    assert_eq!(with(|it| it.rows[1].quiet.beside.as_mut().expect("it is").out_of_order = 1), ["outOfOrder"]);
    assert_eq!(with(|it| it.first_messages = Some(figures(7, 30, 1))), ["lost"]);
    assert_eq!(with(|it| it.unexpected = 1), ["unexpected"]);
    assert_eq!(with(|it| it.memory.as_mut().expect("it is").after_bytes = 56 << 20), ["memoryGrowth"]);
    assert_eq!(with(|it| it.rows[0].failure = Some("the host refused it".into())), ["failures"]);
    assert_eq!(with(|it| it.rows[0].quiet.beside = Some(figures(0, 0, 0))), ["failures"]);
    let p99 = Thresholds { p99: Some(Duration::from_millis(10)), ratio: None, ..thresholds() };
    assert_eq!(missed(&scorecard(), &p99), ["p99"]);
}

#[test]
fn a_threshold_that_is_raised_does_not_bite() {
    let mut scorecard = scorecard();
    scorecard.rows[0].quiet.beside = Some(figures(999, 9, 1));
    let raised = Thresholds { lost: 1, ratio: Some(3.0), ..thresholds() };
    assert_eq!(missed(&scorecard, &raised), [""; 0]);
}

#[test]
fn the_table_fits_a_terminal() {
    let mut scorecard = scorecard();
    scorecard.rows[0].name = "an-attack-with-a-name-that-is-far-too-long".into();
    scorecard.rows[0].quiet.beside = Some(figures(100_000, 1_234_567, 12_345));
    scorecard.rows[0].ratio = Some(12_345.6);
    scorecard.rows[1].failure = Some("word ".repeat(60));
    scorecard.checks = checks(&scorecard, &thresholds());
    let text = scorecard.to_text(false);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    assert!(text.contains("4.00→1.2M"), "{text}");
    assert!(text.contains("does not hold: 3 of"), "{text}");
}

#[test]
fn a_result_is_read_as_it_was_written() {
    let mut scorecard = scorecard();
    scorecard.checks = checks(&scorecard, &thresholds());
    let json = serde_json::to_string(&scorecard).expect("it is");
    assert_eq!(serde_json::from_str::<Scorecard>(&json).expect("the same form"), scorecard);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    for pointer in
        ["/rows/0/quiet/beside/p999Ms", "/rows/0/ratio", "/checks/0/holds", "/setup/hostCores/0", "/holds"]
    {
        assert!(value.pointer(pointer).is_some(), "{pointer}: others read it");
    }
}

#[test]
fn of_several_rounds_the_median_counts() {
    let mut ledger = Ledger::new(1, ["out".to_owned()]);
    let mut rounds = Vec::new();
    for (ms, lost) in [(4, 0), (900, 1), (6, 0)] {
        let phase = ledger.begin_phase();
        for number in 0..100 {
            let due = number * 1_000_000;
            let (_, id) = ledger.send(phase, 0, due);
            if number >= lost {
                ledger.arrive(b"out", id.as_bytes(), due + ms * 1_000_000);
            }
        }
        rounds.push((ledger.tally(phase).clone(), Some(ms as f64)));
    }
    let figures = Figures::of(&rounds).expect("three rounds");
    assert_eq!((figures.sent, figures.came, figures.lost), (300, 299, 1));
    assert!((figures.p99_ms - 6.0).abs() < 0.01 && (figures.max_ms - 900.0).abs() < 1.0);
    assert_eq!(figures.cpu, Some(6.0));
    assert_eq!(Figures::of(&[]), None);
}
