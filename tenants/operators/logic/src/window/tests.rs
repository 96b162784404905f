//! Tests of `window`.

use super::*;

#[test]
fn an_instant_is_rounded_up_and_a_multiple_stays() {
    let check = |seconds, nanos, length, expected| {
        let end = end(Duration::new(seconds, nanos), Duration::from_secs(length));
        assert_eq!(end, Duration::from_secs(expected), "{seconds}.{nanos:09} in windows of {length} s");
    };
    check(1_700_000_003, 500, 10, 1_700_000_010);
    check(1_700_000_010, 0, 10, 1_700_000_010);
    check(1_700_000_010, 1, 10, 1_700_000_020);
    check(0, 0, 10, 0);
    check(9, 999_999_999, 10, 10);
    check(59, 0, 60, 60);
    check(7, 1, 0, 8);
    check(u64::MAX, 1, 10, u64::MAX);
}
