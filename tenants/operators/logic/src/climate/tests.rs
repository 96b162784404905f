//! Tests of `climate`. Readings and results marked (AIO) are those of AIO's own tests
//! t01 and t02: Azure-Samples/explore-iot-operations @ b2bc8c8d333a,
//! `samples/wasm/tests/` and `data-and-images/`, MIT, Copyright (c) Microsoft Corporation.

use super::*;

const READING: &str = r#"{
    "temperature": {
        "value": 1209,
        "unit": "F"
    }
}"#;

fn text(payload: Result<Vec<u8>, ClimateError>) -> Result<String, String> {
    payload.map(|it| String::from_utf8(it).expect("JSON is UTF-8")).map_err(|error| error.to_string())
}

#[test]
fn fahrenheit_becomes_celsius() {
    let check = |payload: &str, expected: Result<&str, &str>| {
        assert_eq!(
            text(to_celsius(payload.as_bytes())),
            expected.map(Into::into).map_err(Into::into),
            "{payload}"
        );
    };
    // (AIO)
    check(
        READING,
        Ok(concat!(
            r#"{"temperature":{"value":653.8888888888889,"count":0,"max":0.0,"min":0.0,"#,
            r#""average":0.0,"last":0.0,"unit":"C","overtemp":false}}"#
        )),
    );
    check(
        r#"{"temperature":{"unit":"C","value":-2.5}}"#,
        Ok(concat!(
            r#"{"temperature":{"value":-2.5,"count":0,"max":0.0,"min":0.0,"#,
            r#""average":0.0,"last":0.0,"unit":"C","overtemp":false}}"#
        )),
    );
    check(r#"{"temperature":{"unit":"K","value":1}}"#, Err("unit `K` is not known: F or C"));
    check(r#"{"temperature":{"unit":"F"}}"#, Err("payload has no `temperature.value`"));
    check(
        r#"{"humidity":{"value":85}}"#,
        Err("payload is no reading: missing field `temperature` at line 1 column 25"),
    );
}

#[test]
fn readings_are_told_apart() {
    assert!(is_temperature(READING.as_bytes()).expect("JSON"));
    // (AIO)
    assert!(!is_temperature(br#"{ "humidity": { "value": 85 } }"#).expect("JSON"));
    assert!(!is_temperature(b"7").expect("JSON"));
    assert!(is_temperature(b"{").is_err());
}

#[test]
fn bounds_hold_at_both_ends() {
    let check = |lower, upper, value: &str, expected| {
        let bounds = Bounds::parse(lower, upper).expect("numbers");
        let payload = format!(r#"{{"temperature":{{"value":{value},"unit":"C"}}}}"#);
        assert_eq!(bounds.hold(payload.as_bytes()).expect("a reading"), expected, "{value}");
    };
    check(None, None, "-40", true);
    check(None, None, "-40.1", false);
    check(None, None, "3422", true);
    check(None, None, "3423", false);
    check(Some("-273.15"), Some(" 5000.0 "), "4999", true);
    check(Some("20"), Some("30"), "19.9", false);
    let refused = Bounds::parse(None, Some("hot")).expect_err("no number");
    assert_eq!(refused.to_string(), "`temperature_upper_bound`: expected a number, found `hot`");
}

#[test]
fn a_window_of_temperatures_grows_over_several_calls() {
    let reading = |value: f64| format!(r#"{{"temperature":{{"value":{value},"unit":"C"}}}}"#);
    let mut staged = Vec::new();
    for call in [&[10.0, 20.0][..], &[60.0]] {
        let mut window = TemperatureWindow::staged(&staged).expect("staged by the call before");
        for value in call {
            window.add(reading(*value).as_bytes()).expect("a reading");
        }
        assert!(window.add(b"{}").is_err(), "what is no reading changes nothing");
        staged = window.payload().expect("JSON");
    }
    let expected = concat!(
        r#"{"temperature":{"count":3,"max":60.0,"min":10.0,"average":30.0,"last":60.0,"#,
        r#""unit":"C","overtemp":false}}"#
    );
    assert_eq!(text(Ok(staged)), Ok(expected.into()));
}

#[test]
fn a_window_of_humidities_knows_its_numbers() {
    let mut window = HumidityWindow::staged(b"").expect("nothing is staged");
    // (AIO)
    for value in [85, 45, 79] {
        window.add(format!(r#"{{"humidity":{{"value":{value}}}}}"#).as_bytes()).expect("a reading");
    }
    let staged = window.payload().expect("JSON");
    let expected =
        r#"{"humidity":{"count":3,"max":85.0,"min":45.0,"average":69.66666666666667,"last":79.0}}"#;
    assert_eq!(text(Ok(staged.clone())), Ok(expected.into()));
    let again = HumidityWindow::staged(&staged).expect("its own").payload();
    assert_eq!(text(again), Ok(expected.into()));
}

#[test]
fn a_reading_goes_through_the_whole_complex_graph() {
    let celsius = to_celsius(READING.as_bytes()).expect("a reading");
    assert!(Bounds::parse(None, None).expect("defaults").hold(&celsius).expect("a reading"));
    let mut window = TemperatureWindow::staged(b"").expect("nothing is staged");
    window.add(&celsius).expect("a reading");
    let mut collection = Collection::staged(b"").expect("nothing is staged");
    collection.add(&window.payload().expect("JSON")).expect("found by a branch");
    let mut collection = Collection::staged(&collection.payload().expect("JSON")).expect("its own");
    collection.mark_overtemp(500.0);
    // (AIO)
    let expected = concat!(
        r#"{"temperature":[{"count":1,"max":653.8888888888889,"min":653.8888888888889,"#,
        r#""average":653.8888888888889,"last":653.8888888888889,"unit":"C","overtemp":true}]}"#
    );
    assert_eq!(text(collection.payload()), Ok(expected.into()));

    collection.add(br#"{"humidity":{"count":1,"max":8.0}}"#).expect("found by a branch");
    collection.add(br#"{"object":[{"label":"wide","count":2}]}"#).expect("found by a branch");
    let all = text(collection.payload()).expect("JSON");
    assert!(
        all.ends_with(concat!(
            r#""humidity":[{"count":1,"max":8.0,"min":0.0,"average":0.0,"last":0.0}],"#,
            r#""object":[{"count":2,"label":"wide"}]}"#
        )),
        "{all}"
    );
}
