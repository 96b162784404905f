use proptest::prelude::*;

use super::*;
use crate::batch::Batch;

fn batch(line: &str) -> Result<Batch, LineError> {
    let mut builder = BatchBuilder::new("edge-1");
    Message::parse(line.as_bytes())?.push("stem", &mut builder);
    Ok(builder.finish())
}

/// Topic, payload, content type and properties of the one message.
fn shown(batch: &Batch) -> (String, String, Option<String>, Vec<(String, String)>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (entry, arena) = (&batch.entries[0], &batch.arena);
    let properties = batch.properties(0).map(|(key, value)| (text(key), text(value))).collect();
    let content_type = entry.content_type.get(arena).map(text);
    (text(entry.topic.bytes(arena)), text(entry.payload.bytes(arena)), content_type, properties)
}

fn written(batch: &Batch) -> String {
    let mut line = BytesMut::new();
    write_line(&batch.entries[0], &batch.arena, &mut line);
    String::from_utf8(line.to_vec()).expect("JSON is UTF-8")
}

#[test]
fn a_line_is_a_message_or_else_a_payload() {
    let ts = |text: &str| vec![("__ts".to_owned(), text.to_owned())];
    let cases = [
        (r#"{"topic":"a/b","payload":{"x": 1.50}}"#, "a/b", r#"{"x": 1.50}"#, None, vec![]),
        (r#"{"payload":"text\n"}"#, "stem", "text\n", None, vec![]),
        (r#"{"payload":null}"#, "stem", "null", None, vec![]),
        (r#"{"payload":"","topic":""}"#, "", "", None, vec![]),
        (r#"{"payloadBase64":"aGkh"}"#, "stem", "hi!", None, vec![]),
        (r#"{"payload":1,"contentType":"text/plain"}"#, "stem", "1", Some("text/plain"), vec![]),
        (r#"{"payload":1,"deadLetter":{"id":7,"reason":"trap"}}"#, "stem", "1", None, vec![]),
        (
            r#"{"payload":1,"properties":[["k","v"],["k","w"]]}"#,
            "stem",
            "1",
            None,
            vec![("k".to_owned(), "v".to_owned()), ("k".to_owned(), "w".to_owned())],
        ),
        (
            r#"{"payload":1,"timestamp":"2026-01-01T00:00:00.123Z"}"#,
            "stem",
            "1",
            None,
            ts("001767225600123:00000:"),
        ),
        (
            r#"{"payload":1,"timestamp":"000000000000005:00007:n"}"#,
            "stem",
            "1",
            None,
            ts("000000000000005:00007:n"),
        ),
        (
            r#"{"payload":1,"timestamp":"5:7:n","properties":[["__ts","1:1:m"]]}"#,
            "stem",
            "1",
            None,
            ts("5:7:n"),
        ),
        (r#" {"temperature": 5} "#, "stem", r#"{"temperature": 5}"#, None, vec![]),
        (r#"{"topic":"a"}"#, "stem", r#"{"topic":"a"}"#, None, vec![]),
        (r#"{"payload":1,"other":2}"#, "stem", r#"{"payload":1,"other":2}"#, None, vec![]),
        ("[1, 2]", "stem", "[1, 2]", None, vec![]),
        (r#""text""#, "stem", "text", None, vec![]),
        ("1e400", "stem", "1e400", None, vec![]),
    ];
    for (line, topic, payload, content_type, properties) in cases {
        let expected = (topic.to_owned(), payload.to_owned(), content_type.map(str::to_owned), properties);
        assert_eq!(shown(&batch(line).expect(line)), expected, "{line}");
    }
}

#[test]
fn a_bad_line_says_what_is_wrong() {
    let cases = [
        ("{", "the line is not JSON"),
        ("nothing", "the line is not JSON"),
        (r#"{"payload":1} {"payload":2}"#, "the line is not JSON"),
        (r#"{"payload":1,"topic":5}"#, "the line has the keys of a message, but not its form"),
        (r#"{"payload":1,"properties":{"k":"v"}}"#, "the line has the keys of a message, but not its form"),
        (r#"{"payload":1,"payloadBase64":""}"#, "`payload` and `payloadBase64` exclude each other"),
        (r#"{"payloadBase64":"?"}"#, "`payloadBase64` is not base64"),
        (
            r#"{"payload":1,"timestamp":"noon"}"#,
            "`timestamp` is neither RFC 3339 nor `<ms>:<counter>:<node>`",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(batch(line).expect_err(line).to_string(), expected, "{line}");
    }
    assert!(matches!(Message::parse(&[b'"', 0xff, b'"']), Err(LineError::NotUtf8)));
}

#[test]
fn a_message_is_written_with_only_the_keys_it_needs() {
    let cases = [
        (r#"{"topic":"a/b","payload":{"x": 1.50}}"#, r#"{"topic":"a/b","payload":{"x": 1.50}}"#),
        (r#"{"topic":"","payload":"a\nb"}"#, r#"{"payload":"a\nb"}"#),
        (r#"{"topic":"","payload":"\"quoted\""}"#, r#"{"payload":"\"quoted\""}"#),
        (r#"{"topic":"","payload":"5"}"#, r#"{"payload":5}"#),
        (r#"{"topic":"","payload":""}"#, r#"{"payload":""}"#),
        (r#"{"topic":"","payloadBase64":"/w=="}"#, r#"{"payloadBase64":"/w=="}"#),
        (
            r#"{"payload":1,"properties":[["k","v"]],"contentType":"t"}"#,
            r#"{"topic":"stem","payload":1,"contentType":"t","properties":[["k","v"]]}"#,
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(written(&batch(line).expect(line)), expected, "{line}");
    }
    let mut stamped = batch(r#"{"payload":1,"timestamp":"5:7:n"}"#).expect("valid");
    (stamped.entries[0].seconds, stamped.entries[0].nanos) = (1_767_225_600, 123_000_000);
    assert_eq!(written(&stamped), r#"{"topic":"stem","payload":1,"timestamp":"2026-01-01T00:00:00.123Z"}"#);
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        topic in ".{0,20}",
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            ".{0,50}".prop_map(String::into_bytes),
            r#"[ \n]?(\{"a": ?[0-9]{1,20}\}|"[a-z]*"|[0-9]{1,5}|null)[ \n]?"#.prop_map(String::into_bytes),
        ],
        content_type in prop::option::of(".{0,10}"),
        properties in prop::collection::vec((".{0,10}", ".{0,10}"), 0..4),
    ) {
        let mut builder = BatchBuilder::new("edge-1");
        let pairs = properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        builder.push(topic.as_bytes(), content_type.as_deref(), &payload, pairs);
        let before = builder.finish();
        let line = written(&before);
        prop_assert!(!line.contains('\n'));
        let mut builder = BatchBuilder::new("edge-1");
        Message::parse(line.as_bytes()).expect("it was written").push("", &mut builder);
        let after = builder.finish();
        prop_assert_eq!(after.entries[0].payload.bytes(&after.arena), &payload[..]);
        prop_assert_eq!(shown(&after), shown(&before));
    }

    #[test]
    fn no_line_can_panic(line in prop::collection::vec(any::<u8>(), 0..100), text in ".{0,100}") {
        let _ = Message::parse(&line);
        let _ = Message::parse(text.as_bytes());
    }
}
