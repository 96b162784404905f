use serde_json::{Value, json};

use super::*;
use crate::connector::otlp::wire;

/// What comes back of it.
fn round(signal: Signal, json: &Value) -> Value {
    let protobuf = to_protobuf(signal, json.to_string().as_bytes()).expect("a request");
    wire::check(signal, &protobuf).expect("protobuf");
    serde_json::from_slice(&to_json(signal, &protobuf)).expect("JSON")
}

#[test]
fn ids_are_hexadecimal_long_numbers_text_and_enums_numbers() {
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": "shop" } },
            { "key": "n", "value": { "intValue": "9007199254740993" } },
            { "key": "list", "value": { "arrayValue": { "values": [{ "boolValue": true }] } } },
        ] },
        "scopeSpans": [{ "scope": { "name": "lib" }, "spans": [{
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
            "parentSpanId": "eee19b7ec3c1b173", "name": "I'm a server span",
            "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": "1544712661000000000",
            "kind": 2, "unknown": { "key": [1, 2] },
        }] }],
        "schemaUrl": "https://example/1",
    }] });
    let back = round(Signal::Traces, &request);
    let span = &back["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "5b8efff798038103d269b633813fc60c");
    assert_eq!(span["startTimeUnixNano"], "1544712660000000000");
    assert_eq!(span["kind"], 2);
    let resource = &back["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][1]["value"]["intValue"], "9007199254740993");
    assert_eq!(resource["resource"]["attributes"][2]["value"]["arrayValue"]["values"][0]["boolValue"], true);
    assert_eq!(resource["schemaUrl"], "https://example/1");
    assert_eq!(round(Signal::Traces, &back), back, "it comes back as it is");
}

#[test]
fn metrics_and_logs_go_there_and_back() {
    let metrics = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
        { "name": "a", "sum": { "aggregationTemporality": 1, "isMonotonic": true,
            "dataPoints": [{ "asInt": "3", "timeUnixNano": "1" }] } },
        { "name": "b", "histogram": { "aggregationTemporality": 2, "dataPoints": [
            { "count": "2", "sum": 1.5, "bucketCounts": ["1", "1"], "explicitBounds": [10.0] }] } },
    ] }] }] });
    let back = round(Signal::Metrics, &metrics);
    let metrics = &back["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    assert_eq!(metrics[0]["sum"]["dataPoints"][0]["asInt"], "3");
    assert_eq!(metrics[1]["histogram"]["dataPoints"][0]["bucketCounts"], json!(["1", "1"]));
    assert_eq!(round(Signal::Metrics, &back), back);
    let logs = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [
        { "severityNumber": 9, "severityText": "INFO", "body": { "stringValue": "hello" } }] }] }] });
    let back = round(Signal::Logs, &logs);
    let record = &back["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!((&record["body"]["stringValue"], &record["severityNumber"]), (&json!("hello"), &json!(9)));
}

#[test]
fn what_is_no_request_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "\"a\"",
        "{\"resourceSpans\": 1}",
        "{\"resourceSpans\": [1]}",
        "{\"resourceSpans\": [{\"scopeSpans\": [{\"spans\": [{\"traceId\": \"zz\"}]}]}]}",
        "\u{ff}{}",
    ] {
        assert!(matches!(to_protobuf(Signal::Traces, text.as_bytes()), Err(ParseError::Json(_))), "{text}");
    }
    // Of another signal there is nothing in it.
    let logs = b"{\"resourceLogs\": [{\"scopeLogs\": []}]}";
    assert_eq!(to_protobuf(Signal::Traces, logs).expect("a request"), b"");
}

#[test]
fn more_objects_than_a_text_of_its_size_has_are_refused() {
    let empty = |count: usize| {
        let spans = vec!["{}"; count].join(",");
        format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{spans}]}}]}}]}}")
    };
    assert!(to_protobuf(Signal::Traces, empty(OBJECTS_ANYWAY).as_bytes()).is_ok());
    let many = empty(2 * OBJECTS_ANYWAY);
    assert!(matches!(to_protobuf(Signal::Traces, many.as_bytes()), Err(ParseError::Dense)));
}
