//! Tests of `filter`, its configuration read as a guest reads it.

use tidegate_sdk::configuration::read;

use super::*;

fn filter(field: &str, op: &str, value: &str) -> Result<Filter, String> {
    read(&[("field", field), ("op", op), ("value", value)]).map_err(|error| error.to_string())
}

#[test]
fn compares_numbers_text_and_booleans() {
    let check = |field: &str, op: &str, value: &str, payload: &str, expected: Result<bool, &str>| {
        let filter = filter(field, op, value).expect("it is a filter");
        let passes = filter.passes(payload.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(passes, expected.map_err(Into::into), "{field} {op} {value} on {payload}");
    };

    check("t", "gt", "50", r#"{"t":50.1}"#, Ok(true));
    check("t", "gt", "50", r#"{"t":50}"#, Ok(false));
    check("t", "ge", "50", r#"{"t":5e1}"#, Ok(true));
    check("t", "lt", "-1.5", r#"{"t":-1.6}"#, Ok(true));
    check("t", "le", "0", r#"{"t":0.1}"#, Ok(false));
    check("t", "eq", "1", r#"{"t":1.0}"#, Ok(true));
    check("t", "ne", "1", r#"{"t":1.0}"#, Ok(false));
    check("a.b.1", "eq", "2", r#"{"a":{"b":[1,2]}}"#, Ok(true));
    check("s", "eq", "reviewed", r#"{"s":"reviewed"}"#, Ok(true));
    check("s", "ne", "reviewed", r#"{"s":"automatic"}"#, Ok(true));
    check("b", "eq", "true", r#"{"b":true}"#, Ok(true));
    check("b", "ne", "true", r#"{"b":null}"#, Ok(true));

    check("t", "gt", "50", r#"{"u":1}"#, Err("payload has no field `t`"));
    check("a.b", "gt", "50", r#"{"a":1}"#, Err("payload has no field `a.b`"));
    check("t", "gt", "50", r#"{"t":"51"}"#, Err("field `t` is not a number"));
    check("t", "gt", "50", r#"{"t":null}"#, Err("field `t` is not a number"));
    check("s", "eq", "reviewed", r#"{"s":1}"#, Err("field `s` is not text"));
    check("t", "gt", "50", "warm", Err("payload is not JSON: expected a value at byte 0"));
    check("t", "gt", "50", "", Err("payload is not JSON: expected a value at byte 0"));
}

#[test]
fn refuses_configurations_with_their_key() {
    let check = |field: &str, op: &str, value: &str, expected: &str| {
        assert_eq!(filter(field, op, value).err().as_deref(), Some(expected));
    };

    check(
        "t",
        "over",
        "1",
        "configuration key `op`: expected one of `gt`, `ge`, `lt`, `le`, `eq`, `ne`, found `over`",
    );
    check(
        "t",
        "gt",
        "much",
        "configuration key `value`: only numbers can be compared by `gt`, `ge`, `lt` and `le`",
    );
    check(
        "a..b",
        "gt",
        "1",
        "configuration key `field`: expected a field such as `temperature` or `geometry.depth`, found `a..b`",
    );
    let missing = read::<Filter>(&[("field", "t"), ("op", "gt")]).err().map(|error| error.to_string());
    assert_eq!(missing.as_deref(), Some("configuration key `value` is missing"));
}
