//! Tests of `threshold`.

use tidegate_sdk::configuration::read;

use super::*;

#[test]
fn is_reached_at_the_threshold_and_above() {
    let threshold: Threshold = read(&[("field", "t"), ("threshold", "5")]).expect("it is a threshold");
    let check = |payload: &str, expected: Result<bool, &str>| {
        let reached = threshold.is_reached(payload.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(reached, expected.map_err(Into::into), "{payload}");
    };

    check(r#"{"t":4.999}"#, Ok(false));
    check(r#"{"t":5}"#, Ok(true));
    check(r#"{"t":5.001}"#, Ok(true));
    check(r#"{}"#, Err("payload has no field `t`"));
}
