use super::*;

#[test]
fn a_summary_goes_on_from_what_is_staged() {
    let of = Summarise::of("inner.v".to_owned().try_into().expect("a field"));
    let mut payload = Vec::new();
    for messages in [[10, 60].as_slice(), &[20]] {
        let mut summary = Summary::staged(&payload).expect("it was staged");
        for value in messages {
            of.add(format!(r#"{{"inner":{{"v":{value}}}}}"#).as_bytes(), &mut summary).expect("a number");
        }
        payload = serde_json::to_vec(&summary).expect("it is written");
    }
    let text = String::from_utf8(payload).expect("text");
    assert_eq!(text, r#"{"count":3,"sum":90.0,"min":10.0,"max":60.0,"mean":30.0}"#);
    let mut summary = Summary::EMPTY;
    for (payload, error) in [
        (r#"{"v":1}"#, "payload has no field `inner.v`"),
        (r#"{"inner":{"v":"1"}}"#, "field `inner.v` is not a number"),
    ] {
        let result = of.add(payload.as_bytes(), &mut summary);
        assert_eq!(result.expect_err(payload).to_string(), error);
    }
    assert_eq!(summary, Summary::EMPTY);
}
