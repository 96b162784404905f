//! Tests of `otel`.

use super::*;

fn metric(parameters: &[(&str, &str)]) -> Result<Metric, String> {
    let parameters: Vec<_> = parameters.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Metric::parse(&parameters)
}

#[test]
fn a_payload_becomes_a_metric() {
    let check = |parameters: &[(&str, &str)], payload: &str, expected: Result<&str, &str>| {
        let made = metric(parameters).expect("parameters").make(payload.as_bytes());
        let made = made.map(|it| String::from_utf8(it).expect("UTF-8")).map_err(|error| error.to_string());
        assert_eq!(made, expected.map(Into::into).map_err(Into::into), "{payload}");
    };
    let path = [("metricName", "t"), ("metricNamePath", "no"), ("metricValuePath", "a.b.1")];
    check(
        &path,
        r#"{"a":{"b":[1,2.5]}}"#,
        Ok(r#"{"logs":[],"metrics":[{"name":"t","type":"f64_gauge","value":2.5}]}"#),
    );
    check(&path, r#"{"a":{"b":[1]}}"#, Err("payload has no `a.b.1`"));
    check(&path, r#"{"a":{"b":[1,"x"]}}"#, Err(r#"`a.b.1`: expected a number, found "x""#));
    let all = [
        ("metricNamePath", "name"),
        ("metricValuePath", "value"),
        ("metricType", "u64_counter"),
        ("metricTimestampPath", "at"),
        ("metricUnits", "1/s"),
    ];
    check(
        &all,
        r#"{"name":"n","value":3,"at":"2026-01-01T00:00:00Z","attributes":{"site":"x"}}"#,
        Ok(concat!(
            r#"{"logs":[],"metrics":[{"attributes":[{"key":"site","value":"x"}],"name":"n","#,
            r#""timestamp":"2026-01-01T00:00:00Z","type":"u64_counter","unit":"1/s","value":3}]}"#
        )),
    );
    check(
        &all,
        r#"{"name":"n","value":-3}"#,
        Err("`value`: expected a whole number that is not negative, found -3"),
    );
    check(&all, r#"{"name":4,"value":3}"#, Err("`name`: expected text, found 4"));
}

#[test]
fn wrong_parameters_are_refused() {
    for (parameters, expected) in [
        (&[][..], "one of `metricName` and `metricNamePath` is needed"),
        (&[("metricName", "n")], "`metricValuePath` is needed"),
        (&[("metricName", "n"), ("metricValuePath", "a..b")], "`metricValuePath`: expected a field such as"),
        (&[("metricName", "n"), ("metricType", "gauge")], "`metricType`: `gauge` is none of u64_counter, "),
    ] {
        let refused = metric(parameters).expect_err("refused");
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn attributes_are_added_to_those_there_are() {
    let more = || vec![("site".to_owned(), json!("x"))];
    for (payload, expected) in [
        ("{}", Some(r#"{"attributes":{"site":"x"}}"#)),
        (r#"{"attributes":{"a":1,"site":2}}"#, Some(r#"{"attributes":{"a":1,"site":"x"}}"#)),
        (r#"{"attributes":7}"#, None),
        ("7", None),
    ] {
        let added = add_attributes(payload.as_bytes(), more()).ok();
        assert_eq!(added.as_deref(), expected.map(str::as_bytes), "{payload}");
    }
}
