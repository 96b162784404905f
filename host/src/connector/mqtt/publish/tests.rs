use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::{
        QoS,
        v5::{Packet, PubAck as TheirPubAck, PubAckProperties, PubAckReason, Publish, PublishProperties},
    },
};

use super::*;
use crate::{
    batch::{Batch, BatchBuilder, push_property},
    connector::mqtt::tests::unframe,
};

fn theirs(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).expect("rumqttc writes it");
    bytes.to_vec()
}

/// A batch of one message with this time.
fn stamped(ms: u64, counter: u64, node: &str) -> Batch {
    let mut builder = BatchBuilder::new(node);
    builder.push(b"t", None, b"", []);
    let mut batch = builder.finish();
    let entry = &mut batch.entries[0];
    (entry.seconds, entry.nanos, entry.counter) = (ms / 1000, (ms % 1000) as u32 * 1_000_000, counter);
    batch
}

fn packed(properties: &[(String, String)]) -> Bytes {
    let mut arena = BytesMut::new();
    for (key, value) in properties {
        push_property(&mut arena, key.as_bytes(), value.as_bytes());
    }
    arena.freeze()
}

fn user_properties(publish: &Incoming<'_>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("checked when read");
    publish.user_properties().map(|(key, value)| (text(key), text(value))).collect()
}

prop_compose! {
    fn any_properties()(
        payload_format_indicator in any::<Option<u8>>(),
        message_expiry_interval in any::<Option<u32>>(),
        response_topic in prop::option::of("[a-z/]{1,12}"),
        correlation_data in prop::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)),
        user_properties in prop::collection::vec((".{0,12}", ".{0,40}"), 0..5),
        subscription_identifiers in prop::collection::vec(1..268_435_455usize, 0..3),
        content_type in prop::option::of(".{0,20}"),
    ) -> PublishProperties {
        PublishProperties {
            payload_format_indicator,
            message_expiry_interval,
            topic_alias: None,
            response_topic,
            correlation_data,
            user_properties,
            subscription_identifiers,
            content_type,
        }
    }
}

prop_compose! {
    fn any_publish()(
        dup in any::<bool>(),
        retain in any::<bool>(),
        pkid in any::<u16>(),
        topic in "[^+#\u{0}]{1,40}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        properties in prop::option::of(any_properties()),
    ) -> Publish {
        let qos = if pkid == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut publish = Publish::new(topic, qos, payload, properties);
        (publish.dup, publish.retain, publish.pkid) = (dup, retain, pkid);
        publish
    }
}

proptest! {
    #[test]
    fn before_v5_there_are_no_properties(
        (dup, retain, pkid) in (any::<bool>(), any::<bool>(), any::<u16>()),
        topic in "[^+#\u{0}]{1,40}",
        properties in prop::collection::vec((".{0,12}", ".{0,40}"), 0..5),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let qos = if pkid == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
        let mut theirs = v4::Publish::new(topic.as_str(), qos, payload.clone());
        (theirs.dup, theirs.retain, theirs.pkid) = (dup, retain, pkid);
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).expect("it can be written");
        let (first, body) = unframe(&bytes);
        let ours = Incoming::read(Version::V311, first, &body).expect("rumqttc writes valid packets");
        prop_assert_eq!((ours.dup, ours.qos, ours.packet_id), (dup, qos as u8, pkid));
        prop_assert_eq!((ours.topic, ours.payload), (topic.as_str(), &payload[..]));
        prop_assert_eq!((ours.content_type, user_properties(&ours)), (None, vec![]));
        let head = Incoming::read_head(Version::V311, first, &body).expect("it is valid");
        prop_assert_eq!(head.payload, &payload[..]);

        let (arena, stamped) = (packed(&properties), stamped(1, 2, "edge-1"));
        let ours = Outgoing {
            version: Version::V311,
            dup,
            qos: qos as u8,
            packet_id: pkid,
            topic: topic.as_bytes(),
            alias: None,
            content_type: Some(b"text/plain"),
            properties: &arena,
            stamp: Some(Stamp { entry: &stamped.entries[0], arena: &stamped.arena }),
            extras: Extras { retain, is_text: true, expiry_s: Some(1), ..Extras::default() },
            payload: &payload,
        };
        let mut bytes = BytesMut::new();
        ours.write(&mut bytes);
        prop_assert_eq!(bytes.len(), ours.packet_bytes());
        let read = v4::Packet::read(&mut bytes, 10_000).expect("ours are valid");
        theirs.dup &= pkid > 0;
        prop_assert_eq!(read, v4::Packet::Publish(theirs));
    }

    #[test]
    fn a_publish_reads_as_rumqttc_wrote_it(publish in any_publish()) {
        let (first, body) = unframe(&theirs(&Packet::Publish(publish.clone())));
        let ours = Incoming::read(Version::V5, first, &body).expect("rumqttc writes valid packets");
        let properties = publish.properties.unwrap_or_default();
        prop_assert_eq!(ours.dup, publish.dup);
        prop_assert_eq!(ours.qos, publish.qos as u8);
        prop_assert_eq!(ours.packet_id, publish.pkid);
        prop_assert_eq!(ours.topic.as_bytes(), &publish.topic[..]);
        prop_assert_eq!(ours.payload, &publish.payload[..]);
        prop_assert_eq!(ours.content_type, properties.content_type.as_deref());
        prop_assert_eq!(user_properties(&ours), properties.user_properties);
        let extras = Extras {
            retain: publish.retain,
            is_text: properties.payload_format_indicator == Some(1),
            expiry_s: properties.message_expiry_interval,
            response_topic: properties.response_topic.as_deref().map(str::as_bytes),
            correlation: properties.correlation_data.as_deref(),
        };
        prop_assert_eq!(ours.extras, extras);
        // What a batch keeps of it is within what was promised.
        let mut builder = BatchBuilder::new("");
        builder.push(ours.topic.as_bytes(), None, ours.payload, ours.user_properties());
        carried::keep(&ours.extras, || Duration::from_secs(1 << 40), &mut builder);
        prop_assert!(builder.bytes_len() <= ours.bytes_len());
    }

    #[test]
    fn rumqttc_reads_a_publish_as_we_wrote_it(
        dup in any::<bool>(),
        qos in 0..2u8,
        packet_id in 1..u16::MAX,
        topic in "[^+#\u{0}]{1,40}",
        content_type in prop::option::of(".{0,20}"),
        mut properties in prop::collection::vec((".{0,12}", ".{0,40}"), 0..5),
        stamp in prop::option::of((0..u64::MAX / 2_000_000, any::<u64>(), "[a-z0-9-]{0,20}")),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let arena = packed(&properties);
        let stamped = stamp.as_ref().map(|(ms, counter, node)| stamped(*ms, *counter, node));
        let ours = Outgoing {
        version: Version::V5,
            dup,
            qos,
            packet_id,
            topic: topic.as_bytes(),
            alias: None,
            content_type: content_type.as_deref().map(str::as_bytes),
            properties: &arena,
            stamp: stamped.as_ref().map(|batch| Stamp { entry: &batch.entries[0], arena: &batch.arena }),
            extras: Extras::default(),
            payload: &payload,
        };
        let mut bytes = BytesMut::new();
        ours.write(&mut bytes);
        prop_assert_eq!(bytes.len(), ours.packet_bytes());
        let read = Packet::read(&mut bytes, None).expect("ours are valid");
        let Packet::Publish(read) = read else { panic!("{read:?}") };
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(read.dup, dup && qos == 1);
        prop_assert_eq!(read.qos as u8, qos);
        prop_assert_eq!(read.pkid, if qos == 0 { 0 } else { packet_id });
        prop_assert_eq!(&read.topic[..], topic.as_bytes());
        prop_assert_eq!(&read.payload[..], &payload[..]);
        let theirs = read.properties.unwrap_or_default();
        prop_assert_eq!(theirs.content_type, content_type);
        if let Some((ms, counter, node)) = stamp {
            properties.push(("__ts".into(), format!("{ms:015}:{counter:05}:{node}")));
        }
        prop_assert_eq!(theirs.user_properties, properties);
    }

    #[test]
    fn pubacks_agree_with_rumqttc(
        packet_id in 1..u16::MAX,
        refused in any::<bool>(),
        text in prop::option::of(".{0,30}"),
        user_properties in prop::collection::vec((".{0,12}", ".{0,40}"), 0..3),
    ) {
        let mut ack = TheirPubAck::new(packet_id, None);
        ack.reason = if refused { PubAckReason::QuotaExceeded } else { PubAckReason::Success };
        ack.properties = Some(PubAckProperties { reason_string: text.clone(), user_properties });
        let (_, body) = unframe(&theirs(&Packet::PubAck(ack)));
        let ours = PubAck::read(&body).expect("valid");
        prop_assert_eq!(ours.packet_id, packet_id);
        prop_assert_eq!(ours.reason, if refused { 0x97 } else { 0 });
        prop_assert_eq!(ours.reason_text, text.as_deref());
        prop_assert_eq!(ours.refusal().is_some(), refused);

        let mut bytes = BytesMut::new();
        PubAck::write(packet_id, &mut bytes);
        let read = Packet::read(&mut bytes, None).expect("valid");
        prop_assert_eq!(read, Packet::PubAck(TheirPubAck::new(packet_id, None)));
    }

    #[test]
    fn no_bytes_can_panic(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = PubAck::read(&body);
        let _ = Incoming::read(Version::V311, first, &body);
        let _ = Incoming::read_head(Version::V311, first, &body);
        let _ = Incoming::read_head(Version::V5, first, &body);
        if let Ok(publish) = Incoming::read(Version::V5, first, &body) {
            let _ = user_properties(&publish);
        }
    }

    #[test]
    fn a_broken_packet_cannot_panic(publish in any_publish(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (first, mut body) = unframe(&theirs(&Packet::Publish(publish)));
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(publish) = Incoming::read(Version::V5, first, &body) {
            let _ = user_properties(&publish);
        }
        let _ = Incoming::read(Version::V5, first, &body[..at]);
        let _ = Incoming::read_head(Version::V5, first, &body[..at]);
    }
}

#[test]
fn what_a_message_says_besides_is_read_as_it_was_written() {
    let all = Extras {
        retain: true,
        is_text: true,
        expiry_s: Some(70_000),
        response_topic: Some(b"back"),
        correlation: Some(&[1, 2, 0xff]),
    };
    let properties = packed(&[("k".into(), "v".into()), ("__expires".into(), "never sent as such".into())]);
    for extras in [all, Extras { retain: false, expiry_s: None, ..all }, Extras::default()] {
        let ours = Outgoing {
            version: Version::V5,
            dup: false,
            qos: 1,
            packet_id: 7,
            topic: b"ask",
            alias: None,
            content_type: None,
            properties: &properties,
            stamp: None,
            extras,
            payload: b"?",
        };
        let mut bytes = BytesMut::new();
        ours.write(&mut bytes);
        assert_eq!(bytes.len(), ours.packet_bytes());
        let (first, body) = unframe(&bytes);
        let read = Packet::read(&mut bytes, None).expect("ours are valid");
        let Packet::Publish(read) = read else { panic!("{read:?}") };
        let theirs = read.properties.expect("it has some");
        assert_eq!(read.retain, extras.retain);
        assert_eq!(theirs.payload_format_indicator, extras.is_text.then_some(1));
        assert_eq!(theirs.response_topic.as_deref().map(str::as_bytes), extras.response_topic);
        assert_eq!(theirs.correlation_data.as_deref(), extras.correlation);
        assert_eq!(theirs.message_expiry_interval, extras.expiry_s);
        assert_eq!(theirs.user_properties, [("k".to_owned(), "v".to_owned())]);
        let read = Incoming::read(Version::V5, first, &body).expect("ours are valid");
        assert_eq!(read.extras, extras);
        assert_eq!(read.user_texts().collect::<Vec<_>>(), [("k", "v")]);
    }
}

#[test]
fn nobody_outside_gives_what_only_sources_give() {
    let given = ["__retain", "__expires", "__responseTopic", "__correlationData", "__payloadFormat"];
    let mut user_properties: Vec<_> = given.map(|name| (name.to_owned(), "1".to_owned())).into();
    user_properties.push(("__srcId".into(), "me".into()));
    let properties = PublishProperties { user_properties, ..PublishProperties::default() };
    let publish = Publish::new("a/b", QoS::AtMostOnce, "payload", Some(properties));
    let (first, body) = unframe(&theirs(&Packet::Publish(publish)));
    let read = Incoming::read(Version::V5, first, &body).expect("valid");
    assert_eq!(self::user_properties(&read), [("__srcId".to_owned(), "me".to_owned())]);
}

#[test]
fn a_stamp_takes_the_place_of_an_older_one() {
    let properties =
        packed(&[("a".into(), "1".into()), ("__ts".into(), "old".into()), ("b".into(), "2".into())]);
    let stamped = stamped(1_767_225_600_123, 7, "edge-1");
    let publish = Outgoing {
        version: Version::V5,
        dup: false,
        qos: 1,
        packet_id: 1,
        topic: b"t",
        alias: None,
        content_type: None,
        properties: &properties,
        stamp: Some(Stamp { entry: &stamped.entries[0], arena: &stamped.arena }),
        extras: Extras::default(),
        payload: b"",
    };
    let mut bytes = BytesMut::new();
    publish.write(&mut bytes);
    let (first, body) = unframe(&bytes);
    let read = Incoming::read(Version::V5, first, &body).expect("valid");
    let expected = [("a", "1"), ("b", "2"), ("__ts", "001767225600123:00007:edge-1")];
    assert_eq!(user_properties(&read), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn a_head_without_its_properties_still_names_its_topic() {
    let properties = PublishProperties {
        user_properties: vec![("k".into(), "v".repeat(500))],
        ..PublishProperties::default()
    };
    let mut publish = Publish::new("a/b", QoS::AtLeastOnce, "payload", Some(properties));
    publish.pkid = 9;
    let (first, body) = unframe(&theirs(&Packet::Publish(publish)));
    for len in [8, 100, body.len() - 10] {
        let head = Incoming::read_head(Version::V5, first, &body[..len]).expect("the topic is whole");
        assert_eq!((head.topic, head.packet_id, head.payload), ("a/b", 9, &b""[..]), "{len} bytes");
        assert_eq!(user_properties(&head), []);
    }
    let head =
        Incoming::read_head(Version::V5, first, &body[..body.len() - 4]).expect("whole but for the payload");
    assert_eq!((head.payload, user_properties(&head).len()), (&b"pay"[..], 1));
}

#[test]
fn a_batch_keeps_what_a_message_said() {
    let properties = PublishProperties {
        content_type: Some("application/json".into()),
        user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
        ..PublishProperties::default()
    };
    let publish = Publish::new("a/b", QoS::AtMostOnce, "payload", Some(properties));
    let (first, body) = unframe(&theirs(&Packet::Publish(publish)));
    let read = Incoming::read(Version::V5, first, &body).expect("valid");
    let mut builder = BatchBuilder::new("node");
    builder.push(read.topic.as_bytes(), read.content_type, read.payload, read.user_properties());
    let batch: Batch = builder.finish();
    let entry = batch.entries[0];
    assert_eq!(entry.content_type.get(&batch.arena), Some(&b"application/json"[..]));
    let kept: Vec<_> = batch.properties(0).collect();
    assert_eq!(kept, [(&b"k"[..], &b"v"[..]), (&b"k"[..], &b"w"[..])]);
}
