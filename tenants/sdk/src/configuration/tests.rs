//! Tests of `configuration`.

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Fast,
    VerySlow,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Even(u32);

impl TryFrom<String> for Even {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|number| number % 2 == 0)
            .map(Even)
            .ok_or_else(|| format!("`{text}` is not even"))
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct Config {
    text: String,
    number: f64,
    #[serde(default)]
    count: u8,
    flag: Option<bool>,
    mode: Option<Mode>,
    #[serde(default)]
    list: Vec<i32>,
    even: Option<Even>,
}

const LEAST: [(&str, &str); 2] = [("text", "°C"), ("number", "-2.5e1")];

#[test]
fn reads_every_kind_of_field() {
    let mut keys = LEAST.to_vec();
    keys.extend([
        ("count", " 7 "),
        ("flag", "true"),
        ("mode", "very-slow"),
        ("list", "1, -2,3"),
        ("even", "4"),
    ]);
    keys.extend([("another", "operator's"), ("text", "the last")]);

    let expected = Config {
        text: "the last".into(),
        number: -25.0,
        count: 7,
        flag: Some(true),
        mode: Some(Mode::VerySlow),
        list: vec![1, -2, 3],
        even: Some(Even(4)),
    };
    assert_eq!(read(&keys), Ok(expected));
}

#[test]
fn absent_keys_are_defaults_or_named() {
    let least: Config = read(&LEAST).expect("all that is required is there");
    assert_eq!((least.count, least.flag, least.list), (0, None, vec![]));

    let refused = read::<Config>(&LEAST[..1]).expect_err("a key is missing");
    assert_eq!(refused.to_string(), "configuration key `number` is missing");
}

#[test]
fn wrong_values_are_said_of_their_key() {
    let check = |key: &str, value: &str, expected: &str| {
        let mut keys = LEAST.to_vec();
        keys.push((key, value));
        let refused = read::<Config>(&keys).expect_err(value);
        assert_eq!(refused.to_string(), format!("configuration key `{key}`: {expected}"));
    };

    check("number", "", "expected a number, found ``");
    check("number", "1,5", "expected a number, found `1,5`");
    check("count", "256", "expected a whole number from 0 to 255, found `256`");
    check("flag", "yes", "expected `true` or `false`, found `yes`");
    check("mode", "slow", "expected one of `fast`, `very-slow`, found `slow`");
    check("list", "1,x", "expected a whole number of 32 bits, found `x`");
    check("even", "3", "`3` is not even");
}

#[test]
fn reads_other_shapes() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        text: String,
    }

    assert_eq!(read(&LEAST), Ok(()));
    let (text, number): (Text, Number) = read(&LEAST).expect("both are there");
    assert_eq!((text.text.as_str(), number.number), ("°C", -25.0));
    let refused = read::<Strict>(&LEAST).expect_err("it is strict").to_string();
    assert_eq!(refused, "configuration key `number` is unknown, expected one of `text`");
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Number {
    number: f64,
}
