use super::*;

fn batch(messages: &[(&str, &str)]) -> Batch {
    let mut builder = BatchBuilder::new("host");
    for (topic, payload) in messages {
        builder.push(topic.as_bytes(), None, payload.as_bytes(), [(b"k".as_slice(), topic.as_bytes())]);
    }
    builder.finish()
}

fn payloads(batch: &Batch) -> Vec<(u32, String)> {
    let text = |entry: &Entry| String::from_utf8_lossy(entry.payload.bytes(&batch.arena)).into_owned();
    batch.entries.iter().map(|entry| (entry.origin, text(entry))).collect()
}

#[test]
fn a_built_batch_gives_back_every_field() {
    let batch = batch(&[("a/b", "one"), ("c", "")]);
    assert_eq!(payloads(&batch), [(0, "one".into()), (1, String::new())]);
    let entry = batch.entries[0];
    assert_eq!(entry.node.bytes(&batch.arena), b"host");
    assert_eq!(entry.topic.bytes(&batch.arena), b"a/b");
    assert!(entry.content_type.is_absent());
    assert_eq!(batch.properties(0).collect::<Vec<_>>(), [(b"k".as_slice(), b"a/b".as_slice())]);
}

#[test]
fn merge_keeps_origin_order_and_bytes_whether_the_arena_is_shared_or_not() {
    let whole = batch(&[("t", "0"), ("t", "1"), ("t", "2"), ("t", "3")]);
    let even = whole.select(|i, _| i % 2 == 0);
    let odd = whole.select(|i, _| i % 2 == 1);
    let expected = [(0, "0".into()), (1, "1".into()), (2, "2".into()), (3, "3".into())];
    assert_eq!(payloads(&Batch::merge(vec![odd.clone(), even.clone()])), expected);
    let copied = Batch { arena: Bytes::copy_from_slice(&odd.arena), entries: odd.entries };
    assert_eq!(payloads(&Batch::merge(vec![even, copied])), expected);
}

#[test]
fn properties_that_are_cut_short_are_not_valid() {
    let mut encoded = BytesMut::new();
    push_property(&mut encoded, b"key", b"value");
    assert!(Properties::is_valid(&encoded));
    for len in 1..encoded.len() {
        assert!(!Properties::is_valid(&encoded[..len]), "{len} bytes");
    }
    let mut text = BytesMut::new();
    push_property(&mut text, b"key", &[0xff]);
    assert!(!Properties::is_valid(&text));
}
