use super::*;
use crate::batch::BatchBuilder;

#[test]
fn a_message_has_its_key_its_topic_and_its_properties_as_headers() {
    let mut builder = BatchBuilder::new("edge-1");
    let properties: [(&[u8], &[u8]); 8] = [
        (b"team", b"weather"),
        (b"x-trace", b"7"),
        (b"X-Trace", b"8"),
        (b"__ts", b"1:2:n"),
        (b"__request", b"id"),
        (b"x-tidegate-topic", b"another"),
        (b"bad", b"a\r\nhost: c"),
        (b"no name", b"1"),
    ];
    builder.push(b"in", Some("text/plain"), b"body", properties);
    let batch = builder.finish();
    let (message, removed) = Message::of(&batch.entries[0], &batch, b"out/1", "run-0-0").unwrap();
    assert_eq!(removed, 3);
    let mut headers: Vec<_> =
        message.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            ("content-type", "text/plain"),
            ("idempotency-key", "run-0-0"),
            ("user-agent", "tidegate"),
            ("x-team", "weather"),
            ("x-tidegate-topic", "out/1"),
            ("x-trace", "7"),
            ("x-trace", "8"),
        ]
    );
    assert_eq!(message.body, "body");
    assert!(Message::of(&batch.entries[0], &batch, b"out\n", "k").is_err());
}

#[test]
fn a_body_is_signed_as_rfc_4231_says() {
    // Its test case 2.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    assert_eq!(
        signature(&key, b"what do ya want for nothing?"),
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn a_url_has_an_address() {
    for (url, expected) in [
        ("http://example.com/in", "example.com:80"),
        ("https://example.com", "example.com:443"),
        ("http://[::1]:8080/in?x=1", "[::1]:8080"),
    ] {
        assert_eq!(address(url), expected);
    }
}
