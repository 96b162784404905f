use prost::Message as _;

use super::*;
use crate::connector::otlp::grpc::RpcStatus;

#[test]
fn what_may_be_sent_again_is_what_otlp_says() {
    for (code, again) in [
        (Code::Cancelled, true),
        (Code::DeadlineExceeded, true),
        (Code::Aborted, true),
        (Code::OutOfRange, true),
        (Code::Unavailable, true),
        (Code::DataLoss, true),
        (Code::ResourceExhausted, false),
        (Code::InvalidArgument, false),
        (Code::Unimplemented, false),
        (Code::Unauthenticated, false),
        (Code::PermissionDenied, false),
        (Code::NotFound, false),
        (Code::Internal, false),
        (Code::Unknown, false),
    ] {
        let answer = judge(&Status::new(code, "no"));
        assert_eq!(matches!(answer, Answer::Again { after: None, .. }), again, "{code:?}");
    }
}

#[test]
fn a_collector_without_room_is_asked_again_only_if_it_says_when() {
    let delay = Duration::from_millis(2_500);
    let details = RpcStatus::new(Code::ResourceExhausted, "full", Some(delay)).encode_to_vec();
    let status = Status::with_details(Code::ResourceExhausted, "full", details.into());
    assert!(matches!(judge(&status), Answer::Again { after: Some(after), .. } if after == delay));
}

#[test]
fn only_what_may_be_about_the_content_is_sent_in_halves() {
    for (code, expected) in [
        (Code::InvalidArgument, Why::Content),
        (Code::ResourceExhausted, Why::Content),
        (Code::Unauthenticated, Why::Client),
        (Code::Unimplemented, Why::Client),
    ] {
        let answer = judge(&Status::new(code, "no"));
        assert!(matches!(answer, Answer::Refused { why, .. } if why == expected), "{code:?}");
    }
}
