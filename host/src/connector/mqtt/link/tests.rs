use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PingResp;

use super::*;
use crate::{
    connector::{
        mqtt::{
            Session, SinkSession,
            tests::{Stepper, connack, encode},
        },
        status::ConnectionState,
    },
    resource::secret::Secret,
    write::SinkQueue,
};

fn stepper(keep_alive: u64) -> Stepper<SinkSession> {
    let settings = Settings { keep_alive: Duration::from_secs(keep_alive), ..Settings::new("id".into()) };
    Stepper::new(SinkSession::new(settings, SinkQueue::new(1 << 20)))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn an_idle_connection_pings_every_half_keep_alive() {
    let mut stepper = stepper(60);
    stepper.connect(&connack(None, None));
    for round in 0..3 {
        stepper.advance(seconds(29));
        assert_eq!(stepper.poll(), [], "round {round}");
        stepper.advance(seconds(1));
        assert_eq!(stepper.session.deadline(), Some(stepper.now));
        assert_eq!(stepper.poll(), [Packet::PingReq(PingReq)]);
        assert_eq!(stepper.give(&encode(&Packet::PingResp(PingResp))), []);
    }
}

#[test]
fn a_broker_that_answers_no_ping_is_given_up() {
    let mut stepper = stepper(60);
    stepper.connect(&connack(None, None));
    stepper.advance(seconds(30));
    assert_eq!(stepper.poll(), [Packet::PingReq(PingReq)]);
    stepper.advance(seconds(30));
    let error = stepper.try_poll().expect_err("nothing came");
    assert_eq!(error.to_string(), "no answer to PINGREQ within 30s");
}

#[test]
fn a_keep_alive_of_zero_means_no_pings() {
    let mut stepper = stepper(0);
    stepper.connect(&connack(None, None));
    stepper.advance(seconds(86_400));
    assert_eq!(stepper.poll(), []);
}

#[test]
fn a_broker_that_never_greets_is_given_up() {
    let mut stepper = stepper(60);
    stepper.session.connected(stepper.now).expect("CONNECT can be written");
    assert_eq!(stepper.session.deadline(), Some(stepper.now.plus(CONNACK_WITHIN)));
    stepper.advance(CONNACK_WITHIN);
    assert!(matches!(stepper.try_poll(), Err(SessionError::Silent { question: "CONNECT", .. })));
}

#[test]
fn a_lost_connection_is_degraded_from_its_first_failure_until_it_is_back() {
    let mut stepper = stepper(60);
    assert_eq!(stepper.session.status().state(), ConnectionState::Connecting);
    assert!(stepper.session.wants_connection(stepper.now));
    let since = stepper.now;
    stepper.session.disconnected(since, &SessionError::Io(std::io::ErrorKind::ConnectionRefused.into()));
    assert!(!stepper.session.wants_connection(stepper.now));
    stepper.advance(seconds(1));
    assert!(stepper.session.wants_connection(stepper.now));
    stepper.session.disconnected(stepper.now, &SessionError::Io(std::io::ErrorKind::TimedOut.into()));
    let error = "connection failed: timed out".to_owned();
    assert_eq!(stepper.session.status().state(), ConnectionState::Degraded { since, error });
    stepper.advance(seconds(1));
    stepper.connect(&connack(None, None));
    assert_eq!(stepper.session.status().state(), ConnectionState::Connected);
    assert_eq!(stepper.session.status().failures.get(), 2);
}

#[test]
fn only_a_connection_that_held_is_tried_again_at_once() {
    let mut stepper = stepper(60);
    let mut wait = |online: Duration| {
        stepper.connect(&connack(None, None));
        stepper.advance(online);
        stepper.lose();
        let wait = stepper.session.deadline().expect("it tries again").since(stepper.now);
        stepper.advance(wait);
        wait
    };
    let taken_over: Vec<Duration> = (0..8).map(|_| wait(Duration::from_millis(1))).collect();
    assert!(taken_over[7] > seconds(5), "{taken_over:?}");
    assert!(wait(GOOD_AFTER) <= RETRY_AFTER);
}

#[test]
fn what_ends_a_connection_is_said_in_words() {
    let cases: [(&[u8], &str); 6] = [
        (&[0xe0, 0], "the broker ended the connection: NormalDisconnection (0x00)"),
        (&[0xe0, 1, 0x8e], "the broker ended the connection: SessionTakenOver (0x8e)"),
        (&[0xe0, 2, 0x8b, 0], "the broker ended the connection: ServerShuttingDown (0x8b)"),
        (
            &[0xe0, 7, 0x97, 5, 0x1f, 0, 2, b'n', b'o'],
            "the broker ended the connection: QuotaExceeded (0x97): no",
        ),
        (&[0x10, 0], "unexpected CONNECT"),
        (&[0x20, 3, 0, 0, 0], "unexpected CONNACK"),
    ];
    for (bytes, expected) in cases {
        let mut stepper = stepper(60);
        stepper.connect(&connack(None, None));
        let error = stepper.session.received(bytes, stepper.now).expect_err("it cannot go on");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_refused_connection_says_why() {
    let mut stepper = stepper(60);
    stepper.session.connected(stepper.now).expect("CONNECT can be written");
    let error = stepper.session.received(&[0x20, 3, 0, 0x87, 0], stepper.now).expect_err("refused");
    assert_eq!(error.to_string(), "the broker refused the connection: NotAuthorized");
}

#[test]
fn connect_asks_for_a_session_that_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("password");
    let login =
        crate::resource::endpoint::Login { user: "anna".into(), password: Secret::File(file.clone()) };
    let settings = Settings { login: Some(login), ..Settings::new("tg/h/t/out/e".into()) };
    let mut session = SinkSession::new(settings, SinkQueue::new(1 << 20));
    let unknown = session.connected(Instant(0)).expect_err("there is no password");
    assert_eq!(unknown.to_string(), "the password is not known");
    let mut connect = |password: &str| {
        std::fs::write(&file, password).expect("a file");
        session.connected(Instant(0)).expect("CONNECT can be written");
        let packet = Packet::read(session.outgoing(), None).expect("valid");
        let Packet::Connect(connect, None, Some(login)) = packet else { panic!("{packet:?}") };
        assert_eq!((login.username.as_str(), login.password.as_str()), ("anna", password));
        connect
    };
    connect("first");
    let connect = connect("another one");
    assert_eq!(
        (connect.client_id.as_str(), connect.clean_start, connect.keep_alive),
        ("tg/h/t/out/e", false, 60)
    );
    let properties = connect.properties.expect("there are some");
    assert_eq!(properties.session_expiry_interval, Some(3600));
    assert_eq!(properties.max_packet_size, Some(16 << 20));
    assert_eq!(properties.receive_maximum, None);
}
