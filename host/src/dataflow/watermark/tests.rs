use std::time::Duration;

use super::{LOOK_EVERY, Moment, Timing, Watermarks};
use crate::{clock::Instant, queue::Waits};

fn at(seconds: u64) -> Moment {
    Moment { seconds, ..Moment::default() }
}

/// After so many milliseconds.
fn ms(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

/// Lets time go on, with as many looks as a shard has.
fn pass(watermarks: &mut Watermarks, now: &mut Instant, until: Instant, waits: Waits) {
    while *now < until {
        *now = now.plus(LOOK_EVERY).min(until);
        watermarks.look(None, *now, |_| waits);
    }
}

/// Something that happens, and what the watermark of the window is then.
enum Step {
    /// A source delivers, at so many ms, a message of this second.
    Heard(u32, u64, u64),
    Ended(u32),
    /// Nothing but time.
    Wait(u64),
}
use Step::{Ended, Heard, Wait};

/// A name, sources outside, lateness in seconds, and steps with what follows each.
type Case<'a> = (&'a str, usize, u64, &'a [(Step, u64)]);

#[test]
fn a_watermark_is_the_least_of_its_sources_and_never_goes_back() {
    let cases: [Case<'_>; 8] = [
        ("one source", 1, 0, &[(Heard(0, 1, 100), 100), (Heard(0, 2, 90), 100), (Heard(0, 3, 110), 110)]),
        ("lateness", 1, 30, &[(Heard(0, 1, 100), 70), (Heard(0, 2, 120), 90)]),
        (
            "the slowest counts",
            2,
            0,
            &[(Heard(0, 1, 100), 0), (Heard(1, 2, 50), 50), (Heard(1, 3, 150), 100)],
        ),
        (
            "who says nothing leaves",
            2,
            0,
            &[(Heard(0, 1, 100), 0), (Wait(4_999), 0), (Heard(0, 5_000, 110), 110)],
        ),
        (
            "and comes back where it is",
            2,
            0,
            &[
                (Heard(0, 5_000, 110), 110),
                (Heard(1, 5_001, 60), 110),
                (Heard(0, 5_002, 120), 110),
                (Heard(1, 5_003, 130), 120),
            ],
        ),
        (
            "all silent: at the clock's pace",
            1,
            0,
            &[
                (Heard(0, 1_000, 100), 100),
                (Wait(5_999), 100),
                (Wait(6_000), 100),
                (Wait(9_000), 103),
                (Heard(0, 9_500, 101), 103),
                (Wait(14_400), 103),
                (Wait(15_500), 104),
            ],
        ),
        (
            "one that ended holds nobody up",
            2,
            0,
            &[(Heard(0, 1, 100), 0), (Ended(1), 100), (Heard(0, 2, 120), 120)],
        ),
        ("all ended", 1, 0, &[(Heard(0, 1, 100), 100), (Ended(0), u64::MAX)]),
    ];
    for (name, outside, lateness, steps) in cases {
        let timing = Timing { lateness: Duration::from_secs(lateness), ..Timing::default() };
        let mut watermarks = Watermarks::new(timing, outside, 1, ms(0));
        let upstream: Vec<u32> = (0..outside as u32).collect();
        let mut now = ms(0);
        for (place, (step, expected)) in steps.iter().enumerate() {
            match *step {
                Heard(source, at_ms, second) => {
                    pass(&mut watermarks, &mut now, ms(at_ms), Waits::No);
                    watermarks.look(Some(source), now, |_| Waits::No);
                    watermarks.heard(source, None, at(second));
                }
                Ended(source) => watermarks.ended(source),
                Wait(at_ms) => {
                    pass(&mut watermarks, &mut now, ms(at_ms), Waits::No);
                }
            }
            let reached = watermarks.advance(0, &upstream, now);
            assert_eq!(reached.seconds, *expected, "{name}, step {place}");
        }
    }
}

#[test]
fn a_window_behind_another_has_come_as_far_as_what_has_left_that_one() {
    let mut watermarks = Watermarks::new(Timing::default(), 1, 2, ms(0));
    watermarks.heard(0, None, at(100));
    assert_eq!(watermarks.advance(0, &[0], ms(1)), at(100));
    // However long it takes: it is not idle.
    assert_eq!(watermarks.advance(1, &[1], ms(60_000)), at(0));
    watermarks.passed(1, at(80));
    assert_eq!(watermarks.advance(1, &[1], ms(60_000)), at(80));
    assert_eq!(watermarks.next_look(1, &[1], at(90), ms(60_000)), None);
}

#[test]
fn somebody_looks_again_when_a_source_becomes_idle_and_when_time_has_come() {
    let mut watermarks = Watermarks::new(Timing::default(), 1, 1, ms(0));
    watermarks.look(Some(0), ms(1_000), |_| Waits::No);
    watermarks.heard(0, None, at(100));
    watermarks.advance(0, &[0], ms(1_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(1_000)), Some(ms(2_000)));
    let mut now = ms(1_000);
    pass(&mut watermarks, &mut now, ms(5_500), Waits::No);
    assert_eq!(watermarks.next_look(0, &[0], at(110), now), Some(ms(6_000)));
    pass(&mut watermarks, &mut now, ms(6_000), Waits::No);
    watermarks.advance(0, &[0], ms(6_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(6_000)), Some(ms(16_000)));
    // In steps, where it is due already.
    watermarks.look(None, ms(16_000), |_| Waits::No);
    watermarks.advance(0, &[0], ms(16_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(16_000)), Some(ms(16_100)));
}

#[test]
fn a_source_that_is_not_let_is_not_idle() {
    for (what, is_taken, waits, reached) in [
        ("a delivery is under way", true, Waits::No, 50),
        ("one waits to be taken, or the source for credit", false, Waits::ToBeTaken, 50),
        ("it does not know what it reads", false, Waits::ForStreams, 50),
        ("nothing is there", false, Waits::No, 100),
    ] {
        let mut watermarks = Watermarks::new(Timing::default(), 2, 1, ms(0));
        let waits = |source| if source == 0 { waits } else { Waits::No };
        watermarks.came(0);
        watermarks.look(Some(0), ms(1_000), waits);
        watermarks.heard(0, None, at(50));
        if is_taken {
            watermarks.came(0);
        }
        for second in 2..9 {
            watermarks.look(None, ms(second * 1_000), waits);
        }
        watermarks.look(Some(1), ms(9_000), waits);
        watermarks.heard(1, None, at(100));
        assert_eq!(watermarks.advance(0, &[0, 1], ms(9_000)).seconds, reached, "{what}");
    }
}

/// What happens to a source and its streams, each of these by its number, and what the watermark
/// is then.
enum Say {
    /// Which it reads.
    Reads(&'static [u64]),
    /// In a stream, at so many ms, a message of this second.
    In(u64, u64, u64),
    /// Nothing but time.
    Time(u64),
    /// The same while deliveries wait to be taken.
    Stall(u64),
}
use Say::{In, Reads, Stall, Time};

#[test]
fn a_stream_that_is_read_behind_others_holds_them_up_until_it_is_idle() {
    let cases: [(&str, &[(Say, u64)]); 7] = [
        ("nobody said what it reads", &[(In(1, 10, 100), 100), (In(2, 20, 50), 100)]),
        (
            "each is where it is",
            &[(Reads(&[1, 2]), 0), (In(1, 10, 100), 0), (In(2, 4_000, 50), 50), (In(2, 4_100, 150), 100)],
        ),
        (
            "before a delivery little time counts of which nobody knows",
            &[(Reads(&[1, 2]), 0), (In(1, 900, 100), 0), (In(1, 4_999, 110), 0), (In(1, 5_001, 120), 0)],
        ),
        (
            "after as much time as it might have been heard in",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 1_000, 100), 0),
                (In(1, 2_000, 101), 0),
                (In(1, 3_000, 102), 0),
                (In(1, 4_000, 103), 0),
                (In(1, 5_000, 104), 104),
            ],
        ),
        (
            "a stall is no silence",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 10, 100), 0),
                (In(2, 20, 50), 50),
                (Stall(60_000), 50),
                (In(1, 60_000, 160), 50),
                (In(2, 60_100, 159), 159),
            ],
        ),
        (
            "all silent: at the clock's pace",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 500, 100), 0),
                (In(2, 1_000, 90), 90),
                (Time(6_000), 100),
                (Time(8_000), 102),
            ],
        ),
        (
            "one that goes",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 10, 100), 0),
                (Reads(&[1]), 100),
                (Reads(&[1, 2]), 100),
                (In(1, 20, 110), 100),
                (In(2, 30, 105), 105),
            ],
        ),
    ];
    for (name, steps) in cases {
        let mut watermarks = Watermarks::new(Timing::default(), 1, 1, ms(0));
        let mut now = ms(0);
        for (place, (step, expected)) in steps.iter().enumerate() {
            match *step {
                Reads(streams) => {
                    let streams: Vec<_> = streams.iter().map(|stream| [*stream, 0]).collect();
                    watermarks.reads(0, &streams);
                }
                In(stream, at_ms, second) => {
                    now = ms(at_ms);
                    watermarks.came(0);
                    watermarks.look(Some(0), now, |_| Waits::No);
                    watermarks.heard(0, Some([stream, 0]), at(second));
                }
                Time(at_ms) => pass(&mut watermarks, &mut now, ms(at_ms), Waits::No),
                Stall(at_ms) => pass(&mut watermarks, &mut now, ms(at_ms), Waits::ToBeTaken),
            }
            let reached = watermarks.advance(0, &[0], now);
            assert_eq!(reached.seconds, *expected, "{name}, step {place}");
        }
    }
}
