use super::*;

fn record() -> Record {
    let line = r#"{"id":7,"at":"2026-01-31T12:00:00.500Z","tenant":"a","dataflow":"flow","operation":"step-0",
        "source":"in","sequence":1,"reason":"trap","detail":"","fuel":0,"topic":"t","payload":"1"}"#;
    serde_json::from_str(line).expect("a record")
}

#[test]
fn a_filter_takes_what_all_of_it_holds_for() {
    let at_ms = record().at_ms();
    assert_eq!(at_ms, 1_769_860_800_500);
    let text = |text: &str| Some(text.to_owned());
    let any = Filter::default;
    for (filter, takes) in [
        (any(), true),
        (Filter { tenant: text("a"), dataflow: text("flow"), operation: text("step-0"), ..any() }, true),
        (Filter { tenant: text("b"), ..any() }, false),
        (Filter { dataflow: text("other"), ..any() }, false),
        (Filter { operation: text("step"), ..any() }, false),
        (Filter { reason: Some(Reason::Trap), ..any() }, true),
        (Filter { reason: Some(Reason::Late), ..any() }, false),
        (Filter { since_ms: Some(at_ms), ..any() }, true),
        (Filter { since_ms: Some(at_ms + 1), ..any() }, false),
        (Filter { until_ms: Some(at_ms + 1), ..any() }, true),
        (Filter { until_ms: Some(at_ms), ..any() }, false),
        (Filter { ids: [6, 7].into(), ..any() }, true),
        (Filter { ids: [6].into(), ..any() }, false),
        (Filter { id_max: Some(7), ..any() }, true),
        (Filter { id_max: Some(6), ..any() }, false),
    ] {
        assert_eq!(filter.takes(&record()), takes, "{filter:?}");
    }
    assert!(any().is_empty() && Filter { id_max: Some(7), ..any() }.is_empty());
    assert!(!Filter { ids: [7].into(), ..any() }.is_empty());
}

#[test]
fn times_are_moments_or_ago_and_reasons_are_named_as_shown() {
    let now = Duration::from_secs(1000);
    assert_eq!(moment_ms("1970-01-01T00:00:01.5Z", now), Ok(1500));
    assert_eq!(moment_ms("10m", now), Ok(400_000));
    assert_eq!(moment_ms("1h", now), Ok(0));
    for text in ["", "10", "noon", "1960-01-01T00:00:00Z"] {
        assert_eq!(moment_ms(text, now), Err(NoMoment), "{text}");
    }
    for known in Reason::ALL {
        assert_eq!(reason(known.name()), Ok(known));
        let written = serde_json::to_value(known).expect("a string");
        assert_eq!(written, known.name());
    }
    assert_eq!(reason("out-of-fuel"), Ok(Reason::OutOfFuel));
    assert_eq!(reason("OutOfTime"), Ok(Reason::OutOfTime));
    assert!(reason("tarp").expect_err("no reason").contains("trap"));
}
