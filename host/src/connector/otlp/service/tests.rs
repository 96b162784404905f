use hyper::header::CONTENT_TYPE;

use super::*;

#[test]
fn how_a_client_speaks_is_told_by_its_content_type() {
    for (content_type, expected) in [
        ("application/grpc", Some(Speech::Grpc)),
        ("application/grpc+proto", Some(Speech::Grpc)),
        ("application/grpc-web", None),
        ("application/x-protobuf", Some(Speech::Protobuf)),
        ("Application/JSON; charset=utf-8", Some(Speech::Json)),
        ("text/plain", None),
        ("", None),
    ] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().expect("a value"))]);
        assert_eq!(speech(&headers), expected, "{content_type}");
    }
    assert_eq!(speech(&HeaderMap::new()), None);
}

#[test]
fn a_body_is_uncovered_up_to_the_limit() {
    let headers = |name, value: &'static str| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
    let body = Bytes::from_static(b"12345");
    let plain = |max| uncover(Speech::Protobuf, &HeaderMap::new(), body.clone(), max);
    assert_eq!(plain(5).expect("it fits"), body);
    assert!(matches!(plain(4), Err(Refusal::Http(HttpRefusal::TooLarge))));
    let unknown = uncover(Speech::Json, &headers(CONTENT_ENCODING, "br"), body.clone(), 5);
    assert!(matches!(unknown, Err(Refusal::Http(HttpRefusal::Encoded))));
    let broken = uncover(Speech::Json, &headers(CONTENT_ENCODING, "gzip"), body.clone(), 5);
    assert!(matches!(broken, Err(Refusal::Inflate(gzip::InflateError::Broken(_)))));
    let framed = grpc::frame(&body);
    assert_eq!(uncover(Speech::Grpc, &HeaderMap::new(), framed.clone(), 5).expect("it fits"), body);
    // Compressed, says the frame, and by what says nobody.
    let mut unnamed = framed.to_vec();
    unnamed[0] = 1;
    let unnamed = uncover(Speech::Grpc, &HeaderMap::new(), unnamed.into(), 5);
    assert!(matches!(unnamed, Err(Refusal::Http(HttpRefusal::Encoded))));
    // A client that compresses may leave a message as it is.
    let left = uncover(Speech::Grpc, &headers(GRPC_ENCODING, "gzip"), framed, 5);
    assert_eq!(left.expect("it fits"), body);
}
