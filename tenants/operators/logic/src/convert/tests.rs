//! Tests of `convert`.

use tidegate_sdk::configuration::read;

use super::*;

fn convert(keys: &[(&str, &str)], payload: &str) -> Result<String, String> {
    let convert: Convert = read(keys).map_err(|error| error.to_string())?;
    let mut out = String::new();
    convert.write(payload.as_bytes(), &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

#[test]
fn converts_between_units() {
    let check = |from: &str, to: &str, value: &str, expected: &str| {
        let keys = [("field", "v"), ("from", from), ("to", to), ("decimals", "3")];
        let converted = convert(&keys, &format!(r#"{{"v":{value}}}"#));
        assert_eq!(converted, Ok(format!(r#"{{"v":{expected}}}"#)), "{value} {from} to {to}");
    };

    check("C", "F", "4.0", "39.200");
    check("°C", "°F", "-40", "-40.000");
    check("F", "C", "212", "100.000");
    check("K", "C", "0", "-273.150");
    check("m/s", "km/h", "10", "36.000");
    check("km/h", "m/s", "36", "10.000");
    check("kn", "km/h", "1", "1.852");
    check("mph", "m/s", "100", "44.704");
    check("hPa", "inHg", "1013.25", "29.921");
    check("inHg", "hPa", "29.92", "1013.208");
    check("bar", "kPa", "1", "100.000");
    check("km", "mi", "1.609344", "1.000");
    check("mi", "ft", "1", "5280.000");
    check("m", "km", "1500", "1.500");
}

#[test]
fn every_unit_converts_to_itself() {
    for unit in UNITS {
        let keys = [("field", "v"), ("from", unit.name), ("to", unit.name)];
        assert_eq!(convert(&keys, r#"{"v":12.5}"#).as_deref(), Ok(r#"{"v":12.5}"#), "{}", unit.name);
    }
}

#[test]
fn changes_only_the_value_or_adds_it_beside() {
    let check = |output: Option<&str>, field: &str, payload: &str, expected: &str| {
        let mut keys = vec![("field", field), ("from", "C"), ("to", "F")];
        keys.extend(output.map(|name| ("output", name)));
        assert_eq!(convert(&keys, payload).as_deref(), Ok(expected), "{payload}");
    };

    check(None, "t", r#"{ "a":1, "t" : 0 ,"b":"x"}"#, r#"{ "a":1, "t" : 32.0 ,"b":"x"}"#);
    check(Some("t"), "t", r#"{"t":100}"#, r#"{"t":212.0}"#);
    check(Some("f"), "t", r#"{"a":1,"t":0,"b":2}"#, r#"{"a":1,"t":0,"f":32.0,"b":2}"#);
    check(Some("f"), "t", r#"{"f":null,"t":0}"#, r#"{"f":32.0,"t":0}"#);
    check(Some("f"), "t", r#"{"t":0,"f":"old" }"#, r#"{"t":0,"f":32.0 }"#);
    check(Some("f"), "in.t", r#"{"t":9,"in":{"t":0},"f":1}"#, r#"{"t":9,"in":{"t":0,"f":32.0},"f":1}"#);
    check(None, "0", "[0]", "[32.0]");
}

#[test]
fn explains_what_it_cannot_do() {
    let keys = [("field", "t"), ("from", "C"), ("to", "F"), ("output", "f")];
    let check = |payload: &str, expected: &str| {
        assert_eq!(convert(&keys, payload), Err(expected.into()), "{payload}");
    };
    check(r#"{"u":1}"#, "payload has no field `t`");
    check(r#"{"t":"1"}"#, "field `t` is not a number");
    check(r#"{"t":1e308}"#, "result for field `t` is no finite number");
    check("[1]", "payload is not JSON: expected an object at byte 0");

    let check = |keys: &[(&str, &str)], expected: &str| assert_eq!(convert(keys, "{}"), Err(expected.into()));
    check(&[("field", "t"), ("from", "C"), ("to", "km")], "configuration key `to`: `C` cannot become `km`");
    check(
        &[("field", "t"), ("from", "C"), ("to", "F"), ("decimals", "18")],
        "configuration key `decimals`: expected at most 17",
    );
    check(
        &[("field", "t"), ("from", "C"), ("to", "F"), ("output", "a\"b")],
        "configuration key `output`: expected a plain name, found `a\"b`",
    );
}
