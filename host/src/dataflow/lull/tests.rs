use std::time::Duration;

use super::{CYCLE_MAX, LULL, Lull, PARKS, Phase, STANDS_FOR, STANDS_FOR_MAX};
use crate::clock::Instant;

/// What comes to a shard, in time.
#[derive(Clone, Copy)]
enum Load {
    /// A message after each of these, whatever we do.
    Every(Duration),
    /// So many messages, and the next as many this long after we took them.
    Window { messages: u64, after: Duration },
    /// Wakes the thread after each of these without a message.
    Noise(Duration),
}

/// Parks until the virtual time is over; what share of parks slept, and how many
/// messages came a second.
fn run(lull: &mut Lull, load: Load, time: Duration) -> (f64, f64) {
    let (mut now, mut messages) = (Instant(0), 0);
    let (mut parks, mut slept) = (0_u32, 0_u32);
    while now < Instant(0).plus(time) {
        let sleep = lull.park(now, messages).unwrap_or_default();
        parks += 1;
        slept += u32::from(!sleep.is_zero());
        match load {
            Load::Every(gap) => {
                let gap = gap.as_nanos() as u64;
                let woken = now.plus(sleep).0;
                let came = (woken / gap).max(now.0 / gap + 1);
                messages += came - now.0 / gap;
                now = Instant((came * gap).max(woken));
            }
            Load::Window { messages: window, after } => {
                messages += window;
                now = now.plus(after.max(sleep));
            }
            Load::Noise(gap) => now = now.plus(gap.max(sleep)),
        }
    }
    (f64::from(slept) / f64::from(parks), messages as f64 / time.as_secs_f64())
}

#[test]
fn sleeps_where_it_costs_nobody_anything() {
    let us = Duration::from_micros;
    let cases = [
        ("a steady stream shares wake-ups", Load::Every(us(125)), true),
        ("a trickle is answered at once", Load::Every(us(2_000)), false),
        ("one at a time, who waits for the answer", Load::Window { messages: 1, after: us(60) }, false),
        ("a window of 20 that waits for us", Load::Window { messages: 20, after: us(100) }, false),
        ("a large window that waits for us", Load::Window { messages: 100, after: us(190) }, false),
        ("wake-ups without messages", Load::Noise(us(50)), false),
    ];
    for (name, load, sleeps) in cases {
        let (share, _) = run(&mut Lull::default(), load, Duration::from_secs(20));
        assert_eq!(share > 0.5, sleeps, "{name}: slept at {share} of all parks");
        assert!(sleeps || share < 0.1, "{name}: slept at {share} of all parks");
    }
}

/// Whoever waits for the answer before he asks again has nearly as many as without any sleep.
#[test]
fn trying_costs_one_who_waits_little() {
    for after in [Duration::from_micros(60), Duration::from_micros(150)] {
        let load = Load::Window { messages: 1, after };
        let (_, rate) = run(&mut Lull::default(), load, Duration::from_secs(5));
        assert!(rate * after.as_secs_f64() > 0.98, "{after:?}: {rate} a second");
    }
}

/// Another load than the one for which sleeping was of no use is tried soon.
#[test]
fn a_load_that_changes_is_looked_at_again() {
    let mut lull = Lull::default();
    run(&mut lull, Load::Window { messages: 1, after: Duration::from_micros(60) }, Duration::from_secs(5));
    assert_eq!(lull.stands, STANDS_FOR_MAX);
    let mut lull = Lull { phase: lull.phase, stands: lull.stands, ..Lull::default() };
    let (share, _) = run(&mut lull, Load::Every(Duration::from_micros(125)), Duration::from_secs(2));
    assert!(share > 0.5, "slept at {share} of all parks");
}

#[test]
fn what_was_measured_is_measured_again() {
    let mut lull = Lull::default();
    let stream = Load::Every(Duration::from_micros(125));
    run(&mut lull, stream, Duration::from_secs(1));
    assert!(matches!(lull.phase, Phase::Keep { .. }), "{lull:?}");
    // Once the stream has ended, the first message after it may wait, the others not.
    let trickle = Load::Every(CYCLE_MAX * 5);
    let mut fresh = Lull { phase: lull.phase, ..Lull::default() };
    let time = (CYCLE_MAX * 5 + LULL) * PARKS * (STANDS_FOR + 4);
    let (share, _) = run(&mut fresh, trickle, time);
    assert!(share < 0.2, "slept at {share} of all parks");
    assert_eq!(fresh.phase, Phase::Watch);
}
