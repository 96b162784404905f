//! Limits that are a rate: what they allow comes out at once, the rest as time fills their
//! buckets, and nothing is lost. On a virtual clock, so that how long it takes is the
//! policy's doing alone. Each beside the same limit raised.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tidegate::{
    clock::{Clock, VirtualClock},
    dataflow::{plan::Health, shard::Turn},
    guest::{OperatorKind::Map, host_call::Interface},
    rate::{self, Gates, Rates},
    resource::Limits,
    tenant::Tenant,
};
use tidegate_benches::rig::{Link, Rig, Running};

/// A shard whose clock goes on when there is nothing to do but wait.
pub struct Waiting {
    pub rig: Rig,
    clock: Arc<VirtualClock>,
}

impl Waiting {
    pub fn new() -> Self {
        let clock = Arc::<VirtualClock>::default();
        Waiting { rig: Rig::on(Clock::Virtual(clock.clone()), 8, 4), clock }
    }

    pub fn now(&self) -> Duration {
        Clock::Virtual(self.clock.clone()).now().since(Default::default())
    }

    /// One turn; where the shard waits for a time, that has come. False if it waits for
    /// nothing, or for something later than `until`.
    fn turn(&mut self, until: Duration) -> bool {
        match self.rig.shard.turn() {
            Turn::Busy => true,
            Turn::Idle { until: Some(at) } if at.since(Default::default()) <= until => {
                let ahead = at.since(Clock::Virtual(self.clock.clone()).now());
                self.clock.advance(ahead.max(Duration::from_nanos(1)));
                true
            }
            Turn::Idle { .. } | Turn::Stopped => false,
        }
    }

    /// Until nothing happens any more before `until`; gives what came out.
    pub fn run(&mut self, flow: &Running, until: Duration) -> Vec<String> {
        let mut out = Vec::new();
        for _ in 0..1_000_000 {
            let busy = self.turn(until);
            let new = flow.receive();
            if !busy && new.is_empty() {
                return out;
            }
            out.extend(new);
        }
        panic!("the shard is never idle");
    }

    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }
}

const LATE: Duration = Duration::from_secs(3_600);
/// Some 10 million units of fuel, and 1.25 ms at the virtual clock's speed.
const BUSY: Link<'_> = ("hostile_busy", Map, &[("micros", "1000")]);
const STATE: Link<'_> = ("aio_state_load", Map, &[]);
const CLOCK: Link<'_> = ("hostile_attacks", Map, &[("attack", "clock"), ("amount", "100")]);

/// One limit, where it makes messages wait, and raised.
struct Rate {
    key: &'static str,
    link: Link<'static>,
    payload: &'static str,
    low: fn(&mut Limits),
    high: fn(&mut Limits),
}

fn capped(limits: &mut Limits, rate_milli: u64, burst: Duration) {
    (limits.cpu_rate_milli, limits.cpu_burst, limits.cpu_cap) = (rate_milli, burst, true);
}

const MS: Duration = Duration::from_millis(1);

const RATES: &[Rate] = &[
    Rate {
        key: "cpu.rate",
        link: BUSY,
        payload: "1",
        low: |limits| capped(limits, 10, MS),
        high: |limits| capped(limits, 1_000, MS),
    },
    Rate {
        key: "cpu.burst",
        link: BUSY,
        payload: "1",
        low: |limits| capped(limits, 10, MS),
        high: |limits| capped(limits, 10, 1_000 * MS),
    },
    Rate {
        key: "cpu.cap",
        link: BUSY,
        payload: "1",
        low: |limits| capped(limits, 10, MS),
        high: |limits| {
            capped(limits, 10, MS);
            limits.cpu_cap = false;
        },
    },
    Rate {
        key: "fuel.rate",
        link: BUSY,
        payload: "1",
        low: |limits| (limits.fuel_rate, limits.fuel_burst) = (10_000_000, 1),
        high: |limits| (limits.fuel_rate, limits.fuel_burst) = (100_000_000_000, 1),
    },
    Rate {
        key: "fuel.burst",
        link: BUSY,
        payload: "1",
        low: |limits| (limits.fuel_rate, limits.fuel_burst) = (10_000_000, 1),
        high: |limits| (limits.fuel_rate, limits.fuel_burst) = (10_000_000, 10_000_000_000),
    },
    Rate {
        key: "calls.stateWrites",
        link: STATE,
        payload: "set k 0 100 10",
        low: |limits| limits.calls.set(Interface::StateWrites, 100),
        high: |limits| limits.calls.set(Interface::StateWrites, 1_000_000),
    },
    Rate {
        key: "calls.wasi",
        link: CLOCK,
        payload: "attack",
        low: |limits| limits.calls.set(Interface::Wasi, 100),
        high: |limits| limits.calls.set(Interface::Wasi, 1_000_000),
    },
    Rate {
        key: "calls.commands",
        // There is nobody to ask, which it is told each time.
        link: ("aio_command", Map, &[("topic", "ask/me")]),
        payload: "{}",
        low: |limits| limits.calls.set(Interface::Commands, 1),
        high: |limits| limits.calls.set(Interface::Commands, 1_000_000),
    },
    Rate {
        key: "calls.metrics",
        link: ("aio_metrics", Map, &[]),
        payload: "1",
        low: |limits| limits.calls.set(Interface::Metrics, 1),
        high: |limits| limits.calls.set(Interface::Metrics, 1_000_000),
    },
    Rate {
        key: "calls.schemas",
        link: ("aio_schemas", Map, &[]),
        payload: "none",
        low: |limits| limits.calls.set(Interface::Schemas, 1),
        high: |limits| limits.calls.set(Interface::Schemas, 1_000_000),
    },
    Rate {
        key: "calls.stateReads",
        link: STATE,
        payload: "get k 0 100 1 100",
        low: |limits| limits.calls.set(Interface::StateReads, 1),
        high: |limits| limits.calls.set(Interface::StateReads, 1_000_000),
    },
];

/// Which keys have their test here.
pub fn keys() -> impl Iterator<Item = &'static str> {
    RATES.iter().map(|rate| rate.key)
}

/// How long twenty messages took, and how long they waited for a bucket.
fn took(rate: &Rate, limit: fn(&mut Limits)) -> (Duration, Duration) {
    let mut limits = Limits::default();
    limit(&mut limits);
    let mut waiting = Waiting::new();
    let tenant = Tenant::new("a", limits);
    let mut flow = waiting.rig.install(&tenant, "flow", &[rate.link]);
    // Its instance, and what `init` takes, are not counted.
    flow.send(&[rate.payload]);
    waiting.run(&flow, LATE);
    let (begun, before) = (waiting.now(), tenant.stats.throttled_ns.get());
    (0..20).for_each(|_| _ = flow.send(&[rate.payload]));
    waiting.run(&flow, LATE);
    assert_eq!(flow.source.unsettled(), 0, "{}", rate.key);
    assert!(waiting.rig.dead.lock().expect("no panic").is_empty(), "{}: {:?}", rate.key, waiting.rig.dead);
    let throttled = Duration::from_nanos(tenant.stats.throttled_ns.get() - before);
    (waiting.now() - begun, throttled)
}

/// A source that asks again only once it is woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Twenty messages of three bytes at a gate: how long they took, and whether it was closed.
fn passed(rates: Rates) -> (Duration, bool) {
    let mut waiting = Waiting::new();
    let tenant = Tenant::new("a", Limits::default());
    let now = Clock::Virtual(waiting.clock.clone()).now();
    tenant.set_gates(Gates::new([("in", rates), ("out", rates)], now));
    let mut flow = waiting.rig.install(&tenant, "flow", &[("pass_through", Map, &[])]);
    let (begun, mut sent, mut out) = (waiting.now(), 0, Vec::new());
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    while out.len() < 20 {
        while sent < 20 && woken.0.swap(false, Ordering::SeqCst) {
            let ctx = &mut Context::from_waker(&waker);
            let Poll::Ready(credit) = flow.source.poll_credit(3, ctx) else { break };
            woken.0.store(true, Ordering::SeqCst);
            let batch = flow.batch(&["1"]);
            flow.source.deliver(credit, batch);
            sent += 1;
        }
        assert!(waiting.turn(LATE), "{rates:?}: {out:?} of {sent}");
        out.extend(flow.receive());
    }
    let closed = tenant.gates().closed() > 0;
    (waiting.now() - begun, closed)
}

#[test]
fn what_passes_an_endpoint_is_held_to_its_rate_and_raised_it_is_not() {
    let (ten, many) = (Some(10), Some(1_000_000));
    let messages = |messages| rate::Rate { messages, bytes: None };
    let bytes = |bytes: Option<u64>| rate::Rate { messages: None, bytes: bytes.map(|it| 3 * it) };
    let into = |r#in| Rates { r#in, ..Rates::default() };
    let out = |out| Rates { out, ..Rates::default() };
    for (key, low, high) in [
        ("endpoints.in.messages", into(messages(ten)), into(messages(many))),
        ("endpoints.in.bytes", into(bytes(ten)), into(bytes(many))),
        ("endpoints.out.messages", out(messages(ten)), out(messages(many))),
        ("endpoints.out.bytes", out(bytes(ten)), out(bytes(many))),
    ] {
        // The first ten are its burst.
        let (took, closed) = passed(low);
        assert!(took > 900 * MS && took < 1_100 * MS && closed, "{key}: {took:?}, {closed}");
        let (took, closed) = passed(high);
        assert!(took < 100 * MS && !closed, "{key} raised: {took:?}, {closed}");
    }
}

#[test]
fn a_rate_makes_messages_wait_and_raised_it_does_not() {
    for rate in RATES {
        let ((low, throttled), (high, free)) = (took(rate, rate.low), took(rate, rate.high));
        assert!(low > 10 * high, "{}: {low:?} and {high:?}", rate.key);
        assert!(throttled > low / 2 && free < high / 2, "{}: {throttled:?} and {free:?}", rate.key);
    }
}

/// Faults within a dataflow, of messages that trap and of those that pass.
fn faulty(limits: Limits, payloads: &[&str]) -> (Waiting, Running) {
    let mut waiting = Waiting::new();
    let link: Link<'_> = ("hostile_attacks", Map, &[("attack", "trap")]);
    let mut flow = waiting.rig.install(&Tenant::new("a", limits), "flow", &[link]);
    payloads.iter().for_each(|payload| _ = flow.send(&[payload]));
    (waiting, flow)
}

const TRAPS: [&str; 3] = ["attack 1", "attack 2", "attack 3"];

#[test]
fn a_dataflow_whose_guests_fail_pauses_for_its_cool_down_and_probes() {
    for (cool_down, pauses) in [(Duration::from_secs(10), true), (Duration::ZERO, false)] {
        let limits = Limits { fault_cool_down: cool_down, ..Limits::default() };
        let (mut waiting, mut flow) = faulty(limits, &TRAPS);
        flow.send(&["good"]);
        let soon = waiting.now() + Duration::from_secs(9);
        let out = waiting.run(&flow, soon);
        assert_eq!((out.is_empty(), matches!(flow.plan.health(), Health::Paused { .. })), (pauses, pauses));
        assert_eq!(flow.source.unsettled(), u64::from(pauses), "what waits is not settled");
        let rest = waiting.run(&flow, LATE);
        assert_eq!([out, rest].concat(), ["good"]);
        assert_eq!(flow.plan.health(), Health::Running);
        assert_eq!(waiting.rig.dead.lock().expect("no panic").len(), 3);
    }
}

#[test]
fn too_many_faults_within_the_time_are_a_quarantine_until_it_is_resumed() {
    let patient = Limits { fault_cool_down: Duration::ZERO, ..Limits::default() };
    let within = |seconds| Duration::from_secs(seconds);
    for (after, time, wait, quarantined) in [
        (3, within(60), Duration::ZERO, true),
        // More are allowed.
        (4, within(60), Duration::ZERO, false),
        // They are spread over more than the time.
        (3, within(60), within(31), false),
        (3, within(70), within(31), true),
    ] {
        let limits = Limits { quarantine_after: after, quarantine_within: time, ..patient.clone() };
        let (mut waiting, mut flow) = faulty(limits, &[]);
        for payload in TRAPS {
            flow.send(&[payload]);
            waiting.run(&flow, LATE);
            waiting.advance(wait);
        }
        let case = format!("{after} within {time:?}, every {wait:?}");
        flow.send(&["good"]);
        let out = waiting.run(&flow, LATE);
        assert_eq!(out.is_empty(), quarantined, "{case}");
        if !quarantined {
            continue;
        }
        assert!(matches!(flow.plan.health(), Health::Quarantined { .. }), "{case}");
        waiting.advance(Duration::from_secs(1_000_000));
        assert!(waiting.run(&flow, Duration::MAX).is_empty(), "time alone does not end it");
        let (reply, mut resumed) = tokio::sync::oneshot::channel();
        let command = tidegate::dataflow::shard::Command::Resume { dataflow: flow.id, reply };
        waiting.rig.door.send(command);
        assert_eq!(waiting.run(&flow, Duration::MAX), ["good"], "{case}");
        assert_eq!(resumed.try_recv(), Ok(true));
        assert_eq!(flow.plan.health(), Health::Running);
    }
}
