//! Accumulate and delay on a shard of their own, on a virtual clock: windows of ten
//! seconds, who closes them, and what becomes of what comes too late.

use std::{sync::Arc, time::Duration};

use tidegate::{
    batch::{Batch, BatchBuilder},
    clock::{Clock, VirtualClock},
    dead_letter::Reason,
    guest::OperatorKind::{Accumulate, Delay, Filter},
    resource::{Late, Limits},
    tenant::Tenant,
};
use tidegate_benches::rig::{Link, Rig, Running};

const ALIGN: Link<'_> = ("align", Delay, &[("seconds", "10")]);
const AGGREGATE: Link<'_> = ("aggregate", Accumulate, &[("field", "v")]);

struct Site {
    rig: Rig,
    clock: Arc<VirtualClock>,
    flow: Running,
}

impl Site {
    fn new(links: &[Link<'_>], late: Late) -> Self {
        let clock = Arc::<VirtualClock>::default();
        let mut rig = Rig::on(Clock::Virtual(clock.clone()), 8, 4);
        let tenant = Tenant::new("team", Limits { late, ..Limits::default() });
        let flow = rig.install(&tenant, "flow", links);
        Site { rig, clock, flow }
    }

    /// One delivery of values by the second of their time; what has come out then.
    fn send(&mut self, values: &[(u64, f64)]) -> Vec<String> {
        self.flow.deliver(batch(values));
        self.listen()
    }

    fn listen(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        // What is confirmed may release more.
        for _ in 0..4 {
            self.rig.settle();
            heard.extend(self.flow.receive());
        }
        heard
    }

    fn wait(&mut self, time: Duration) -> Vec<String> {
        let mut heard = Vec::new();
        for _ in 0..time.as_millis() / 100 {
            self.clock.advance(Duration::from_millis(100));
            heard.extend(self.listen());
        }
        heard
    }
}

/// A long time before the clock: windows know no time but that of messages.
const START: u64 = 1_000_000;

fn batch(values: &[(u64, f64)]) -> Batch {
    let mut builder = BatchBuilder::new("host");
    for (second, value) in values {
        let time = format!("{:015}:00000:a", (START + second) * 1000);
        let payload = format!(r#"{{"v":{value}}}"#);
        builder.push(b"in", None, payload.as_bytes(), [(b"__ts".as_slice(), time.as_bytes())]);
    }
    builder.finish()
}

fn summary(count: u64, sum: f64, min: f64, max: f64) -> String {
    format!(
        r#"{{"count":{count},"sum":{sum:?},"min":{min:?},"max":{max:?},"mean":{:?}}}"#,
        sum / count as f64
    )
}

#[test]
fn a_window_closes_once_a_later_one_has_begun() {
    let mut site = Site::new(&[ALIGN, AGGREGATE], Late::Drop);
    assert_eq!(site.send(&[(1, 10.0), (5, 20.0)]), [""; 0]);
    // Several calls make one window; the second that ends it belongs to it.
    assert_eq!(site.send(&[(3, 60.0), (10, 2.0)]), [""; 0]);
    assert_eq!(site.send(&[(11, 7.0)]), [summary(4, 92.0, 2.0, 60.0)]);
    assert_eq!(site.send(&[(35, 1.0)]), [summary(1, 7.0, 7.0, 7.0)]);
    // All that is absorbed is settled: nothing hangs on the window that is open.
    assert_eq!(site.flow.source.unsettled(), 0);
    assert_eq!(site.flow.plan.tenant.ledger.bytes_in_flight(), 0);
    site.flow.source.end();
    assert_eq!(site.listen(), [summary(1, 1.0, 1.0, 1.0)]);
    let stats = &site.flow.plan.stats;
    assert_eq!((stats.received.get(), stats.delivered.get(), stats.late.get()), (6, 3, 0));
}

#[test]
fn a_silent_source_holds_no_window_open() {
    let mut site = Site::new(&[ALIGN, AGGREGATE], Late::Drop);
    assert_eq!(site.send(&[(1, 1.0)]), [""; 0]);
    // Idle after 5 s; from then on time goes on from 1 at the clock's pace, past 10.
    assert_eq!(site.wait(Duration::from_millis(13_900)), [""; 0]);
    assert_eq!(site.wait(Duration::from_millis(400)), [summary(1, 1.0, 1.0, 1.0)]);
    // And never back.
    assert_eq!(site.send(&[(2, 1.0)]), [""; 0]);
    assert_eq!(site.flow.plan.stats.late.get(), 1);
    assert_eq!(site.send(&[(12, 4.0), (21, 5.0)]), [summary(1, 4.0, 4.0, 4.0)]);
}

#[test]
fn late_messages_have_the_fate_that_policy_says() {
    for (late, closed, dead) in [
        (Late::Drop, vec![summary(1, 5.0, 5.0, 5.0)], 0),
        (Late::DeadLetter, vec![summary(1, 5.0, 5.0, 5.0)], 1),
        (Late::NextWindow, vec![summary(2, 105.0, 5.0, 100.0)], 0),
    ] {
        let mut site = Site::new(&[ALIGN, AGGREGATE], late);
        assert_eq!(site.send(&[(1, 1.0)]), [""; 0]);
        assert_eq!(site.send(&[(15, 5.0)]), [summary(1, 1.0, 1.0, 1.0)]);
        assert_eq!(site.send(&[(9, 100.0)]), [""; 0], "{late:?}");
        site.flow.source.end();
        assert_eq!(site.listen(), closed, "{late:?}");
        let letters = site.rig.dead.lock().expect("no panic under this lock");
        assert_eq!(letters.len(), dead, "{late:?}");
        assert!(letters.iter().all(|letter| letter.reason == Reason::Late));
        assert_eq!(site.flow.plan.stats.late.get(), u64::from(late == Late::Drop));
        assert_eq!(site.flow.source.unsettled(), 0);
    }
}

#[test]
fn a_bad_message_is_lost_alone_and_its_window_goes_on() {
    let mut site = Site::new(&[ALIGN, AGGREGATE], Late::Drop);
    let mut builder = BatchBuilder::new("host");
    for payload in [r#"{"v":1}"#, "no JSON", r#"{"v":2}"#] {
        let time = format!("{}:0:a", START * 1000);
        builder.push(b"in", None, payload.as_bytes(), [(b"__ts".as_slice(), time.as_bytes())]);
    }
    site.flow.deliver(builder.finish());
    site.flow.source.end();
    assert_eq!(site.listen(), [summary(2, 3.0, 1.0, 2.0)]);
    assert_eq!(site.flow.plan.stats.errors.get(), 1);
}

#[test]
fn what_a_filter_drops_makes_time_go_on_all_the_same() {
    let keep = ("json_filter", Filter, [("field", "v"), ("op", "gt"), ("value", "50")].as_slice());
    let mut site = Site::new(&[keep, ALIGN, AGGREGATE], Late::Drop);
    assert_eq!(site.send(&[(1, 60.0), (2, 1.0)]), [""; 0]);
    assert_eq!(site.send(&[(11, 1.0)]), [summary(1, 60.0, 60.0, 60.0)]);
}
