//! Tests of `message`.

use super::*;

/// A message over an arena that is filled by hand, as the contract describes it.
fn entry(arena: &mut Vec<u8>, kind: u32, properties: &[u8], schema: Option<&[u8]>) -> Entry {
    let mut store = |bytes: &[u8]| {
        let offset = arena.len() as u32;
        arena.extend_from_slice(bytes);
        Span { offset, len: bytes.len() as u32 }
    };
    Entry {
        origin: 3,
        kind,
        seconds: 1_700_000_000,
        nanos: 5,
        zero: 0,
        counter: 2,
        node: store(b"edge-1"),
        topic: store(b"a/\xff"),
        content_type: store(b"application/json"),
        payload: store(b"{\"a\":1}"),
        properties: store(properties),
        schema: schema.map_or(Span::ABSENT, store),
    }
}

#[test]
fn reads_every_field() {
    let mut arena = Vec::new();
    let properties = b"\x01\0\0\0k\x02\0\0\0v1\x01\0\0\0k\0\0\0\0";
    let entry = entry(&mut arena, 0, properties, Some(b"\x01\x02\0\0\0nm{}"));
    let message = Message { entry: &entry, arena: &arena };

    assert_eq!(message.kind(), Kind::Message);
    assert_eq!(message.topic(), b"a/\xff");
    assert!(message.topic_text().is_err());
    assert_eq!(message.content_type(), Some("application/json"));
    assert_eq!(message.text(), Ok("{\"a\":1}"));
    assert_eq!(message.properties().collect::<Vec<_>>(), [("k", "v1"), ("k", "")]);
    assert_eq!((message.property("k"), message.property("x")), (Some("v1"), None));
    assert_eq!(message.time(), Time { seconds: 1_700_000_000, nanos: 5, counter: 2, node: "edge-1" });
    assert_eq!(message.schema(), Some(Schema::Inline { name: "nm", content: "{}" }));
    assert_eq!(message.size(), None);
}

#[test]
fn absent_is_not_empty() {
    let mut arena = Vec::new();
    let mut entry = entry(&mut arena, 0, b"", None);
    let message = Message { entry: &entry, arena: &arena };
    assert_eq!((message.schema(), message.properties().count()), (None, 0));

    entry.content_type = Span::ABSENT;
    entry.properties = Span::ABSENT;
    let message = Message { entry: &entry, arena: &arena };
    assert_eq!((message.content_type(), message.properties().count()), (None, 0));
    entry.content_type = Span { offset: 0, len: 0 };
    assert_eq!(Message { entry: &entry, arena: &arena }.content_type(), Some(""));
}

#[test]
fn reads_images_and_references() {
    let mut arena = Vec::new();
    let image = entry(&mut arena, 2, b"\x80\x02\0\0\xe0\x01\0\0", Some(b"\0aio-sr://ns/frame:1"));
    let message = Message { entry: &image, arena: &arena };
    assert_eq!((message.kind(), message.size()), (Kind::Snapshot, Some((640, 480))));
    assert_eq!(message.properties().count(), 0);
    assert_eq!(message.schema(), Some(Schema::Reference("aio-sr://ns/frame:1")));

    let bytes = entry(&mut arena, 1, b"", None);
    assert_eq!(Message { entry: &bytes, arena: &arena }.kind(), Kind::Bytes);
}

#[test]
fn properties_end_at_the_first_that_is_cut_short() {
    let check = |encoded: &'static [u8], expected: usize| {
        assert_eq!(Properties { rest: encoded }.count(), expected, "{encoded:?}");
    };
    check(b"\x01\0\0\0k", 0);
    check(b"\x01\0\0\0k\xff\0\0\0v", 0);
    check(b"\x01\0\0\0k\x01\0\0\0v\x01\0", 1);
    check(b"\xff\xff\xff\xff", 0);
}
