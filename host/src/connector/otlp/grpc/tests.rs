use super::*;

#[test]
fn a_body_is_one_frame_of_one_message() {
    let framed = frame(b"abc");
    assert_eq!(&framed[..], b"\0\0\0\0\x03abc");
    assert_eq!(unframe(framed).expect("a frame"), (Bytes::from_static(b"abc"), false));
    let compressed = unframe(Bytes::from_static(b"\x01\0\0\0\x01x")).expect("a frame");
    assert_eq!(compressed, (Bytes::from_static(b"x"), true));
    for broken in [
        &b""[..],
        b"\0\0\0\0",
        b"\0\0\0\0\x02a",
        b"\0\0\0\0\x01ab",
        b"\x02\0\0\0\x01a",
        b"\0\xff\xff\xff\xff",
    ] {
        assert!(unframe(Bytes::copy_from_slice(broken)).is_err(), "{broken:?}");
    }
}

#[test]
fn a_status_says_when_to_come_again() {
    let after = |retry| retry_after(&RpcStatus::new(Code::Unavailable, "later", retry).encode_to_vec());
    for delay in [Duration::ZERO, Duration::from_millis(1_500), Duration::from_secs(u64::MAX >> 1)] {
        assert_eq!(after(Some(delay)), Some(delay));
    }
    assert_eq!(after(None), None);
    assert_eq!(retry_after(b"\xff"), None);
    // Nobody waits for what lies behind.
    let past = RetryInfo { delay: Some(Delay { seconds: -1, nanos: -1 }) }.encode_to_vec();
    let details = vec![Any { type_url: RETRY_INFO.to_owned(), value: past }];
    let status = RpcStatus { code: 8, message: String::new(), details }.encode_to_vec();
    assert_eq!(retry_after(&status), Some(Duration::ZERO));
}

#[test]
fn an_answer_says_what_was_not_taken() {
    assert_eq!(partial_success(&success(3, "too large")), Some((3, "too large".to_owned())));
    assert_eq!(success(0, "").len(), 0);
    assert_eq!(partial_success(b""), None);
    assert_eq!(partial_success(b"\xff"), None);
}
