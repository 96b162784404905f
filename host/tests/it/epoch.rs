//! The engine `epoch`, whose guests nothing but a timer stops: hostile operators beside live
//! neighbours on all engines, on the real clock; its limits with their twins; the same in
//! every run on a virtual clock; and a host with tenants on all three engines.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate::{
    clock::{Clock, VirtualClock},
    dataflow::{plan::Health, shard::Turn},
    dead_letter::Reason,
    guest::OperatorKind::Map,
    resource::{EngineKind, Limits},
    tenant::Tenant,
};
use tidegate_benches::rig::{self, Link, Rig, Running};

use crate::{
    folder::{self, SiteFolder},
    mosquitto::{Mosquitto, WITHIN, eventually},
    outside::{Subscriber, publish_all},
    process::{Host, output, tidegate},
};

/// What must become of the guilty message, or of the whole dataflow.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Passes,
    Dead(Reason),
    /// The operator never starts; the dataflow's state says so in these words.
    Fails(&'static str),
}
use Fate::{Dead, Fails, Passes};

/// `hostile/attacks`: attack, how much of it, where, and its fate.
const ATTACKS: &[(&str, &str, &str, Fate)] = &[
    ("spin", "", "message", Dead(Reason::OutOfTime)),
    ("spin", "1000", "message", Passes),
    ("fill", "", "message", Dead(Reason::OutOfTime)),
    ("fill", "1", "message", Passes),
    ("recurse", "", "message", Dead(Reason::Trap)),
    ("recurse", "100", "message", Passes),
    ("trap", "", "message", Dead(Reason::Trap)),
    ("panic", "", "message", Dead(Reason::Trap)),
    ("stray", "", "message", Dead(Reason::Trap)),
    ("grow", "", "message", Passes),
    ("allocate", "", "message", Dead(Reason::MemoryRefused)),
    ("messages", "", "message", Dead(Reason::MemoryRefused)),
    ("messages", "200", "message", Dead(Reason::BadOutput)),
    ("messages", "63", "message", Passes),
    ("bytes", "", "message", Dead(Reason::MemoryRefused)),
    ("bytes", "500000", "message", Passes),
    ("log", "100", "message", Passes),
    ("exit", "", "message", Dead(Reason::Trap)),
    ("spin", "", "init", Fails("CPU time")),
    ("fill", "", "init", Fails("CPU time")),
    ("trap", "", "init", Fails("unreachable")),
    ("recurse", "", "init", Fails("out of bounds")),
    ("allocate", "", "init", Fails("memory")),
];

const ATTACKER: &str = "attacker";

/// Time of a message, of which `init` has 64: enough to grow into all memory on a machine
/// that does other things too.
const MESSAGE_TIME: Duration = Duration::from_millis(15);

fn limits() -> Limits {
    Limits { message_time_max: MESSAGE_TIME, ..Limits::of_engine(EngineKind::Epoch) }
}

/// A shard with a quiet neighbour on each engine, and room for an attacker.
struct Street {
    rig: Rig,
    clock: Option<Arc<VirtualClock>>,
    neighbours: Vec<(Running, Vec<String>)>,
    beats: usize,
}

impl Street {
    fn on(components: tidegate::guest::component::Components, clock: Option<Arc<VirtualClock>>) -> Self {
        let time = clock.clone().map_or(Clock::System, Clock::Virtual);
        let mut rig = Rig::with(components, time, 8, 8, 7);
        let pass: &[Link<'_>] = &[("pass_through", Map, &[])];
        let neighbours = EngineKind::ALL.map(|engine| {
            let tenant = Tenant::new(engine.name(), Limits::of_engine(engine));
            (rig.install(&tenant, "pass", pass), Vec::new())
        });
        Street { rig, clock, neighbours: neighbours.into(), beats: 0 }
    }

    fn new() -> Self {
        Self::on(rig::components(), None)
    }

    fn attacker(&mut self, link: Link<'_>) -> Running {
        self.rig.install(&Tenant::new(ATTACKER, limits()), "flow", &[link])
    }

    /// Each neighbour is sent one message.
    fn beat(&mut self) {
        let beat = self.beats.to_string();
        self.beats += 1;
        self.neighbours.iter_mut().for_each(|(neighbour, _)| _ = neighbour.send(&[&beat]));
    }

    /// Whether anybody has anything to do.
    fn turn(&mut self) -> bool {
        let turn = self.rig.shard.turn();
        for (neighbour, heard) in &mut self.neighbours {
            heard.extend(neighbour.receive());
        }
        match (turn, &self.clock) {
            (Turn::Busy, _) => true,
            (Turn::Idle { until: Some(until) }, Some(clock)) => {
                let ahead = until.since(Clock::Virtual(clock.clone()).now());
                clock.advance(ahead.max(Duration::from_nanos(1)));
                true
            }
            (Turn::Idle { until }, None) => until.is_some(),
            (Turn::Idle { until: None } | Turn::Stopped, _) => false,
        }
    }

    /// Until the attacker's deliveries are settled, or it has failed; and neighbours heard
    /// all. Gives what the attacker delivered.
    fn settle(&mut self, attacker: &Running, goal: u64, beside: &str) -> Vec<String> {
        let (until, mut delivered) = (Instant::now() + WITHIN, Vec::new());
        loop {
            let busy = self.turn();
            delivered.extend(attacker.receive());
            let heard = self.neighbours.iter().all(|(_, heard)| heard.len() == self.beats);
            let over = attacker.source.settled_upto() >= goal
                || matches!(attacker.plan.health(), Health::Failed { .. });
            if heard && over && !busy {
                return delivered;
            }
            assert!(Instant::now() < until, "not settled within {WITHIN:?}: {beside}");
        }
    }

    /// Neighbours got all, in order, and lost nothing to anybody's fault.
    fn check_neighbours(&self, beside: &str) {
        let expected: Vec<_> = (0..self.beats).map(|beat| beat.to_string()).collect();
        for (neighbour, heard) in &self.neighbours {
            assert_eq!(*heard, expected, "{} beside {beside}", neighbour.plan.name());
            assert_eq!(neighbour.plan.health(), Health::Running, "beside {beside}");
            let stats = &neighbour.plan.steps[0].operator.stats;
            assert_eq!((stats.faults.get(), stats.retries.get()), (0, 0), "beside {beside}");
        }
    }

    fn dead(&self) -> Vec<(String, Reason, Option<String>)> {
        let dead = self.rig.dead.lock().expect("no panic");
        dead.iter().map(|letter| (letter.tenant.clone(), letter.reason, letter.payload.clone())).collect()
    }
}

/// Three messages, the second guilty, beside neighbours that are sent twenty each.
fn check(street: &mut Street, guest: &str, configuration: &[(&str, &str)], fate: Fate) {
    let what = format!("{guest} {configuration:?}");
    let mut flow = street.attacker((guest, Map, configuration));
    flow.send(&["one", "attack", "three"]);
    for _ in 0..20 {
        street.beat();
        (0..4).for_each(|_| _ = street.turn());
    }
    let delivered = street.settle(&flow, 1, &what);
    street.check_neighbours(&what);
    let dead = street.dead();
    if let Fails(words) = fate {
        assert_eq!((delivered.len(), dead.len()), (0, 0), "{what}: {delivered:?} {dead:?}");
        let health = flow.plan.health();
        assert!(
            matches!(&health, Health::Failed { cause, .. } if cause.contains(words)),
            "{what}: {health:?}"
        );
        return;
    }
    assert_eq!(flow.plan.health(), Health::Running, "{what}");
    assert_eq!(flow.plan.tenant.ledger.bytes_in_flight(), 0, "{what}");
    // Nothing counts what it did.
    assert_eq!(flow.plan.steps[0].operator.stats.fuel.get(), 0, "{what}");
    let ends = (delivered.first().map(String::as_str), delivered.last().map(String::as_str));
    assert_eq!(ends, (Some("one"), Some("three")), "{what}: {delivered:?}");
    match fate {
        Dead(reason) => {
            assert_eq!(dead, [(ATTACKER.to_owned(), reason, Some("attack".to_owned()))], "{what}");
            assert_eq!(delivered.len(), 2, "{what}");
        }
        _ => assert!(dead.is_empty() && delivered.len() >= 3, "{what}: {dead:?} {delivered:?}"),
    }
}

fn configuration<'a>(attack: &'a str, amount: &'a str, at: &'a str) -> Vec<(&'a str, &'a str)> {
    let amount = (!amount.is_empty()).then_some(("amount", amount));
    [("attack", attack), ("at", at)].into_iter().chain(amount).collect()
}

/// Checks attacks, each in a street of its own, and says of all at once which failed.
fn check_all(street: impl Fn() -> Street, among: impl Fn(&str) -> bool) {
    let attacks = ATTACKS.iter().filter(|(attack, ..)| among(attack));
    let attacks = attacks
        .map(|(attack, amount, at, fate)| ("hostile_attacks", configuration(attack, amount, at), *fate));
    let mut failed = Vec::new();
    for (guest, configuration, fate) in attacks.chain([("hostile_start", Vec::new(), Fails("CPU time"))]) {
        let case = || check(&mut street(), guest, &configuration, fate);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)).is_err() {
            failed.push(format!("{guest} {configuration:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn an_attacker_without_fuel_to_run_out_of_harms_itself_alone() {
    check_all(Street::new, |_| true);
}

#[test]
fn on_a_virtual_clock_a_guest_s_own_steps_are_its_time() {
    // One instruction that fills all memory is one step there, and 50,000 are too many to wait for.
    let among = |attack: &str| attack != "fill";
    check_all(|| Street::on(rig::components(), Some(Arc::default())), among);
}

#[test]
fn an_endless_loop_on_a_virtual_clock_ends_at_the_same_instant_in_every_run() {
    let run = || {
        let clock = Arc::<VirtualClock>::default();
        let mut street = Street::on(rig::components(), Some(clock.clone()));
        check(&mut street, "hostile_attacks", &configuration("spin", "", "message"), Dead(Reason::OutOfTime));
        Clock::Virtual(clock).now()
    };
    let first = run();
    // Once in the batch, and once alone.
    assert!(first.since(tidegate::clock::Instant(0)) >= 4 * MESSAGE_TIME, "{first:?}");
    assert_eq!(first, run());
}

#[test]
fn a_call_is_ended_within_its_slice_if_it_has_less_time_than_that() {
    let clock = Arc::<VirtualClock>::default();
    let mut rig = Rig::on(Clock::Virtual(clock.clone()), 8, 4);
    let short = Limits { message_time_max: Duration::from_micros(80), ..limits() };
    let link: Link<'_> = ("hostile_attacks", Map, &[("attack", "spin")]);
    let mut flow = rig.install(&Tenant::new(ATTACKER, short), "flow", &[link]);
    flow.send(&["one"]);
    rig.settle();
    assert_eq!(flow.receive(), ["one"]);
    let began = Clock::Virtual(clock.clone()).now();
    flow.send(&["attack"]);
    rig.settle();
    let took = Clock::Virtual(clock).now().since(began);
    assert_eq!((flow.plan.stats.dead.get(), flow.source.settled_upto()), (1, 2));
    // A slice has 200.
    assert!((80..100).contains(&took.as_micros()), "{took:?}");
}

#[test]
fn an_endless_loop_gives_the_shard_back_after_every_slice() {
    let mut street = Street::new();
    let long = Limits { message_time_max: Duration::from_millis(400), ..limits() };
    let link: Link<'_> = ("hostile_attacks", Map, &[("attack", "spin")]);
    let mut flow = street.rig.install(&Tenant::new(ATTACKER, long), "flow", &[link]);
    flow.send(&["attack"]);
    let mut turns_ns = Vec::new();
    let until = Instant::now() + WITHIN;
    while flow.source.settled_upto() == 0 {
        let before = Clock::System.cpu_ns();
        street.turn();
        turns_ns.push(Clock::System.cpu_ns() - before);
        assert!(Instant::now() < until, "it is never stopped");
    }
    assert_eq!(street.dead(), [(ATTACKER.to_owned(), Reason::OutOfTime, Some("attack".to_owned()))]);
    turns_ns.sort_unstable();
    // 400 ms, in slices of 200 µs that are over up to a tick of 100 µs later.
    let (turns, median_us) = (turns_ns.len(), turns_ns[turns_ns.len() / 2] / 1_000);
    assert!(turns > 800, "{turns} turns");
    assert!((100..600).contains(&median_us), "{median_us} µs in the middle of {turns} turns");
}

#[test]
fn shards_that_share_the_engine_stop_each_its_own_guests_in_time() {
    let components = rig::components();
    thread::scope(|scope| {
        let shard = || {
            let street = &mut Street::on(components.clone(), None);
            check(street, "hostile_attacks", &configuration("spin", "", "message"), Dead(Reason::OutOfTime));
        };
        let shards: Vec<_> = (0..4).map(|_| scope.spawn(shard)).collect();
        shards.into_iter().for_each(|shard| shard.join().expect("neighbours are unharmed"));
    });
}

#[test]
fn a_flood_of_honest_work_takes_its_turns() {
    let mut street = Street::new();
    let flood = Tenant::new(ATTACKER, Limits { inflight_bytes_max: 16 << 20, ..limits() });
    let mut flow = street.rig.install(&flood, "flow", &[("hostile_busy", Map, &[("micros", "50")])]);
    let sent: Vec<_> = (0..2_000).map(|number| number.to_string()).collect();
    sent.chunks(125).for_each(|batch| _ = flow.send(batch));
    let until = Instant::now() + WITHIN;
    while flow.source.settled_upto() < 16 {
        street.beat();
        street.turn();
        flow.receive();
        assert!(Instant::now() < until, "the flood never ends");
    }
    let heard_during = street.neighbours[0].1.len();
    assert!(heard_during > 50, "neighbours waited for the flood: {heard_during} of {}", street.beats);
    street.settle(&flow, 16, "a flood");
    street.check_neighbours("a flood");
    let stats = &flow.plan.stats;
    assert_eq!((stats.delivered.get(), stats.dead.get(), stats.errors.get()), (2_000, 0, 0));
}

#[test]
fn a_limit_bites_under_the_engine_and_raised_it_lets_the_same_work_pass() {
    let busy: folder::Link<'_> = ("map", "hostile_busy", &[("micros", "100000")]);
    let bytes: folder::Link<'_> =
        ("map", "hostile_attacks", &[("attack", "bytes"), ("amount", "400000"), ("marker", "1")]);
    for (low, high, link, words) in [
        ("message: { time: 5ms }", "message: { time: 30s }", busy, "given up (OutOfTime"),
        ("memory: { instance: 512Ki }", "memory: { instance: 4Mi }", bytes, "given up (MemoryRefused"),
        ("output: { bytes: 200Ki }", "output: { bytes: 512Ki }", bytes, "given up (BadOutput"),
        // As a limit in fuel does not: it is refused, since nothing would count it.
        ("message: { fuel: 1M, time: 30s }", "message: { time: 30s }", busy, "`message.fuel` limits nothing"),
        ("fuel: { rate: 1M }", "message: { time: 30s }", busy, "`fuel.rate` limits nothing"),
    ] {
        let run = |limit: &str| {
            let site = SiteFolder::new("{}", "127.0.0.1:1");
            site.policy("p", &["engine: epoch", limit]);
            site.dataflow("a", "flow", &[link]);
            site.write("input", "1\n");
            let artifacts = site.path().join("tenants/a/artifacts");
            let mut command = tidegate();
            command.arg("run").arg(artifacts.join("flow/1.yaml")).arg("--artifacts").arg(&artifacts);
            command.arg("--input").arg(site.path().join("input"));
            output(command.arg("--policy").arg(site.path().join("platform/policy-p.yaml")))
        };
        let (low_run, high_run) = (run(low), run(high));
        assert_eq!(low_run.code, Some(1), "{low}: {}", low_run.stderr);
        assert!(low_run.stderr.contains(words), "{low}: {}", low_run.stderr);
        assert_eq!(high_run.code, Some(0), "{high}: {}", high_run.stderr);
        assert!(high_run.stderr.contains("in 1, out 1,"), "{high}: {}", high_run.stderr);
    }
}

#[test]
fn mqtt_a_host_has_tenants_on_all_three_engines_at_once() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 1, slots: { fuel: 16, epoch: 16, large: 4 } }", &broker.address());
    let spin: folder::Link<'_> = ("map", "hostile_attacks", &[("attack", "spin")]);
    for engine in EngineKind::ALL.map(EngineKind::name) {
        site.policy(engine, &[&format!("engine: {engine}"), "message: { time: 5ms }", "onError: deadLetter"]);
        site.tenant(engine, engine);
        site.dataflow(engine, "flow", &[spin]);
    }
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    let messages = EngineKind::ALL.into_iter().flat_map(|engine| {
        let topic = format!("{}/in/flow", engine.name());
        let message = move |payload: &str| (topic.clone(), payload.into(), PublishProperties::default());
        ["one", "attack", "two"].map(message)
    });
    publish_all(broker.port, messages);
    eventually("all innocent messages arrive", || subscriber.len() == 6);
    for engine in EngineKind::ALL.map(EngineKind::name) {
        let flow = format!("{engine}/flow");
        host.wait_for("all have come out or were given up", |status| {
            (status.count(&flow, "delivered"), status.count(&flow, "dead")) == (2, 1)
        });
    }
    let mut dead: Vec<_> = host.dead_letters().into_iter().map(|it| (it.tenant, it.reason)).collect();
    dead.sort_by(|one, other| one.0.cmp(&other.0));
    let reasons: Vec<_> = dead.iter().map(|(tenant, reason)| (tenant.as_str(), *reason)).collect();
    let (by_time, by_fuel) = (Reason::OutOfTime, Reason::OutOfFuel);
    assert_eq!(reasons[0], ("epoch", by_time));
    // Whichever is used up first.
    for (place, tenant) in [(1, "fuel"), (2, "large")] {
        assert!(reasons[place].0 == tenant && [by_time, by_fuel].contains(&reasons[place].1), "{reasons:?}");
    }
    host.stop();
    // One component, compiled once for the engines that count fuel, and once for the other.
    let compiled = fs::read_dir(site.path().join(".tidegate/compiled")).expect("its cache").flatten();
    let names = compiled.map(|it| it.file_name().into_string().expect("UTF-8"));
    assert_eq!(names.filter(|name| name.ends_with(".cwasm")).count(), 2);
}
