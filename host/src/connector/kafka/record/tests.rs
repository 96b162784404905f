use proptest::prelude::*;

use super::*;

const WALL: Duration = Duration::from_secs(1_700_000_010);

fn texts<'o>(outgoing: &'o Outgoing<'_>) -> Vec<(&'o str, &'o [u8])> {
    outgoing.headers.iter().map(|(key, value)| (&**key, &**value)).collect()
}

fn batch(record: &Record<'_>, copying: Copying) -> (Batch, u64) {
    let mut builder = BatchBuilder::new("host");
    let left_out = record.push(copying, &mut builder);
    (builder.finish(), left_out)
}

fn back<'b>(batch: &'b Batch, partition: &Partition) -> Outgoing<'b> {
    let outgoing = Outgoing::of(&batch.entries[0], batch, partition, Copying::AsTheyAre, "host", || WALL);
    outgoing.expect("a record can carry it").expect("it has not expired")
}

#[test]
fn a_record_becomes_a_message_and_a_record_again() {
    let record = Record {
        topic: "orders",
        key: Some(b"k1"),
        value: b"{}",
        timestamp: Some(1_700_000_000_123),
        headers: vec![("Content Type", b"application/json"), ("a", b"1"), ("a", b"2"), ("empty", b"")],
    };
    let (batch, left_out) = batch(&record, Copying::AsTheyAre);
    let entry = &batch.entries[0];
    assert_eq!(left_out, 0);
    assert_eq!(entry.topic.bytes(&batch.arena), b"orders");
    assert_eq!(entry.content_type.bytes(&batch.arena), b"application/json");
    let properties: Vec<_> = Properties::of(entry.properties.bytes(&batch.arena)).collect();
    let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"a", b"2"), (b"empty", b""), (b"__key", b"k1")];
    assert_eq!(properties, expected);
    assert_eq!((entry.seconds, entry.nanos), (1_700_000_000, 123_000_000));
    let outgoing = back(&batch, &Partition::Default);
    assert_eq!(outgoing.key, record.key);
    assert_eq!(outgoing.value, record.value);
    assert_eq!(outgoing.timestamp, record.timestamp);
    assert_eq!(texts(&outgoing), record.headers);
}

#[test]
fn the_partition_strategy_decides_the_key() {
    let record =
        Record { topic: "orders", key: Some(b"k1"), headers: vec![("team", b"x")], ..Record::default() };
    let (batch, _) = batch(&record, Copying::AsTheyAre);
    for (partition, key) in [
        (Partition::Default, Some(&b"k1"[..])),
        (Partition::Static, Some(b"host")),
        (Partition::Topic, Some(b"orders")),
        (Partition::Property("team".into()), Some(b"x")),
        (Partition::Property("none".into()), None),
    ] {
        assert_eq!(back(&batch, &partition).key, key, "{partition:?}");
    }
}

#[test]
fn what_no_user_property_can_carry_is_left_out_and_counted() {
    let long = vec![b'x'; 64 << 10];
    for (headers, key, left_out) in [
        (vec![("a", &b"\xff"[..])], None, 1),
        (vec![("a", &long[..])], None, 1),
        (vec![("a", &long[..long.len() - 2])], None, 0),
        (vec![("a\n", b"1")], None, 1),
        (vec![("a", b"1"), ("b", b"\0")], Some(&b"\xfe"[..]), 2),
        (vec![("Content Type", b"\xff")], None, 1),
    ] {
        let record = Record { topic: "t", headers: headers.clone(), key, ..Record::default() };
        let (batch, counted) = batch(&record, Copying::AsTheyAre);
        assert_eq!(counted, left_out, "{headers:?}");
        assert!(Properties::is_valid(batch.entries[0].properties.bytes(&batch.arena)));
    }
    let record = Record { topic: "t", headers: vec![("a", b"1")], key: Some(b"k"), ..Record::default() };
    let (batch, _) = batch(&record, Copying::Nothing);
    let properties: Vec<_> = Properties::of(batch.entries[0].properties.bytes(&batch.arena)).collect();
    assert_eq!(properties, [(&b"__key"[..], &b"k"[..])], "headers are not copied, the key is");
}

#[test]
fn a_message_keeps_its_own_time_and_no_header_says_it_again() {
    let mut builder = BatchBuilder::new("host");
    let properties: [(&[u8], &[u8]); 2] = [(b"__ts", b"000001000000000:00000:x"), (b"a", b"1")];
    builder.push(b"t", None, b"", properties);
    let mut batch = builder.finish();
    crate::hlc::Hlc::default().stamp(&mut batch, std::time::Duration::from_secs(2_000_000));
    let outgoing = back(&batch, &Partition::Default);
    assert_eq!(outgoing.timestamp, Some(1_000_000_000));
    assert_eq!(texts(&outgoing), [("a", &b"1"[..])]);
}

#[test]
fn what_mqtt_has_properties_for_is_in_headers_that_aio_names() {
    let headers: Vec<(&str, &[u8])> = vec![
        ("Payload Format Indicator", b"1"),
        ("Message Expiry Interval", b"30"),
        ("Response Topic", b"back/here"),
        ("Correlation Data", b"\xff\x00"),
        ("__retain", b"1"),
    ];
    let record = Record { topic: "t", timestamp: Some(1_700_000_000_000), headers, ..Record::default() };
    let (batch, left_out) = batch(&record, Copying::AsTheyAre);
    assert_eq!(left_out, 1, "no sender says that a broker is to retain it");
    let outgoing = back(&batch, &Partition::Default);
    let expected: [(&str, &[u8]); 4] = [
        ("Payload Format Indicator", b"1"),
        // Ten seconds after it was written.
        ("Message Expiry Interval", b"20"),
        ("Response Topic", b"back/here"),
        ("Correlation Data", b"\xff\x00"),
    ];
    assert_eq!(texts(&outgoing), expected);
    let late = || WALL + Duration::from_secs(30);
    let expired =
        Outgoing::of(&batch.entries[0], &batch, &Partition::Default, Copying::AsTheyAre, "host", late);
    assert_eq!(expired, Ok(None));
}

#[test]
fn the_attributes_of_an_event_have_other_names_in_kafka() {
    let of = |headers: Vec<(&'static str, &'static [u8])>, copying| {
        let record = Record { topic: "orders", headers, ..Record::default() };
        let (batch, _) = batch(&record, copying);
        let named: Vec<_> =
            batch.properties(0).map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
        let partition = Partition::Default;
        let outgoing = Outgoing::of(&batch.entries[0], &batch, &partition, copying, "host", || WALL);
        let outgoing = outgoing.expect("a record can carry it").expect("it has not expired");
        let back: Vec<_> = outgoing.headers.iter().map(|(key, _)| key.to_string()).collect();
        (named, back)
    };
    let event = || -> Vec<(&'static str, &'static [u8])> {
        ["ce-id", "ce_source", "ce-type", "ce-specversion", "ce-subject", "ce-unit", "a"]
            .map(|key| (key, &b"x"[..]))
            .into()
    };
    let (named, back) = of(event(), Copying::CloudEvents);
    assert_eq!(named, ["id", "source", "type", "specversion", "subject", "ce-unit", "a"]);
    assert_eq!(back, ["ce-id", "ce-source", "ce-type", "ce-specversion", "ce-subject", "ce-unit", "a"]);
    let (named, back) = of(event(), Copying::AsTheyAre);
    assert_eq!((named.first().map(String::as_str), back), (Some("ce-id"), named.clone()));
    // What has an id and no more is no event.
    let (_, back) = of(vec![("id", b"x")], Copying::CloudEvents);
    assert_eq!(back, ["id"]);
}

proptest! {
    /// Whatever a record holds, the message that it becomes is one that operators can be
    /// given, and that a record can carry again.
    #[test]
    fn any_record_becomes_a_sound_message(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        value in proptest::collection::vec(any::<u8>(), 0..200),
        timestamp in proptest::option::of(any::<i64>()),
        headers in proptest::collection::vec((any::<String>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..6),
    ) {
        let headers = headers.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let record = Record { topic: "t", key: key.as_deref(), value: &value, timestamp, headers };
        let (batch, left_out) = batch(&record, Copying::AsTheyAre);
        prop_assert_eq!(batch.len(), 1);
        let entry = &batch.entries[0];
        let encoded = entry.properties.bytes(&batch.arena);
        prop_assert!(Properties::is_valid(encoded));
        let kept = Properties::of(encoded).count() + usize::from(!entry.content_type.is_absent());
        prop_assert!(kept as u64 + left_out <= record.headers.len() as u64 + u64::from(key.is_some()));
        let outgoing = Outgoing::of(entry, &batch, &Partition::Default, Copying::AsTheyAre, "host", || WALL);
        if let Some(outgoing) = outgoing.expect("a record can carry it") {
            prop_assert_eq!(outgoing.value, &value[..]);
        }
    }
}
