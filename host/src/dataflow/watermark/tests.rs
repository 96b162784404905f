use std::time::Duration;

use super::{Moment, Timing, Watermarks};
use crate::clock::Instant;

fn at(seconds: u64) -> Moment {
    Moment { seconds, ..Moment::default() }
}

/// After so many milliseconds.
fn ms(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
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
                    now = ms(at_ms);
                    watermarks.heard(source, None, at(second), now);
                }
                Ended(source) => watermarks.ended(source),
                Wait(at_ms) => now = ms(at_ms),
            }
            let reached = watermarks.advance(0, &upstream, now);
            assert_eq!(reached.seconds, *expected, "{name}, step {place}");
        }
    }
}

#[test]
fn a_window_behind_another_has_come_as_far_as_what_has_left_that_one() {
    let mut watermarks = Watermarks::new(Timing::default(), 1, 2, ms(0));
    watermarks.heard(0, None, at(100), ms(1));
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
    watermarks.heard(0, None, at(100), ms(1_000));
    watermarks.advance(0, &[0], ms(1_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(1_000)), Some(ms(6_000)));
    watermarks.advance(0, &[0], ms(6_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(6_000)), Some(ms(16_000)));
    // In steps, where it is due already.
    watermarks.advance(0, &[0], ms(16_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(16_000)), Some(ms(16_100)));
}

#[test]
fn a_source_that_is_not_let_is_not_idle() {
    for (what, is_taken, waits, reached) in [
        ("a delivery is under way", true, false, 50),
        ("one waits to be taken", false, true, 50),
        ("nothing is there", false, false, 100),
    ] {
        let mut watermarks = Watermarks::new(Timing::default(), 2, 1, ms(0));
        watermarks.came(0);
        watermarks.heard(0, None, at(50), ms(1_000));
        if is_taken {
            watermarks.came(0);
        }
        watermarks.heard(1, None, at(100), ms(9_000));
        watermarks.look(ms(9_000), |source| waits && source == 0);
        assert_eq!(watermarks.advance(0, &[0, 1], ms(9_000)).seconds, reached, "{what}");
        if is_taken {
            watermarks.heard(0, None, at(70), ms(9_001));
            assert_eq!(watermarks.advance(0, &[0, 1], ms(9_001)).seconds, 70, "{what}");
        }
    }
}

/// What a source says of its streams, each by its number, and what the watermark is then.
enum Say {
    /// Which it reads.
    Reads(&'static [u64]),
    /// In a stream at a place, at so many ms, a message of this second.
    In(u64, u64, u64, u64),
    /// A stream ends behind a place, at so many ms.
    End(u64, u64, u64),
    /// There is more again of a stream.
    More(u64),
    Behind,
    /// At so many ms.
    CaughtUp(u64),
    Time(u64),
}
use Say::{Behind, CaughtUp, End, In, More, Reads, Time};

#[test]
fn a_stream_of_which_there_is_more_holds_the_others_up_and_one_that_is_read_does_not() {
    let cases: [(&str, &[(Say, u64)]); 9] = [
        ("nobody said what it reads", &[(In(1, 1, 10, 100), 100), (In(2, 1, 20, 50), 100)]),
        (
            "however long it takes",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 1, 10, 100), 0),
                (Time(60_000), 0),
                (In(2, 1, 60_001, 50), 50),
                (In(2, 2, 60_002, 150), 100),
            ],
        ),
        (
            "at its end it is idle as a source is",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 1, 10, 100), 0),
                (End(2, 0, 1_000), 0),
                (In(1, 2, 5_999, 110), 0),
                (In(1, 3, 6_000, 120), 120),
            ],
        ),
        (
            "an end that is told before its last message",
            &[
                (Reads(&[1, 2]), 0),
                (End(2, 7, 10), 0),
                (Time(60_000), 0),
                (In(2, 7, 60_000, 50), 0),
                (In(1, 1, 60_001, 100), 50),
                (In(1, 2, 65_000, 101), 101),
            ],
        ),
        (
            "more than there was",
            &[
                (Reads(&[1, 2]), 0),
                (In(2, 1, 10, 50), 0),
                (End(2, 1, 20), 0),
                (In(1, 1, 6_000, 100), 100),
                (More(2), 100),
                (In(1, 2, 6_001, 105), 100),
                (In(2, 2, 6_100, 101), 101),
                (In(1, 3, 30_000, 110), 101),
            ],
        ),
        (
            "an end that is no more",
            &[
                (Reads(&[1, 2]), 0),
                (In(2, 1, 10, 50), 0),
                (End(2, 1, 20), 0),
                (More(2), 0),
                (In(1, 1, 9_000, 100), 50),
                (In(2, 2, 9_100, 60), 60),
                (End(2, 2, 9_200), 60),
                (In(1, 2, 14_200, 120), 120),
            ],
        ),
        (
            "who may not read knows of no end",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 1, 10, 100), 0),
                (In(2, 1, 10, 50), 50),
                (End(1, 1, 20), 50),
                (End(2, 1, 20), 50),
                (Behind, 50),
                (Time(60_000), 50),
                (In(1, 2, 60_000, 200), 50),
                (In(2, 2, 60_100, 160), 160),
                (End(2, 2, 60_200), 160),
                (CaughtUp(60_300), 160),
                (In(1, 3, 65_200, 260), 160),
                (In(1, 4, 65_300, 261), 261),
            ],
        ),
        (
            "all at their ends: at the clock's pace",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 1, 1_000, 100), 0),
                (In(2, 1, 1_000, 90), 90),
                (End(1, 1, 2_000), 90),
                (End(2, 1, 2_000), 90),
                (Time(7_000), 100),
                (Time(9_000), 102),
            ],
        ),
        (
            "one that goes",
            &[
                (Reads(&[1, 2]), 0),
                (In(1, 1, 10, 100), 0),
                (Reads(&[1]), 100),
                (Reads(&[1, 2]), 100),
                (In(1, 2, 20, 110), 100),
                (In(2, 9, 30, 105), 105),
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
                    watermarks.reads(0, &streams, now);
                }
                In(stream, place, at_ms, second) => {
                    now = ms(at_ms);
                    watermarks.heard(0, Some(([stream, 0], place)), at(second), now);
                }
                End(stream, upto, at_ms) => {
                    now = ms(at_ms);
                    watermarks.all_of(0, [stream, 0], upto, now);
                }
                Behind => watermarks.behind(0),
                CaughtUp(at_ms) => {
                    now = ms(at_ms);
                    watermarks.caught_up(0, now);
                }
                More(stream) => watermarks.more_of(0, [stream, 0]),
                Time(at_ms) => now = ms(at_ms),
            }
            let reached = watermarks.advance(0, &[0], now);
            assert_eq!(reached.seconds, *expected, "{name}, step {place}");
        }
    }
}

#[test]
fn nobody_looks_again_for_a_stream_that_has_more_and_somebody_does_once_it_ends() {
    let mut watermarks = Watermarks::new(Timing::default(), 1, 1, ms(0));
    watermarks.reads(0, &[[1, 0]], ms(0));
    watermarks.heard(0, Some(([1, 0], 1)), at(100), ms(1_000));
    watermarks.advance(0, &[0], ms(1_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(1_000)), None);
    watermarks.all_of(0, [1, 0], 1, ms(2_000));
    assert_eq!(watermarks.next_look(0, &[0], at(110), ms(2_000)), Some(ms(7_000)));
}
