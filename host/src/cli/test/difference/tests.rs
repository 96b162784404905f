use super::*;

fn paths(texts: &[&str]) -> Vec<JsonPath> {
    texts.iter().map(|text| JsonPath::parse(text).unwrap()).collect()
}

/// All that is said when `got` comes where `expected` should.
fn said(expected: Value, select: &[&str], ignores: &[&str], got: Value) -> Vec<String> {
    let compared = Compared { select: paths(select), ignores: paths(ignores) };
    let got = got.as_array().expect("a list of messages").clone();
    let expected = match expected {
        Value::Array(all) => Expected::All(all),
        last => Expected::Last(last),
    };
    differences(&expected, &compared, &got).iter().map(Difference::to_string).collect()
}

#[test]
fn messages_that_mean_the_same_do_not_differ() {
    for (expected, select, ignores, got) in [
        // Text that is JSON is compared as JSON, numbers by what they mean.
        (
            json!({"payload": r#"{"a":1,"b":[]}"#}),
            &[][..],
            &[][..],
            json!([{"payload": r#"{ "b": [], "a": 1.0 }"#}]),
        ),
        (json!({"payload": {"a": 1}}), &[], &[], json!([{"payload": r#"{"a":1}"#}])),
        (json!({"payload": "text"}), &[], &[], json!([{"payload": "text"}])),
        // The last one counts, or all.
        (json!({"payload": "2"}), &[], &[], json!([{"payload": "1"}, {"payload": "2"}])),
        (json!([]), &[], &[], json!([])),
        // Parts that a test does not name, does not select, or ignores.
        (json!({"payload": "1"}), &[], &[], json!([{"payload": "1", "topic": "t"}])),
        (json!({"payload": "1", "topic": "x"}), &["payload"], &[], json!([{"payload": "1", "topic": "t"}])),
        (
            json!({"payload": {"a": 1, "b": 2}}),
            &["payload.a"],
            &[],
            json!([{"payload": {"a": 1, "b": 3, "c": 4}}]),
        ),
        (
            json!({"payload": {"a": 1}}),
            &["payload"],
            &["payload.b"],
            json!([{"payload": {"a": 1, "b": [2]}}]),
        ),
        (
            json!({"payload": [{"a": 1, "t": 1}, {"a": 2, "t": 2}]}),
            &[],
            &["payload[*].t"],
            json!([{"payload": [{"a": 1, "t": 8}, {"a": 2}]}]),
        ),
        (
            json!({"properties": {"user-properties": {"otel/id": "x"}}}),
            &["properties.user-properties.otel/id"],
            &[],
            json!([{"properties": {"user-properties": {"otel/id": "x", "other": "y"}}}]),
        ),
    ] {
        assert_eq!(said(expected.clone(), select, ignores, got), [""; 0], "{expected}");
    }
}

#[test]
fn every_difference_is_said_with_its_path() {
    for (expected, select, ignores, got, lines) in [
        (
            json!({"payload": "1"}),
            &[][..],
            &[][..],
            json!([]),
            &["output 1: expected {\"payload\":\"1\"}, got nothing"][..],
        ),
        (
            json!([]),
            &[],
            &[],
            json!([{"payload": "1"}]),
            &[
                "outputs: expected \"0 messages\", got \"1 messages\"",
                "output 1: expected nothing, got {\"payload\":\"1\"}",
            ],
        ),
        (
            json!({"payload": {"a": {"b": [1, 2]}, "c": null}}),
            &[],
            &[],
            json!([{}, {"payload": r#"{"a":{"b":[1,3,4]}}"#}]),
            &[
                "output 2, payload.a.b[1]: expected 2, got 3",
                "output 2, payload.a.b[2]: expected nothing, got 4",
                "output 2, payload.c: expected null, got nothing",
            ],
        ),
        (
            json!({"payload": {"a": 1}, "topic": "x"}),
            &["payload.a", "topic"],
            &["topic"],
            json!([{"payload": "text", "topic": "y"}]),
            &["output 1, payload: expected {\"a\":1}, got \"text\""],
        ),
        // Whole numbers are compared exactly.
        (
            json!({"payload": 9007199254740993_u64}),
            &[],
            &[],
            json!([{"payload": 9007199254740992_u64}]),
            &["output 1, payload: expected 9007199254740993, got 9007199254740992"],
        ),
    ] {
        assert_eq!(said(expected.clone(), select, ignores, got), lines, "{expected}");
    }
}

#[test]
fn long_values_are_cut() {
    let line = said(json!({"payload": "x"}), &[], &[], json!([{"payload": "é".repeat(1_000)}])).remove(0);
    assert!(line.ends_with('…') && line.chars().count() < SHOWN_MAX + 60, "{line}");
}
