use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

#[test]
fn what_is_spent_comes_back_at_the_rate_and_no_further_than_the_burst() {
    let mut bucket = Bucket::new(1_000, 10, Instant(0));
    bucket.spend(10);
    assert!(!bucket.is_open());
    assert_eq!(bucket.opens_at(), Instant(MS));
    bucket.fill(Instant(MS));
    assert_eq!(bucket.level(), 1);
    bucket.spend(5);
    assert_eq!((bucket.level(), bucket.opens_at()), (-4, Instant(6 * MS)));
    bucket.fill(Instant(1_000 * MS));
    assert_eq!(bucket.level(), 10);
}

#[test]
fn one_that_forgives_owes_its_burst_at_most() {
    let mut bucket = Bucket::new(1_000, 10, Instant(0)).forgiving();
    bucket.spend(1_000_000);
    assert_eq!((bucket.level(), bucket.opens_at()), (-10, Instant(11 * MS)));
}

#[test]
fn one_that_is_never_filled_never_opens() {
    let mut bucket = Bucket::new(0, 1, Instant(7));
    bucket.spend(1);
    assert_eq!(bucket.opens_at(), Instant(u64::MAX));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Spend(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0..50 * MS).prop_map(Step::Pass), (0_u64..2_000).prop_map(Step::Spend)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// A million steps against a model that counts in fractions, exactly.
    #[test]
    fn it_is_what_a_model_in_fractions_is(
        rate in 1_u64..100_000,
        burst in 1_u64..10_000,
        steps in prop::collection::vec(step(), 1_000),
    ) {
        let mut bucket = Bucket::new(rate, burst, Instant(0));
        let full = i128::from(burst) * NS_PER_SECOND as i128;
        let (mut now, mut model) = (0, full);
        for step in steps {
            match step {
                Step::Pass(ns) => {
                    now += ns;
                    bucket.fill(Instant(now));
                    model = (model + i128::from(ns) * i128::from(rate)).min(full);
                    // A full bucket keeps no fraction; one that fills a unit at once loses none.
                    if model / NS_PER_SECOND as i128 == i128::from(burst) {
                        model = full;
                    }
                }
                Step::Spend(units) => {
                    bucket.spend(units);
                    model -= i128::from(units) * NS_PER_SECOND as i128;
                }
            }
            prop_assert_eq!(i128::from(bucket.level()), model.div_euclid(NS_PER_SECOND as i128));
            let opens = bucket.opens_at();
            let mut later = bucket.clone();
            later.fill(opens);
            prop_assert!(later.is_open());
            if opens.0 > now {
                let mut before = bucket.clone();
                before.fill(Instant(opens.0 - 1));
                prop_assert!(!before.is_open());
            }
        }
    }
}
