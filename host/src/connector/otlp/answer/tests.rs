use super::*;
use crate::connector::otlp::form::Parsed;

/// What a refusal is in HTTP and in gRPC, and after how many seconds one may come again.
fn check(refusal: impl Into<Refusal>, status: u16, code: Code, retry: Option<u64>) {
    let refusal = refusal.into();
    let (answer, counted) = refusal.response(Speech::Protobuf);
    assert_eq!((answer.status().as_u16(), counted.as_u16()), (status, status), "{refusal:?}");
    let after = answer.headers().get(RETRY_AFTER).map(|it| it.to_str().expect("text").to_owned());
    assert_eq!(after, retry.map(|seconds| seconds.to_string()), "{refusal:?}");
    let Answer::Whole(Some(body)) = answer.into_body() else { panic!("a body") };
    let said = RpcStatus::decode(body).expect("a status");
    assert_eq!(said.code, code as i32, "{refusal:?}");
    let (answer, _) = refusal.response(Speech::Grpc);
    assert_eq!(answer.status(), StatusCode::OK, "{refusal:?}");
    let read = Status::from_header_map(answer.headers()).expect("a status");
    assert_eq!(read.code(), code, "{refusal:?}");
    assert_eq!(grpc::retry_after(read.details()), retry.map(Duration::from_secs), "{refusal:?}");
    let (answer, _) = refusal.response(Speech::Json);
    let Answer::Whole(Some(body)) = answer.into_body() else { panic!("a body") };
    let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(said["code"], code as i32, "{refusal:?}");
}

#[test]
fn each_refusal_is_what_the_protocols_have_for_it() {
    check(HttpRefusal::TooMany, 429, Code::ResourceExhausted, Some(1));
    check(HttpRefusal::Gone, 503, Code::Unavailable, Some(1));
    check(HttpRefusal::Late, 504, Code::DeadlineExceeded, None);
    check(HttpRefusal::Slow, 408, Code::Cancelled, None);
    check(HttpRefusal::Unknown, 401, Code::Unauthenticated, None);
    check(HttpRefusal::Others, 403, Code::PermissionDenied, None);
    check(HttpRefusal::NoSuchTopic, 404, Code::Unimplemented, None);
    check(HttpRefusal::NoSuchMethod, 405, Code::Unimplemented, None);
    check(HttpRefusal::Encoded, 415, Code::Unimplemented, None);
    check(HttpRefusal::TooLarge, 413, Code::InvalidArgument, None);
    check(InflateError::TooLarge(1), 413, Code::InvalidArgument, None);
    check(ParseError::Many, 413, Code::InvalidArgument, None);
    check(ParseError::Dense, 413, Code::InvalidArgument, None);
    check(Refusal::Grows, 413, Code::InvalidArgument, None);
    check(FrameError::Broken, 400, Code::InvalidArgument, None);
    check(Refusal::NoTenant, 400, Code::InvalidArgument, None);
    let broken = Parsed::of(Signal::Traces, Bytes::from_static(&[0xff])).expect_err("it is cut short");
    check(broken, 400, Code::InvalidArgument, None);
}

#[test]
fn success_in_part_says_how_many_and_why() {
    let refused = Refused { oversize: 2, dead: 1 };
    let Answer::Whole(Some(body)) = success(Speech::Json, Signal::Logs, &refused).into_body() else {
        panic!("a body")
    };
    let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let text = "2 larger than the tenant's messages may be, 1 given up by the dataflow";
    assert_eq!(said, json!({ "partialSuccess": { "rejectedLogRecords": "3", "errorMessage": text } }));
    let Answer::Ended(Some(body), Some(trailers)) = success(Speech::Grpc, Signal::Logs, &refused).into_body()
    else {
        panic!("a body and trailers")
    };
    assert_eq!(trailers["grpc-status"], "0");
    let (message, _) = grpc::unframe(body).expect("a frame");
    assert_eq!(grpc::partial_success(&message), Some((3, text.to_owned())));
    let Answer::Whole(Some(body)) = success(Speech::Json, Signal::Logs, &Refused::default()).into_body()
    else {
        panic!("a body")
    };
    assert_eq!(&body[..], b"{}");
}
