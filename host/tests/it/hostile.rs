//! Every hostile operator beside live neighbours on its shard: what is its own fault is
//! given up with the right reason, or its dataflow is reported failed, and neighbours
//! get all that they were sent. On a virtual clock, so that an attacker's fuel and time
//! run out in the same place on every machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidegate::{
    clock::{Clock, VirtualClock},
    dataflow::{plan::Health, shard::Turn},
    dead_letter::{Reason, Record},
    guest::OperatorKind::{self, Branch, Filter, Map},
    resource::Limits,
    tenant::Tenant,
};

use tidegate_benches::rig::{Link, Rig, Running, tenant};

/// What must become of a guilty message, or of the whole dataflow.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The message comes out after all.
    Passes,
    Dead(Reason),
    /// It is dropped with the operator's error.
    Error,
    /// The operator never starts; the dataflow's state says so in these words.
    Fails(&'static str),
}
use Fate::{Dead, Error, Fails, Passes};

/// `hostile/attacks`: attack, how much of it, and its fate.
const ATTACKS: &[(&str, &str, Fate)] = &[
    ("spin", "", Dead(Reason::OutOfFuel)),
    ("spin", "1000", Passes),
    ("trap", "", Dead(Reason::Trap)),
    ("panic", "", Dead(Reason::Trap)),
    ("stray", "", Dead(Reason::Trap)),
    ("recurse", "", Dead(Reason::Trap)),
    ("recurse", "100", Passes),
    // Refused memory, it goes on and passes the message.
    ("grow", "", Passes),
    ("allocate", "", Dead(Reason::MemoryRefused)),
    ("fill", "", Dead(Reason::OutOfFuel)),
    ("fill", "1", Passes),
    ("messages", "", Dead(Reason::MemoryRefused)),
    ("messages", "200", Dead(Reason::BadOutput)),
    ("messages", "63", Passes),
    ("bytes", "", Dead(Reason::MemoryRefused)),
    ("bytes", "500000", Passes),
    ("fault", "", Dead(Reason::MemoryRefused)),
    ("fault", "100", Error),
    ("log", "", Dead(Reason::Trap)),
    ("log", "1000", Passes),
    ("sleep", "", Dead(Reason::Trap)),
    ("sleep", "1", Passes),
    ("clock", "", Dead(Reason::Trap)),
    ("clock", "1000", Passes),
    ("exit", "", Dead(Reason::Trap)),
];

/// Attacks that filters and branches have no means for.
const ONLY_MAPS: [&str; 2] = ["messages", "bytes"];

/// The same in `init`.
const IN_INIT: &[(&str, &str, Fate)] = &[
    ("spin", "", Fails("fuel")),
    ("trap", "", Fails("unreachable")),
    ("panic", "", Fails("unreachable")),
    ("stray", "", Fails("out of bounds")),
    ("recurse", "", Fails("out of bounds")),
    ("grow", "", Passes),
    ("allocate", "", Fails("memory")),
    ("fill", "", Fails("fuel")),
    ("messages", "", Passes),
    ("bytes", "", Passes),
    ("fault", "", Fails("memory")),
    ("fault", "10", Fails("ffffffffff")),
    ("log", "", Fails("host calls")),
    ("sleep", "", Fails("waited longer")),
    ("clock", "", Fails("host calls")),
    ("exit", "", Fails("exit")),
];

/// `hostile/layout`: breach, the span that it breaks, and the kinds of operator that
/// can commit it. All are bad output, but for those that [`fate_of`] names.
const BREACHES: &[(&str, &[&str], &[OperatorKind])] = &[
    ("offset-beyond", SPANS, &[Map]),
    ("length-beyond", SPANS, &[Map]),
    ("wrap", SPANS, &[Map]),
    ("absent-length", SPANS, &[Map]),
    ("not-utf8", &["node", "topic", "content-type", "payload"], &[Map]),
    ("origin-beyond", PAYLOAD, &[Map]),
    ("origin-decreasing", PAYLOAD, &[Map]),
    ("properties-cut", PAYLOAD, &[Map]),
    ("properties-not-utf8", PAYLOAD, &[Map]),
    ("schema-tag", PAYLOAD, &[Map]),
    ("schema-cut", PAYLOAD, &[Map]),
    ("snapshot-cut", PAYLOAD, &[Map]),
    ("kind-seven", PAYLOAD, &[Map]),
    ("not-zero", PAYLOAD, &[Map]),
    ("entry-cut", PAYLOAD, &[Map]),
    ("fault-cut", PAYLOAD, &[Map]),
    ("fault-origin-beyond", PAYLOAD, &[Map, Filter, Branch]),
    ("fault-text-beyond", PAYLOAD, &[Map, Filter, Branch]),
    ("fault-not-utf8", PAYLOAD, &[Map, Filter, Branch]),
    ("fault-besides", PAYLOAD, &[Map, Filter, Branch]),
    ("verdict-seven", PAYLOAD, &[Filter, Branch]),
    ("verdicts-few", PAYLOAD, &[Filter, Branch]),
    ("verdicts-many", PAYLOAD, &[Filter, Branch]),
    ("error-alone", PAYLOAD, &[Filter, Branch]),
];

const SPANS: &[&str] = &["node", "topic", "content-type", "payload", "properties", "schema"];
const PAYLOAD: &[&str] = &["payload"];

/// What becomes of a breach that does no harm.
fn fate_of(breach: &str, span: &str, kind: OperatorKind) -> Fate {
    match (breach, span, kind) {
        // A single message has no order: the batch faults, and its messages pass one by one.
        ("origin-decreasing", ..) => Passes,
        // The offset alone says that it is absent.
        ("absent-length", ..) => Passes,
        // A payload may be any bytes; a topic is checked where it is written, by the sink.
        ("not-utf8", "payload" | "topic", _) => Passes,
        // The verdict alone says whether there is an error; its text is a courtesy.
        ("fault-besides", _, Filter | Branch) => Passes,
        ("fault-not-utf8" | "error-alone", _, Filter | Branch) => Error,
        _ => Dead(Reason::BadOutput),
    }
}

const PASS: Link<'_> = ("pass_through", Map, &[]);
const AIO_PASS: Link<'_> = ("aio_pass_through", Map, &[]);

/// A shard with two quiet neighbours, one of each contract, and room for an attacker.
struct Street {
    rig: Rig,
    clock: Arc<VirtualClock>,
    neighbours: Vec<(Running, Vec<String>)>,
    beats: usize,
}

impl Street {
    fn new() -> Self {
        let clock = Arc::<VirtualClock>::default();
        let mut rig = Rig::on(Clock::Virtual(clock.clone()), 8, 4);
        let neighbours = [("first", PASS), ("second", AIO_PASS)];
        let neighbours =
            neighbours.map(|(name, link)| (rig.install(&tenant(name), "pass", &[link]), Vec::new()));
        Street { rig, clock, neighbours: neighbours.into(), beats: 0 }
    }

    /// Each neighbour is sent one message, and the shard turns a few times.
    fn beat(&mut self) {
        let beat = self.beats.to_string();
        self.beats += 1;
        for (neighbour, _) in &mut self.neighbours {
            neighbour.send(&[&beat]);
        }
        (0..4).for_each(|_| _ = self.turn());
        self.listen();
    }

    fn listen(&mut self) {
        for (neighbour, heard) in &mut self.neighbours {
            heard.extend(neighbour.receive());
        }
    }

    /// Whether there is more to do; waiting for a timer takes no time.
    fn turn(&mut self) -> bool {
        match self.rig.shard.turn() {
            Turn::Busy => true,
            Turn::Idle { until: Some(until) } => {
                let ahead = until.since(Clock::Virtual(self.clock.clone()).now());
                self.clock.advance(ahead.max(Duration::from_nanos(1)));
                true
            }
            Turn::Idle { until: None } | Turn::Stopped => false,
        }
    }

    /// Until all is done; gives what the attacker delivered meanwhile.
    fn settle(&mut self, attacker: &Running) -> Vec<String> {
        let mut delivered = Vec::new();
        for _ in 0..1_000_000 {
            let busy = self.turn();
            let new = attacker.receive();
            let nothing = new.is_empty();
            delivered.extend(new);
            self.listen();
            if !busy && nothing {
                return delivered;
            }
        }
        panic!("the shard is never idle");
    }

    /// Neighbours got all, in order, and lost nothing to anybody's fault.
    fn check_neighbours(&self, beside: &str) {
        let expected: Vec<_> = (0..self.beats).map(|beat| beat.to_string()).collect();
        for (neighbour, heard) in &self.neighbours {
            assert_eq!(*heard, expected, "{} beside {beside}", neighbour.plan.name());
            assert_eq!(neighbour.source.settled_upto(), self.beats as u64, "beside {beside}");
            assert_eq!(neighbour.plan.health(), Health::Running, "beside {beside}");
            let stats = &neighbour.plan.steps[0].operator.stats;
            assert_eq!((stats.faults.get(), stats.retries.get()), (0, 0), "beside {beside}");
            assert_eq!(neighbour.plan.tenant.ledger.bytes_in_flight(), 0, "beside {beside}");
        }
        let dead = self.dead();
        assert!(dead.iter().all(|letter| letter.tenant == ATTACKER), "beside {beside}: {dead:?}");
    }

    fn dead(&self) -> Vec<Record> {
        self.rig.dead.lock().expect("no panic").clone()
    }
}

const ATTACKER: &str = "attacker";

/// Checks every case, and says of all at once which failed.
fn check_all<'a>(cases: impl Iterator<Item = (&'a str, OperatorKind, Vec<(&'a str, &'a str)>, Fate)>) {
    let mut failed = Vec::new();
    for (guest, kind, configuration, fate) in cases {
        if std::panic::catch_unwind(|| check(guest, kind, &configuration, fate)).is_err() {
            failed.push(format!("{guest} as {kind:?} {configuration:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Three messages, the second guilty, beside neighbours that are sent twenty each.
fn check(guest: &str, kind: OperatorKind, configuration: &[(&str, &str)], fate: Fate) {
    let what = format!("{guest} as {kind:?} {configuration:?}");
    let mut street = Street::new();
    let mut flow = street.rig.install(&tenant(ATTACKER), "flow", &[(guest, kind, configuration)]);
    flow.send(&["one", "attack", "three"]);
    (0..20).for_each(|_| street.beat());
    let delivered = street.settle(&flow);
    street.check_neighbours(&what);
    let dead: Vec<_> = street.dead().into_iter().map(|letter| (letter.reason, letter.payload)).collect();
    let stats = &flow.plan.stats;
    if let Fails(words) = fate {
        assert_eq!((delivered.len(), dead.len()), (0, 0), "{what}: {delivered:?} {dead:?}");
        assert_eq!(flow.source.settled_upto(), 0, "{what}: settled, and never run");
        let health = flow.plan.health();
        assert!(
            matches!(&health, Health::Failed { cause, .. } if cause.contains(words)),
            "{what}: {health:?}"
        );
        return;
    }
    assert_eq!(flow.plan.health(), Health::Running, "{what}");
    assert_eq!(flow.source.settled_upto(), 1, "{what}: {dead:?}");
    assert_eq!(flow.plan.tenant.ledger.bytes_in_flight(), 0, "{what}");
    match fate {
        Passes => {
            assert_eq!((dead.len(), stats.errors.get()), (0, 0), "{what}: {dead:?}");
            let ends = (delivered.first().map(String::as_str), delivered.last().map(String::as_str));
            assert_eq!(ends, (Some("one"), Some("three")), "{what}");
            assert!(delivered.len() >= 3, "{what}: {delivered:?}");
        }
        Error => {
            assert_eq!((dead.len(), stats.errors.get()), (0, 1), "{what}: {dead:?}");
            assert_eq!(delivered, ["one", "three"], "{what}");
        }
        Dead(reason) => {
            assert_eq!(dead, [(reason, Some("attack".into()))], "{what}");
            assert_eq!(delivered, ["one", "three"], "{what}");
            let retries = if matches!(reason, Reason::Trap | Reason::MemoryRefused) { 2 } else { 0 };
            assert_eq!(flow.plan.steps[0].operator.stats.retries.get(), retries, "{what}");
        }
        Fails(_) => unreachable!("returned above"),
    }
}

fn configuration<'a>(attack: &'a str, amount: &'a str) -> Vec<(&'a str, &'a str)> {
    let amount = (!amount.is_empty()).then_some(("amount", amount));
    [("attack", attack)].into_iter().chain(amount).collect()
}

#[test]
fn only_the_guilty_message_of_a_batch_is_lost() {
    let cases = ATTACKS.iter().flat_map(|(attack, amount, fate)| {
        let kinds = if ONLY_MAPS.contains(attack) { &[Map][..] } else { &[Map, Filter, Branch] };
        kinds.iter().map(|kind| ("hostile_attacks", *kind, configuration(attack, amount), *fate))
    });
    check_all(cases);
}

#[test]
fn an_attack_in_init_fails_its_own_dataflow() {
    let in_init = IN_INIT.iter().map(|(attack, amount, fate)| {
        let mut configuration = configuration(attack, amount);
        configuration.push(("at", "init"));
        ("hostile_attacks", Map, configuration, *fate)
    });
    check_all(in_init.chain([("hostile_start", Map, Vec::new(), Fails("fuel"))]));
}

#[test]
fn output_that_no_host_can_read_loses_the_guilty_message_alone() {
    let cases = BREACHES.iter().flat_map(|(breach, spans, kinds)| {
        spans.iter().flat_map(move |span| {
            let configuration = vec![("breach", *breach), ("span", *span)];
            let fate = |kind| fate_of(breach, span, kind);
            kinds.iter().map(move |kind| ("hostile_layout", *kind, configuration.clone(), fate(*kind)))
        })
    });
    check_all(cases);
}

#[test]
fn a_flood_of_honest_work_takes_its_time_and_nobody_else_s() {
    let mut street = Street::new();
    let flood = Tenant::new(ATTACKER, Limits { inflight_bytes_max: 16 << 20, ..Limits::default() });
    let mut flow = street.rig.install(&flood, "flow", &[("hostile_busy", Map, &[("micros", "50")])]);
    let sent: Vec<_> = (0..4_000).map(|number| number.to_string()).collect();
    sent.chunks(250).for_each(|batch| _ = flow.send(batch));
    let mut heard_during = 0;
    while flow.source.settled_upto() < 16 {
        street.beat();
        flow.receive();
        heard_during = street.neighbours[0].1.len();
        assert!(street.beats < 100_000, "the flood never ends");
    }
    assert!(heard_during > 100, "neighbours waited for the flood: {heard_during} of {}", street.beats);
    street.settle(&flow);
    street.check_neighbours("a flood");
    let stats = &flow.plan.stats;
    assert_eq!((stats.delivered.get(), stats.dead.get(), stats.errors.get()), (4_000, 0, 0));
    assert!(street.dead().is_empty());
}

#[test]
fn a_call_is_not_charged_with_what_others_use_between_its_slices() {
    let mut street = Street::new();
    // Some sixteen slices each; twice that is allowed, and ten others have one in between.
    let limits = Limits {
        message_time_max: Duration::from_millis(4),
        message_fuel_max: 100_000_000,
        ..Limits::default()
    };
    let busy: &[Link<'_>] = &[("hostile_busy", Map, &[("micros", "2000")])];
    let mut flows: Vec<_> = (0..11)
        .map(|number| street.rig.install(&Tenant::new(format!("t{number}"), limits.clone()), "flow", busy))
        .collect();
    flows.iter_mut().for_each(|flow| _ = flow.send(&["one".to_owned()]));
    while flows.iter().any(|flow| flow.source.settled_upto() < 1) {
        street.beat();
        flows.iter_mut().for_each(|flow| _ = flow.receive());
        assert!(street.beats < 10_000, "they never end");
    }
    for flow in &flows {
        let stats = &flow.plan.stats;
        assert_eq!((stats.delivered.get(), stats.dead.get()), (1, 0), "{}", flow.plan.name());
    }
    assert!(street.dead().is_empty());
}

#[test]
fn a_careless_operator_s_messages_are_retried_given_up_or_delivered_and_none_is_lost() {
    let mut street = Street::new();
    let habits: &[_] = &[
        ("field", "temperature"),
        ("from", "C"),
        ("to", "F"),
        ("loop_one_in", "31"),
        ("trap_one_in", "23"),
        ("stumble_every", "7"),
    ];
    let mut flow = street.rig.install(&tenant(ATTACKER), "flow", &[("hostile_careless", Map, habits)]);
    let sent: Vec<_> = (0..400).map(|hour| format!(r#"{{"hour":{hour},"temperature":{hour}}}"#)).collect();
    for batch in sent.chunks(20) {
        flow.send(batch);
        street.beat();
    }
    let delivered = street.settle(&flow);
    street.check_neighbours("a careless operator");
    assert_eq!(flow.source.settled_upto(), 20);
    let mut reasons = BTreeMap::<String, usize>::new();
    let mut hours = BTreeSet::new();
    let hour = |payload: &str| {
        let value: serde_json::Value = serde_json::from_str(payload).expect("JSON");
        value["hour"].as_u64().expect("a number")
    };
    for letter in street.dead() {
        *reasons.entry(format!("{:?}", letter.reason)).or_default() += 1;
        assert!(hours.insert(hour(&letter.payload.expect("UTF-8"))), "given up twice");
    }
    assert_eq!(reasons.keys().collect::<Vec<_>>(), ["OutOfFuel", "Trap"], "{reasons:?}");
    for payload in &delivered {
        assert!(hours.insert(hour(payload)), "{payload} came out twice or was given up");
    }
    assert!(hours.into_iter().eq(0..400), "lost");
    let stats = &flow.plan.steps[0].operator.stats;
    assert!(stats.retries.get() > 2 * reasons["Trap"] as u64, "no stumble was mended by a retry");
}

/// Names of an enum's variants as a configuration writes them.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(hostile().join(source)).expect("a crate of the project");
    let (_, body) = text.split_once(&format!("enum {name} {{")).expect("the enum is there");
    let (body, _) = body.split_once("\n}").expect("it ends");
    let lines = body.lines().map(str::trim).filter_map(|line| line.strip_suffix(','));
    let kebab = |name: &str| {
        let mut text = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !text.is_empty() {
                text.push('-');
            }
            text.extend(c.to_lowercase());
        }
        text
    };
    lines.filter(|line| line.chars().all(char::is_alphanumeric)).map(kebab).collect()
}

fn hostile() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/hostile")
}

#[test]
fn every_hostile_operator_and_every_way_of_it_is_in_a_table() {
    let set = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect::<BTreeSet<_>>();
    let attacks = variants("attacks/src/lib.rs", "Attack");
    assert_eq!(set(&mut ATTACKS.iter().map(|(attack, ..)| *attack)), attacks);
    assert_eq!(set(&mut IN_INIT.iter().map(|(attack, ..)| *attack)), attacks);
    let breaches = variants("layout/src/lib.rs", "Breach");
    assert_eq!(set(&mut BREACHES.iter().map(|(breach, ..)| *breach)), breaches);
    let crates = fs::read_dir(hostile()).expect("a folder of the project").flatten();
    let crates: BTreeSet<_> = crates.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
    // The provider's is in `compose.rs`, that of the fickle one in `health.rs`.
    let tested = ["attacks", "busy", "careless", "fickle", "layout", "provider", "start"];
    assert_eq!(crates, set(&mut tested.into_iter()));
}
