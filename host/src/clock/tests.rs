//! What a clock's instants promise.

use super::*;

#[test]
fn an_instant_that_is_too_far_away_is_the_last_one() {
    let now = Instant(7);
    for (duration, expected) in [
        (Duration::from_nanos(3), Instant(10)),
        (Duration::from_nanos(u64::MAX), Instant(u64::MAX)),
        // 2⁶⁴ ns and a little: cut to 64 bits it would be right ahead.
        (Duration::new(18_446_744_073, 709_551_617), Instant(u64::MAX)),
        (Duration::MAX, Instant(u64::MAX)),
    ] {
        assert_eq!(now.plus(duration), expected, "{duration:?}");
    }
}
