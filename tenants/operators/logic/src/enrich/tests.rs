//! Tests of `enrich`.

use tidegate_sdk::configuration::read;

use super::*;

fn enrich(keys: &[(&str, &str)], payload: &str) -> Result<String, String> {
    let enrich: Enrich = read(keys).map_err(|error| error.to_string())?;
    let mut out = String::new();
    enrich.write(payload.as_bytes(), &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

#[test]
fn renames_adds_and_removes_members() {
    let check = |keys: &[(&str, &str)], payload: &str, expected: &str| {
        assert_eq!(enrich(keys, payload).as_deref(), Ok(expected), "{keys:?}");
    };
    let payload = r#"{"id":7, "t" : 1.5,"unit":"C","in":{"id":1}}"#;

    check(&[], payload, r#"{"id":7,"t":1.5,"unit":"C","in":{"id":1}}"#);
    check(
        &[("rename", "t=temperature, id = msg_id")],
        payload,
        r#"{"msg_id":7,"temperature":1.5,"unit":"C","in":{"id":1}}"#,
    );
    check(&[("remove", "unit,in,none")], payload, r#"{"id":7,"t":1.5}"#);
    check(
        &[("add", "team=weather,n=5,ok=true,x=null,s=1a")],
        r#"{"a":1}"#,
        r#"{"a":1,"team":"weather","n":5,"ok":true,"x":null,"s":"1a"}"#,
    );
    check(&[("add", "a=2")], r#"{"a":1,"b":2}"#, r#"{"b":2,"a":2}"#);
    check(&[("add", "q=say \"hi\"\\")], "{}", r#"{"q":"say \"hi\"\\"}"#);
    check(&[("add", "l=[1]")], "{}", r#"{"l":"[1]"}"#);
    check(&[("remove", "a")], r#"{"a":1}"#, "{}");
}

#[test]
fn keeps_the_payload_if_only_the_topic_changes() {
    let only_topic: Enrich = read(&[("topic_suffix", "/cold")]).expect("it is a configuration");
    assert!(only_topic.keeps_payload());
    assert_eq!((only_topic.topic, only_topic.topic_suffix.as_deref()), (None, Some("/cold")));
}

#[test]
fn explains_what_it_cannot_do() {
    let check = |keys: &[(&str, &str)], payload: &str, expected: &str| {
        assert_eq!(enrich(keys, payload), Err(expected.into()));
    };
    check(&[("rename", "a")], "{}", "configuration key `rename`: expected `name=value`, found `a`");
    check(&[("add", "=1")], "{}", "configuration key `add`: expected `name=value`, found `=1`");
    check(&[], "[]", "payload is not JSON: expected an object at byte 0");
    check(&[], r#"{"a":1} 2"#, "payload is not JSON: expected the end at byte 8");
}
