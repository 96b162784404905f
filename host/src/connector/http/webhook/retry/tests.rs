use super::*;

#[test]
fn what_may_pass_later_is_sent_again_and_what_would_not_is_refused() {
    for (status, expected) in [
        (200, Verdict::Done),
        (202, Verdict::Done),
        (204, Verdict::Done),
        (301, Verdict::Refused),
        (400, Verdict::Refused),
        (401, Verdict::Refused),
        (404, Verdict::Refused),
        (408, Verdict::Again),
        (409, Verdict::Refused),
        (413, Verdict::Refused),
        (425, Verdict::Again),
        (429, Verdict::Again),
        (500, Verdict::Again),
        (503, Verdict::Again),
        (599, Verdict::Again),
    ] {
        assert_eq!(judge(StatusCode::from_u16(status).unwrap()), expected, "{status}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_time() {
    let now = DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z").unwrap().to_utc();
    for (text, expected) in [
        ("3", Some(3)),
        (" 0 ", Some(0)),
        ("7000", Some(300)),
        ("Sun, 01 Mar 2026 14:00:00 GMT", Some(300)),
        ("Sun, 01 Mar 2026 12:00:20 GMT", Some(20)),
        ("Sun, 01 Mar 2026 11:00:00 GMT", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
    ] {
        assert_eq!(asked(text, now), expected.map(Duration::from_secs), "{text}");
    }
}
