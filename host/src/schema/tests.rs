use proptest::prelude::*;

use super::*;

fn schema(text: &str) -> PayloadSchema {
    PayloadSchema::compile("s", text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn payloads_that_do_not_fit_are_told_why() {
    let reading = r##"{
        "type": "object", "required": ["t"], "additionalProperties": false,
        "properties": { "t": { "$ref": "#/definitions/number" }, "unit": { "pattern": "^[CF]$" }, "regex": { "format": "regex" } },
        "definitions": { "number": { "type": "number", "maximum": 100 } }
    }"##;
    for (payload, expected) in [
        (r#"{"t":1}"#, None),
        (r#"{"t":1,"unit":"C"}"#, None),
        (r#"{"t":1,"regex":"("}"#, None),
        (r#"{"t":1,"unit":"K"}"#, Some("value does not match \"^[CF]$\", at `/unit`")),
        (r#"{"t":101}"#, Some("value is greater than the maximum of 100, at `/t`")),
        (r#"{}"#, Some("\"t\" is a required property")),
        (r#"{"t":"#, Some("the payload is not JSON: EOF while parsing a value at line 1 column 5")),
        ("", Some("the payload is not JSON: EOF while parsing a value at line 1 column 0")),
        ("\u{fe}", Some("the payload is not JSON: expected value at line 1 column 1")),
    ] {
        assert_eq!(schema(reading).check(payload.as_bytes()).violation.as_deref(), expected, "{payload}");
    }
}

#[test]
fn values_of_parameters_are_text_or_what_it_says() {
    for (text, value, fits) in [
        (r#"{"type":"string","maxLength":2}"#, "12", true),
        (r#"{"type":"string","maxLength":2}"#, "123", false),
        (r#"{"type":"string"}"#, "", true),
        (r#"{"type":["null","string"],"enum":["1",null]}"#, "1", true),
        (r#"{"type":["null","string"],"enum":["1",null]}"#, "null", false),
        (r#"{"type":"integer","minimum":3}"#, "3", true),
        (r#"{"type":"integer","minimum":3}"#, " 3 ", true),
        (r#"{"type":"integer","minimum":3}"#, "2", false),
        (r#"{"type":"integer"}"#, "3.5", false),
        (r#"{"type":"integer"}"#, "three", false),
        (r#"{"type":"integer"}"#, "", false),
        (r#"{"type":"boolean"}"#, "true", true),
        (r#"{"type":"boolean"}"#, "True", false),
        (r#"{"type":"array","items":{"type":"number"}}"#, "[1, 2.5]", true),
        (r#"{"type":"array","items":{"type":"number"}}"#, "[1, \"x\"]", false),
        // Without a type, text is what says nothing as JSON.
        (r#"{"enum":["C","F",0]}"#, "C", true),
        (r#"{"enum":["C","F",0]}"#, "0", true),
        (r#"{"enum":["C","F",0]}"#, "K", false),
        (r#"{"minimum":5}"#, "3", false),
        ("true", "anything", true),
        ("false", "anything", false),
    ] {
        let violation = schema(text).check_value(value);
        assert_eq!(violation.is_none(), fits, "{value} under {text}: {violation:?}");
    }
    let wide = schema(&format!("{{\"items\":{{\"enum\":[{}]}}}}", vec!["1"; 4_000].join(",")));
    let long = format!("[{}]", vec!["1"; 100].join(","));
    let violation = wide.check_value(&long).expect("it is not checked");
    assert!(
        violation.starts_with("with 101 values it is too much for a schema of weight 400"),
        "{violation}"
    );
}

#[test]
fn what_cannot_be_compiled_or_bounded_is_refused_at_its_place() {
    let wide = |of: usize| format!("{{\"enum\":[{}]}}", vec!["1"; of].join(","));
    let deep = |of: usize| format!("{}true{}", "{\"not\":".repeat(of), "}".repeat(of));
    // Each definition asks twice for the next: a thousand lines of it would be 2^1000.
    let doubling = |of: usize| {
        let one = |index: usize| {
            format!(
                "\"d{index}\":{{\"allOf\":[{{\"$ref\":\"#/definitions/d{0}\"}},{{\"$ref\":\"#/definitions/d{0}\"}}]}}",
                index + 1
            )
        };
        let all: Vec<_> = (0..of).map(one).collect();
        format!("{{\"$ref\":\"#/definitions/d0\",\"definitions\":{{{},\"d{of}\":true}}}}", all.join(","))
    };
    for (text, expected) in [
        ("{}".to_owned(), None),
        ("true".to_owned(), None),
        ("{".to_owned(), Some(("", "is not JSON"))),
        (r#"{"type":"strnig"}"#.to_owned(), Some(("/type", ""))),
        (r#"{"properties":{"a":{"minimum":"x"}}}"#.to_owned(), Some(("/properties/a/minimum", ""))),
        (r#"{"pattern":"("}"#.to_owned(), Some(("/pattern", ""))),
        (r#"{"pattern":"^(?!a)"}"#.to_owned(), Some(("/pattern", ""))),
        (r#"{"pattern":"(a)\\1"}"#.to_owned(), Some(("/pattern", ""))),
        (r#"{"pattern":"(((a{100}){100}){100})"}"#.to_owned(), Some(("/pattern", ""))),
        (r##"{"$ref":"#"}"##.to_owned(), Some(("/$ref", "leads round in a circle"))),
        (r##"{"items":{"$ref":"#"}}"##.to_owned(), Some(("/items/$ref", "leads round in a circle"))),
        (
            r##"{"properties":{"a":{"items":{"$ref":"#/properties/a"}}}}"##.to_owned(),
            Some(("/properties/a/items/$ref/items/$ref", "leads round in a circle")),
        ),
        (r##"{"$ref":"#/definitions/a"}"##.to_owned(), Some(("/$ref", "leads nowhere"))),
        (r#"{"$ref":"https://example.com/s"}"#.to_owned(), Some(("/$ref", "into the schema itself"))),
        (r#"{"$ref":"file:///etc/passwd"}"#.to_owned(), Some(("/$ref", "into the schema itself"))),
        (r#"{"$id":"https://example.com/s"}"#.to_owned(), None),
        (r#"{"items":{"$id":"https://example.com/s"}}"#.to_owned(), Some(("/items/$id", "may have an id"))),
        (r##"{"items":{"$id":"#/items"}}"##.to_owned(), None),
        (r#"{"unevaluatedProperties":false}"#.to_owned(), Some(("/unevaluatedProperties", "not supported"))),
        (r#"{"$schema":"https://example.com/mine"}"#.to_owned(), Some(("", ""))),
        (
            r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","prefixItems":[true]}"#.to_owned(),
            None,
        ),
        (deep(DEPTH_MAX), None),
        (deep(DEPTH_MAX + 1), Some((&*"/not".repeat(DEPTH_MAX + 1), "deeper than"))),
        (wide(WEIGHT_MAX as usize - 2), None),
        (wide(WEIGHT_MAX as usize - 1), Some(("/enum", "too large"))),
        (doubling(8), None),
        (doubling(20), Some(("", "too large"))),
        (format!("{}{{}}", " ".repeat(SCHEMA_BYTES_MAX - 2)), None),
        (format!("{}{{}}", " ".repeat(SCHEMA_BYTES_MAX - 1)), Some(("", "bytes, 262144 are allowed"))),
    ] {
        let short: String = text.trim_start().chars().take(80).collect();
        match (PayloadSchema::compile("s", &text), expected) {
            (Ok(_), None) => {}
            (Err(error), Some((pointer, cause))) => {
                assert!(pointer.is_empty() || error.pointer == pointer, "{short}: {error:?}");
                assert!(error.cause.contains(cause), "{short}: {error:?}");
            }
            (result, expected) => panic!("{short}: {:?}, not {expected:?}", result.err()),
        }
    }
}

#[test]
fn the_work_of_a_check_is_bounded_and_what_is_just_little_enough_is_done() {
    // The root, the subschema, its `type`.
    let schema = schema(r#"{"items":{"type":"integer"}}"#);
    assert_eq!(schema.weight, 3);
    let fit = WORK_MAX as usize / 3 - 1;
    for (items, fits) in [(fit, true), (fit + 1, false)] {
        let Checked { violation, work } =
            schema.check(format!("[{}]", vec!["1"; items].join(",")).as_bytes());
        assert_eq!(violation.is_none(), fits, "{items}: {violation:?}");
        assert!(violation.is_none_or(|text| text.contains("is too much for a schema of weight 3")));
        assert!(work <= WORK_MAX + 2 * items as u64 / 32 + 1, "{work}");
    }
}

#[test]
fn patterns_weigh_as_much_as_their_automata() {
    for (pattern, expected) in [
        ("^a$", 3),
        ("a{3}", 7),
        ("(ab){3}", 21),
        ("(a{10}){10}", 210),
        ("((a{100}){100}){100}", 1_000),
        ("\\p{L}", 261),
        ("{", 1),
    ] {
        assert_eq!(states(pattern), expected, "{pattern}");
    }
}

/// JSON that looks like schemas, references in circles among them.
fn schema_like() -> impl Strategy<Value = Json> {
    let keywords = [
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "items",
        "properties",
        "patternProperties",
        "additionalProperties",
        "definitions",
        "type",
        "enum",
        "pattern",
        "required",
        "dependencies",
        "$id",
        "contains",
        "propertyNames",
        "const",
        "format",
        "minimum",
        "uniqueItems",
    ];
    let leaf = prop_oneof![
        Just(Json::Bool(true)),
        Just(Json::from(3)),
        prop::sample::select(vec![
            "#",
            "#/definitions/a",
            "#/items",
            "string",
            "object",
            "^(a|b)*{2}$",
            "regex",
            "a"
        ])
        .prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 64, 4, move |inner| {
        let key = prop::sample::select(keywords.to_vec()).prop_map(str::to_owned);
        let key = prop_oneof![8 => key, 2 => Just("a".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_compiles_answers_for_any_payload(schema in schema_like(), payload in schema_like()) {
        let (text, payload) = (schema.to_string(), payload.to_string());
        if let Ok(schema) = PayloadSchema::compile("s", &text) {
            prop_assert!(schema.weight <= WEIGHT_MAX);
            let Checked { violation, .. } = schema.check(payload.as_bytes());
            prop_assert!(!violation.is_some_and(|text| text.contains("is not JSON") || text.len() > VIOLATION_BYTES_MAX));
        }
    }
}
