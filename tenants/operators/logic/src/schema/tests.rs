//! Tests of `schema`. Schema and payloads marked (AIO) are those of AIO's schema
//! registry scenario and its test t08: Azure-Samples/explore-iot-operations @
//! b2bc8c8d333a, `samples/wasm/`, MIT, Copyright (c) Microsoft Corporation.

use super::*;

const SCHEMA: &str = r#"{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "properties": {
    "humidity": {
      "type": "integer"
    },
    "temperature": {
      "type": "number"
    }
  }
}"#;

#[test]
fn payloads_fit_or_do_not() {
    let check = |schema: &str, fitting: &[&str], others: &[&str]| {
        let schema = Schema::parse(schema).expect("it is known");
        for (payloads, expected) in [(fitting, true), (others, false)] {
            for payload in payloads {
                let value = serde_json::from_str(payload).expect("JSON");
                assert_eq!(schema.fits(&value), expected, "{payload}: {schema:?}");
            }
        }
    };
    // (AIO)
    check(
        SCHEMA,
        &[r#"{"humidity":175,"temperature":12.5}"#, "{}", r#"{"humidity":175.0}"#],
        &[r#"{"humidity":175.1,"temperature":12}"#, r#"{"humidity":176.2}"#, "7", r#"{"temperature":"x"}"#],
    );
    check("true", &["1", "null"], &[]);
    check("false", &[], &["1", "null"]);
    check(r#"{"type":["null","boolean"]}"#, &["null", "false"], &["0", "\"\"", "[]"]);
    check(r#"{"enum":[1,"a",{"x":[2]}]}"#, &["1.0", "\"a\"", r#"{"x":[2.0]}"#], &["2", r#"{"x":[]}"#, "{}"]);
    check(r#"{"const":null}"#, &["null"], &["0"]);
    check(r#"{"minimum":1,"exclusiveMaximum":2}"#, &["1", "1.9", "\"x\""], &["0.9", "2"]);
    check(r#"{"exclusiveMinimum":1,"maximum":2}"#, &["1.1", "2"], &["1", "2.1"]);
    check(r#"{"minLength":1,"maxLength":2}"#, &["\"ä\"", "\"äö\"", "7"], &["\"\"", "\"abc\""]);
    check(
        r#"{"minItems":1,"maxItems":2,"items":{"type":"string"}}"#,
        &[r#"["a"]"#, "{}"],
        &["[]", "[1]", r#"["a","b","c"]"#],
    );
    check(
        r#"{"required":["a"],"properties":{"a":{"type":"null"}},"additionalProperties":false}"#,
        &[r#"{"a":null}"#, "7"],
        &["{}", r#"{"a":1}"#, r#"{"a":null,"b":1}"#],
    );
    check(r#"{"additionalProperties":{"type":"null"}}"#, &[r#"{"a":null}"#], &[r#"{"a":1}"#]);
    check(r#"{"allOf":[{"minimum":1},{"maximum":2}]}"#, &["1"], &["0", "3"]);
    check(r#"{"anyOf":[{"minimum":5},{"maximum":2}]}"#, &["1", "6"], &["3"]);
    check(r#"{"not":{"type":"null"}}"#, &["1"], &["null"]);
}

#[test]
fn what_is_not_known_or_wrong_refuses_the_schema() {
    let deep = format!("{}{{}}{}", r#"{"not":"#.repeat(64), "}".repeat(64));
    for (schema, expected) in [
        ("{", "the schema is not JSON: EOF"),
        ("[]", "`[]` is no schema"),
        (r#"{"pattern":"a"}"#, "`pattern`: this keyword is not known here"),
        (r##"{"properties":{"a":{"$ref":"#"}}}"##, "`$ref`: this keyword is not known here"),
        (r#"{"type":"float"}"#, "`type`: \"float\" is no type"),
        (r#"{"properties":[]}"#, "`properties`: expected an object"),
        (r#"{"required":[1]}"#, "`required`: expected a list of names"),
        (r#"{"minItems":-1}"#, "`minItems`: expected a whole number that is not negative"),
        (r#"{"anyOf":[]}"#, "`anyOf`: expected a list of schemas"),
        (&deep, "`not`: `not`: "),
    ] {
        let refused = Schema::parse(schema).expect_err("refused");
        assert!(refused.starts_with(expected), "{refused}");
    }
}
