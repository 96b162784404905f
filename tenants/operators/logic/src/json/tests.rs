//! Tests of `json`. The oracle is serde_json, which knows nothing of this scanner.

use serde_json::Value;

use super::*;

fn found<'j>(json: &'j str, path: &str) -> Option<&'j str> {
    let path: Vec<&str> = path.split('.').filter(|segment| !segment.is_empty()).collect();
    find(json, &path).expect("it is JSON").map(|range| &json[range])
}

#[test]
fn finds_values_by_path() {
    let feature = r#" {"properties" : {"mag":1.35,"place":"20km \"N\"","felt":null},
        "geometry":{"coordinates":[-112.5,44.8 , -2.15]},"id":"x","":{"":7}} "#;
    let check = |path: &str, expected: Option<&str>| assert_eq!(found(feature, path), expected, "{path}");

    check("properties.mag", Some("1.35"));
    check("properties.place", Some(r#""20km \"N\"""#));
    check("properties.felt", Some("null"));
    check("properties.felt.deeper", None);
    check("geometry.coordinates.0", Some("-112.5"));
    check("geometry.coordinates.2", Some("-2.15"));
    check("geometry.coordinates.3", None);
    check("geometry.coordinates.x", None);
    check("geometry.coordinates", Some("[-112.5,44.8 , -2.15]"));
    check("id", Some(r#""x""#));
    check("", Some(feature.trim()));
    check("mag", None);
}

#[test]
fn takes_the_last_of_equal_names_and_reads_escaped_ones() {
    assert_eq!(found(r#"{"a":1,"a":2}"#, "a"), Some("2"));
    assert_eq!(found(r#"{"\u0061\/\n":1}"#, "a/\n"), Some("1"));
    assert_eq!(found(r#"{"\ud83d\ude00":1}"#, "😀"), Some("1"));
    assert_eq!(found(r#"{"\ud83d":1}"#, "😀"), None);
}

#[test]
fn compares_strings_by_meaning() {
    let check = |value: &str, text: &str, expected| assert_eq!(is_string(value, text), expected, "{value}");

    check(r#""reviewed""#, "reviewed", true);
    check(r#""re\u0076iewed""#, "reviewed", true);
    check(r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t", true);
    check(r#""°C""#, "°C", true);
    check(r#""reviewe""#, "reviewed", false);
    check(r#""\ud800""#, "\u{fffd}", false);
    check("1", "1", false);
}

#[test]
fn names_what_was_expected_and_where() {
    let check = |json: &str, expected: &str| {
        let error = find(json, &["a"]).expect_err(json);
        assert_eq!(error.to_string(), format!("payload is not JSON: {expected}"), "{json}");
    };

    check("", "expected a value at byte 0");
    check("  ", "expected a value at byte 2");
    check("{", "expected a member's name at byte 1");
    check(r#"{"a""#, "expected `:` at byte 4");
    check(r#"{"a":1"#, "expected `,` or `}` at byte 6");
    check(r#"{"a":1,}"#, "expected a member's name at byte 7");
    check(r#"{"b":[1 2]}"#, "expected `,` or a closing bracket at byte 8");
    check(r#"{"a":01}"#, "expected `,` or `}` at byte 6");
    check(r#"{"a":1.}"#, "expected a digit at byte 7");
    check(r#"{"a":tru}"#, "expected a value at byte 5");
    check("{\"a\":\"\n\"}", "expected the end of a string at byte 6");
    check(r#"{"a":"\x"}"#, "expected an escape at byte 6");
    check(r#"{"a":1} x"#, "expected the end at byte 8");

    let error = text(b"\xff").expect_err("it is no UTF-8");
    assert_eq!(error.to_string(), "payload is not JSON: invalid utf-8 sequence of 1 bytes from index 0");
}

#[test]
fn refuses_what_is_nested_too_deeply() {
    let nested = |depth: usize| format!("{}1{}", r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
    let max = DEPTH_MAX as usize;

    for path in [&[][..], &["a"], &["a", "0", "a"]] {
        assert!(find(&nested(max), path).is_ok());
        assert_eq!(find(&nested(max + 2), path), Err(JsonError::Depth));
    }
}

#[test]
fn agrees_with_serde_on_what_is_json() {
    let seeds = [
        r#"{"id":17,"temperature":-4.05e-2,"unit":"°C","ok":[true,false,null,{}],"s":"a\"\u00e9\\"}"#,
        r#"[ [], {"a" : [1 , 2, {"b":"cccccccccccccccc"}]}, "\ud83d\ude00", 0, -0.0, 1E+3 ]"#,
    ];
    let replacements = b"{}[]:,\"\\ 0.-e1tnu/\n\x7f";
    let mut differences = 0;
    for seed in seeds {
        for at in 0..seed.len() {
            for replacement in replacements {
                let mut mutant = seed.as_bytes().to_vec();
                mutant[at] = *replacement;
                differences += usize::from(!agrees(&mutant));
                mutant.remove(at);
                differences += usize::from(!agrees(&mutant));
                mutant.truncate(at);
                differences += usize::from(!agrees(&mutant));
            }
        }
    }
    assert_eq!(differences, 0);
}

/// Both take it or both refuse it, and if they take it find the same.
fn agrees(mutant: &[u8]) -> bool {
    let Ok(json) = text(mutant) else {
        return serde_json::from_slice::<Value>(mutant).is_err();
    };
    // serde_json also refuses halves of surrogate pairs, and numbers without a double.
    let oracle: Result<Value, _> = serde_json::from_str(json);
    match (find(json, &["id"]), oracle) {
        (Ok(found), Ok(value)) => {
            let found: Option<Value> =
                found.map(|range| serde_json::from_str(&json[range]).expect("it is JSON"));
            found.as_ref() == value.get("id")
        }
        (Err(_), Err(_)) => true,
        (Ok(_), Err(error)) => {
            let text = error.to_string();
            text.contains("surrogate") || text.contains("hex escape") || text.contains("out of range")
        }
        (Err(_), Ok(_)) => false,
    }
}
