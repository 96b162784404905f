use bytes::BytesMut;

use super::*;
use crate::connector::mqtt::tests::unframe;

fn connect_v311(receive_max: Option<u16>, session_expiry: Duration) -> v4::Connect {
    let connect = Connect {
        client_id: "tg/h/t/flow/in",
        keep_alive: Duration::from_secs(70_000),
        login: Some(("anna", "secret".to_owned())),
        session_expiry,
        receive_max,
        last_will: Some(&LastWill { topic: "gone/${clientId}/now".into(), payload: "x".into() }),
    };
    let mut out = BytesMut::new();
    connect.write(Version::V311, &mut out).expect("it can be written");
    let read = v4::Packet::read(&mut out, 1000).expect("it is valid");
    let v4::Packet::Connect(connect) = read else { panic!("{read:?}") };
    assert_eq!((connect.client_id.as_str(), connect.keep_alive), ("tg/h/t/flow/in", u16::MAX));
    let will = v4::LastWill::new("gone/tg/h/t/flow/in/now", "x", rumqttc::QoS::AtLeastOnce, false);
    assert_eq!(connect.last_will, Some(will));
    assert_eq!(connect.login, Some(v4::Login::new("anna", "secret")));
    connect
}

#[test]
fn before_v5_only_who_subscribes_leaves_a_session() {
    let hour = Duration::from_secs(3600);
    for (receive_max, expiry, is_clean) in
        [(Some(100), hour, false), (Some(100), Duration::ZERO, true), (None, hour, true)]
    {
        let connect = connect_v311(receive_max, expiry);
        assert_eq!(connect.clean_session, is_clean, "{receive_max:?} {expiry:?}");
        assert_eq!(connect.protocol, rumqttc::mqttbytes::Protocol::V4);
    }
}

#[test]
fn a_greeting_of_either_version_says_the_same() {
    let check = |version, bytes: &[u8], expected: Result<(bool, u16, usize), &str>| {
        let (first, body) = unframe(bytes);
        let read = match ConnAck::read(version, first, &body) {
            Ok(ConnAck { refusal: Some(refusal), .. }) => Err(refusal),
            Ok(ack) => Ok((ack.session_present, ack.receive_max, ack.packet_bytes_max)),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(read, expected.map_err(str::to_owned), "{bytes:?}");
    };
    let most = frame::REMAINING_BYTES_MAX;
    check(Version::V311, &[0x20, 2, 0, 0], Ok((false, u16::MAX, most)));
    check(Version::V311, &[0x20, 2, 1, 0], Ok((true, u16::MAX, most)));
    check(Version::V311, &[0x20, 2, 0, 5], Err("NotAuthorized"));
    check(Version::V311, &[0x20, 2, 0, 9], Err("malformed CONNACK"));
    check(Version::V311, &[0x20, 0], Err("malformed CONNACK"));
    check(Version::V5, &[0x20, 3, 1, 0, 0], Ok((true, u16::MAX, most)));
    check(Version::V5, &[0x20, 6, 0, 0, 3, 0x21, 0, 0], Ok((false, 1, most)));
    check(Version::V5, &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 4, 0], Ok((false, u16::MAX, 1024)));
    check(Version::V5, &[0x20, 8, 0, 0x87, 5, 0x1f, 0, 2, b'n', b'o'], Err("NotAuthorized: no"));
    let old = "it does not speak MQTT v5; the endpoint may say `version: \"3.1.1\"`";
    check(Version::V5, &[0x20, 2, 0, 1], Err(old));
}

#[test]
fn a_subscription_of_either_version_is_answered_alike() {
    for (version, options) in [(Version::V5, 0x19), (Version::V311, 1)] {
        let mut out = BytesMut::new();
        let filters = ["a/#", "b"].into_iter();
        write_subscribe(version, 7, filters, Qos::AtLeastOnce, true, &mut out).expect("it can be written");
        let (first, body) = unframe(&out);
        assert_eq!(first, 0x82);
        let rest = body.strip_prefix(&[0, 7]).expect("the packet id");
        let rest =
            if version == Version::V5 { rest.strip_prefix(&[0]).expect("no properties") } else { rest };
        let expected = [&[0, 3, b'a', b'/', b'#', options][..], &[0, 1, b'b', options]].concat();
        assert_eq!(rest, expected, "{version:?}");
    }
    let read = |version, body: &[u8]| SubAck::read(version, 0x90, body).expect("it is valid");
    let granted = SubAck { packet_id: 7, answers: vec![Ok(1), Ok(0)] };
    assert_eq!(read(Version::V311, &[0, 7, 1, 0]), granted);
    assert_eq!(read(Version::V5, &[0, 7, 0, 1, 0]), granted);
    assert_eq!(read(Version::V311, &[0, 7, 0x80]).answers, [Err("Failure".to_owned())]);
    assert_eq!(read(Version::V5, &[0, 7, 0, 0x87]).answers, [Err("NotAuthorized".to_owned())]);
    for version in [Version::V5, Version::V311] {
        assert!(SubAck::read(version, 0x90, &[0]).is_err());
        assert!(SubAck::read(version, 0x90, &[0, 7]).is_err());
    }
}
