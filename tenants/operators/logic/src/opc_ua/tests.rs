//! Tests of `opc_ua`. Payload and result marked (AIO) are those of AIO's own test t04:
//! Azure-Samples/explore-iot-operations @ b2bc8c8d333a, `samples/wasm/tests/`, MIT,
//! Copyright (c) Microsoft Corporation.

use super::*;

const PAYLOAD: &str = r#"{
    "Temperature": {
        "Value": 23.5,
        "SourceTimestamp": "2026-01-01T00:00:00Z"
    },
    "Pressure": {
        "Value": 101.3,
        "SourceTimestamp": "2026-01-01T00:00:00Z"
    }
}"#;

#[test]
fn data_values_become_rows() {
    let check = |payload: &str, extra: &[(&str, &str)], copy_all, expected: &str| {
        let extra: Vec<_> = extra.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let rows = flatten(payload.as_bytes(), &extra, copy_all).expect("an object");
        assert_eq!(String::from_utf8(rows).expect("JSON is UTF-8"), expected, "{payload}");
    };
    // (AIO)
    check(
        PAYLOAD,
        &[],
        false,
        concat!(
            r#"[{"tag":"Pressure","timestamp":"2026-01-01T00:00:00Z","value":101.3},"#,
            r#"{"tag":"Temperature","timestamp":"2026-01-01T00:00:00Z","value":23.5}]"#
        ),
    );
    let mixed = r#"{"T":{"Value":[1,null]},"line":7,"tag":"x","site":{"id":1}}"#;
    check(mixed, &[], false, r#"[{"tag":"T","value":[1,null]}]"#);
    check(
        mixed,
        &[("line", "no"), ("asset", "a1")],
        true,
        r#"[{"asset":"a1","line":7,"site":{"id":1},"tag":"T","value":[1,null]}]"#,
    );
    check(
        r#"{"T":{"Value":1}}"#,
        &[("timestamp", "never"), ("q", "\"")],
        false,
        r#"[{"q":"\"","tag":"T","value":1}]"#,
    );
    check("{}", &[("a", "b")], true, "[]");
}

#[test]
fn what_is_no_object_is_refused() {
    for (payload, expected) in [("[1]", "payload is no object"), ("{", "payload is not JSON")] {
        let refused = flatten(payload.as_bytes(), &[], false).expect_err("refused").to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
}
