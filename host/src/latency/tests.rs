use proptest::prelude::*;

use super::*;

#[test]
fn the_slowest_of_a_hundred_are_told_from_the_others() {
    let latency = Latency::default();
    assert_eq!(latency.percentile(99), None);
    (0..98).for_each(|_| latency.record(Duration::from_micros(100)));
    (0..2).for_each(|_| latency.record(Duration::from_millis(50)));
    let within = |percent, least: Duration| {
        let read = latency.percentile(percent).expect("there are some");
        assert!(
            least <= read && read <= least.mul_f64(1.13) + Duration::from_micros(2),
            "{read:?} for {least:?}"
        );
    };
    within(50, Duration::from_micros(100));
    within(98, Duration::from_micros(100));
    within(99, Duration::from_millis(50));
}

#[test]
fn what_was_long_ago_is_forgotten() {
    let latency = Latency::default();
    latency.record(Duration::from_secs(1));
    latency.turn();
    assert!(latency.percentile(99).is_some(), "it was just now");
    latency.turn();
    assert_eq!(latency.percentile(99), None);
    latency.record(Duration::from_millis(1));
    assert!(latency.percentile(99) < Some(Duration::from_millis(2)));
}

proptest! {
    #[test]
    fn a_bucket_ends_after_what_is_in_it_and_not_much_later(ns in 0_u64..120_000_000_000) {
        let took = Duration::from_nanos(ns);
        let end = end_of(bucket_of(took));
        prop_assert!(took < end, "{took:?} {end:?}");
        prop_assert!(end <= took + took / 8 + Duration::from_nanos(1 << UNIT_BITS), "{took:?} {end:?}");
    }
}

#[test]
fn the_longest_has_a_bucket() {
    let latency = Latency::default();
    latency.record(Duration::MAX);
    assert_eq!(latency.percentile(99), Some(end_of(BUCKETS - 1)));
}
