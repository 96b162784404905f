use serde_json::{Value, json};

use super::*;
use crate::connector::otlp::{form::Signal, json::to_json, wire};

fn parse(payload: &Value) -> Result<Telemetry, TelemetryError> {
    Telemetry::parse(payload.to_string().as_bytes(), "a", 77)
}

/// The one metric of a message, as JSON.
fn metric(payload: Value) -> Value {
    let telemetry = parse(&json!({ "metrics": [payload] })).expect("it is in the form");
    assert_eq!(telemetry.logs, None);
    let request = telemetry.metrics.expect("it has one");
    wire::check(Signal::Metrics, &request).expect("a request");
    let read: Value = serde_json::from_slice(&to_json(Signal::Metrics, &request)).expect("JSON");
    let resource = &read["resourceMetrics"][0];
    assert_eq!(resource["resource"]["attributes"][1]["value"]["stringValue"], "a", "the tenant");
    resource["scopeMetrics"][0]["metrics"][0].clone()
}

#[test]
fn each_type_of_metric_becomes_what_its_instrument_means() {
    let counter = metric(json!({ "name": "n", "type": "u64_counter", "value": 3, "description": "d",
        "timestamp": 5, "attributes": [{ "key": "k", "value": "v" }, { "key": "b", "value": true }] }));
    assert_eq!((&counter["name"], &counter["description"]), (&json!("n"), &json!("d")));
    let point = &counter["sum"]["dataPoints"][0];
    assert_eq!((&point["asInt"], &point["timeUnixNano"]), (&json!("3"), &json!("5")));
    assert_eq!(point["attributes"][0]["value"]["stringValue"], "v");
    assert_eq!(point["attributes"][1]["value"]["boolValue"], true);
    assert_eq!(
        (&counter["sum"]["isMonotonic"], &counter["sum"]["aggregationTemporality"]),
        (&json!(true), &json!(1))
    );
    for (kind, value, what, is_monotonic) in [
        ("f64_counter", json!(1.5), "asDouble", true),
        ("i64_up_down_counter", json!(-3), "asInt", false),
        ("f64_up_down_counter", json!(-1.5), "asDouble", false),
    ] {
        let metric = metric(json!({ "name": "n", "type": kind, "value": value }));
        let sum = &metric["sum"];
        assert_eq!(sum["isMonotonic"], is_monotonic, "{kind}");
        assert!(!sum["dataPoints"][0][what].is_null(), "{kind}: {sum}");
        assert_eq!(sum["dataPoints"][0]["timeUnixNano"], "77", "{kind}: the message's time");
    }
    for (kind, what) in [("u64_gauge", "asInt"), ("i64_gauge", "asInt"), ("f64_gauge", "asDouble")] {
        let metric = metric(json!({ "name": "n", "type": kind, "value": 4 }));
        assert!(!metric["gauge"]["dataPoints"][0][what].is_null(), "{kind}: {metric}");
    }
    for kind in ["f64_histogram", "u64_histogram"] {
        let metric =
            metric(json!({ "name": "n", "type": kind, "value": 30, "timestamp": "2026-01-01T00:00:00Z" }));
        let point = &metric["histogram"]["dataPoints"][0];
        assert_eq!((&point["count"], &point["sum"]), (&json!("1"), &json!(30.0)), "{kind}");
        assert_eq!(point["bucketCounts"][4], "1", "above 25 and up to 50");
        assert_eq!(point["timeUnixNano"], "1767225600000000000");
    }
}

#[test]
fn logs_have_levels() {
    for (level, number, text) in [
        ("trace", 1, "TRACE"),
        ("debug", 5, "DEBUG"),
        ("info", 9, "INFO"),
        ("warn", 13, "WARN"),
        ("error", 17, "ERROR"),
        ("fatal", 21, "FATAL"),
    ] {
        let telemetry = parse(&json!({ "logs": [{ "value": "v", "level": level }] })).expect("it is");
        let request = telemetry.logs.expect("it has one");
        let read: Value = serde_json::from_slice(&to_json(Signal::Logs, &request)).expect("JSON");
        let record = &read["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(number), &json!(text)));
        assert_eq!(record["body"]["stringValue"], "v");
        assert_eq!(record["timeUnixNano"], "77");
    }
}

#[test]
fn what_does_not_conform_is_no_telemetry() {
    for payload in [
        json!(1),
        json!({}),
        json!({ "metrics": {} }),
        json!({ "metrics": [{ "name": "n", "metric_type": "u64_gauge", "value": 1 }] }),
        json!({ "metrics": [{ "name": "n", "type": "gauge", "value": 1 }] }),
        json!({ "metrics": [{ "name": "n", "type": "u64_gauge" }] }),
        json!({ "metrics": [{ "name": "n", "type": "u64_gauge", "value": "1" }] }),
        json!({ "metrics": [{ "name": "n", "type": "u64_gauge", "value": -1 }] }),
        json!({ "metrics": [{ "name": "n", "type": "u64_gauge", "value": u64::MAX }] }),
        json!({ "metrics": [{ "name": "n", "type": "i64_gauge", "value": 1.5 }] }),
        json!({ "metrics": [{ "name": "n", "type": "f64_counter", "value": -0.5 }] }),
        json!({ "metrics": [{ "name": "n", "type": "f64_gauge", "value": 1, "timestamp": "noon" }] }),
        json!({ "metrics": [{ "name": "n", "type": "f64_gauge", "value": 1, "timestamp": -1 }] }),
        json!({ "logs": [{ "value": 1, "level": "info" }] }),
        json!({ "logs": [{ "value": "v", "level": "loud" }] }),
        json!({ "logs": [{ "value": "v" }] }),
        json!({ "logs": [{ "value": "v", "level": "info", "attributes": [{ "key": "k" }] }, 1] }),
    ] {
        assert!(parse(&payload).is_err(), "{payload}");
    }
    let nothing = parse(&json!({ "metrics": [], "logs": [] })).expect("it is in the form");
    assert_eq!(nothing, Telemetry { metrics: None, logs: None });
}
