use super::*;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

#[test]
fn attempts_are_further_and_further_apart_up_to_a_limit_and_with_jitter() {
    let waits = |seed: u64| {
        let mut backoff = Backoff::seeded(FIRST, LONGEST, seed);
        (0..20).map(|_| backoff.next()).collect::<Vec<_>>()
    };
    let (one, other) = (waits(1), waits(2));
    assert_eq!(one, waits(1), "the same seed gives the same waits");
    assert_ne!(one, other);
    for (attempt, wait) in one.iter().enumerate() {
        let longest = (FIRST * 2u32.pow(attempt as u32)).min(LONGEST);
        assert!((longest / 2..=longest).contains(wait), "attempt {attempt}: {wait:?}");
    }
}

#[test]
fn after_one_that_went_well_it_begins_anew() {
    let mut backoff = Backoff { attempts: u32::MAX, ..Backoff::new(FIRST, LONGEST) };
    assert!(backoff.next() >= LONGEST / 2);
    assert!(!backoff.is_fresh());
    backoff.reset();
    assert!(backoff.is_fresh());
    assert!(backoff.next() <= FIRST);
}
