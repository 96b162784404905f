//! Every hostile operator beside live neighbours on its shard: what is its own fault is
//! given up with the right reason, or its dataflow is reported failed, and neighbours
//! get all that they were sent. On a virtual clock, so that an attacker's fuel and time
//! run out in the same place on every machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidegate::{
    batch::BatchBuilder,
    clock::{Clock, VirtualClock},
    dataflow::{
        plan::Health,
        shard::{Census, Command, Turn},
    },
    dead_letter::{Reason, Record},
    guest::OperatorKind::Map,
    resource::Limits,
    tenant::Tenant,
};
use tidegate_benches::{
    attacks::{self, Alive, At, Attack, Fate, hostile},
    rig::{Link, Rig, Running, patient, tenant},
};
use tokio::sync::oneshot;

/// Instances that a street has room for.
const SLOTS: usize = 8;

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
        let mut rig = Rig::on(Clock::Virtual(clock.clone()), SLOTS, 4);
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
                // What is held for ever nobody waits for.
                if ahead > WAITED_FOR_MAX {
                    return false;
                }
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

/// Longest time that a test lets pass where nothing else happens.
const WAITED_FOR_MAX: Duration = Duration::from_secs(24 * 3600);

const ATTACKER: &str = "attacker";

/// The host's answer to a command that the shard takes in its next turn.
fn ask<T>(street: &mut Street, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
    let (tx, mut rx) = oneshot::channel();
    street.rig.door.send(command(tx));
    for _ in 0..1_000_000 {
        if let Ok(answer) = rx.try_recv() {
            return answer;
        }
        street.turn();
    }
    panic!("the shard never answers");
}

/// Checks every attack, and says of all at once which failed.
fn check_all(attacks: impl Iterator<Item = Attack>) {
    let mut failed = Vec::new();
    let mut count = 0;
    for attack in attacks {
        count += 1;
        if std::panic::catch_unwind(|| check(&attack)).is_err() {
            failed.push(format!("{} as {:?}", attack.name, attack.kind));
        }
    }
    assert!(count > 0, "no attack at all");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Three messages beside neighbours that are sent twenty each; then the attacker goes, and
/// all that it had must be there again.
fn check(attack: &Attack) {
    let what = format!("{} as {:?}", attack.name, attack.kind);
    let mut street = Street::new();
    let attacker = Tenant::new(ATTACKER, patient(attack.limits()));
    let parameters = attack.parameters();
    let link = (attack.guest.as_str(), attack.kind.operator(), &parameters[..]);
    let mut flow = street.rig.install(&attacker, "flow", &vec![link; attack.operators]);
    flow.deliver(batch(attack));
    let beats = (0..20).map(|_| street.beat()).count();
    let heard = street.neighbours.iter().map(|(_, heard)| heard.len()).min();
    assert!(heard >= Some(beats / 2), "{what}: neighbours waited, and heard {heard:?} of {beats}");
    let delivered = street.settle(&flow);
    street.check_neighbours(&what);
    check_fate(attack, &what, &flow, &delivered, &street.dead());
    check_ran(attack, &what, &flow);
    check_left_nothing(&mut street, flow, &what);
}

fn batch(attack: &Attack) -> tidegate::batch::Batch {
    let mut builder = BatchBuilder::new("host");
    let properties = || attack.properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    let payloads = attack.payloads();
    payloads.iter().for_each(|payload| builder.push(b"in", None, payload.as_bytes(), properties()));
    builder.finish()
}

fn check_fate(attack: &Attack, what: &str, flow: &Running, delivered: &[String], dead: &[Record]) {
    let Fate::Alive(Alive::Fails) = attack.fate else {
        assert_eq!(flow.plan.health(), Health::Running, "{what}");
        assert_eq!(flow.source.settled_upto(), 1, "{what}: {dead:?}");
        assert_eq!(flow.plan.tenant.ledger.bytes_in_flight(), 0, "{what}");
        return check_messages(attack, what, flow, delivered, dead);
    };
    assert_eq!((delivered.len(), dead.len()), (0, 0), "{what}: {delivered:?} {dead:?}");
    assert_eq!(flow.source.settled_upto(), 0, "{what}: settled, and never run");
    let (health, words) = (flow.plan.health(), attack.words.as_deref().expect("what it says"));
    assert!(matches!(&health, Health::Failed { cause, .. } if cause.contains(words)), "{what}: {health:?}");
}

fn check_messages(attack: &Attack, what: &str, flow: &Running, delivered: &[String], dead: &[Record]) {
    let (payloads, guilty) = (attack.payloads(), attack.guilty());
    let of = |are_guilty: bool| {
        let all = payloads.iter().enumerate();
        let some = all.filter(|(index, _)| guilty.contains(index) == are_guilty);
        some.map(|(_, payload)| payload.clone()).collect::<Vec<_>>()
    };
    let words = attack.words.as_deref().unwrap_or_default();
    let silent = dead.iter().find(|letter| !letter.detail.contains(words));
    assert!(silent.is_none(), "{what}: `{words}` is not in {silent:?}");
    let dead: Vec<_> = dead.iter().map(|letter| (letter.reason, letter.payload.clone())).collect();
    let stats = &flow.plan.stats;
    match attack.fate {
        Fate::Alive(Alive::Passes) => {
            assert_eq!((dead.len(), stats.errors.get()), (0, 0), "{what}: {dead:?}");
            let innocent = of(false);
            let passed = |payload: &String| delivered.contains(payload);
            assert!(innocent.iter().all(passed) && delivered.len() >= 3, "{what}: {delivered:?}");
        }
        Fate::Alive(Alive::Error) => {
            assert_eq!((dead.len() as u64, stats.errors.get()), (0, of(true).len() as u64), "{what}");
            assert_eq!(delivered, of(false), "{what}");
        }
        Fate::Alive(Alive::Held) => {
            assert_eq!((dead.len(), stats.errors.get(), delivered.len()), (0, 0, 0), "{what}: {dead:?}");
        }
        Fate::Dead(reason) => {
            let expected: Vec<_> = of(true).into_iter().map(|payload| (reason, Some(payload))).collect();
            assert_eq!(dead, expected, "{what}");
            assert_eq!(delivered, of(false), "{what}");
            let tries = if matches!(reason, Reason::Trap | Reason::MemoryRefused) { 2 } else { 0 };
            let retries = flow.plan.steps[0].operator.stats.retries.get();
            assert_eq!(retries, tries * of(true).len() as u64, "{what}");
        }
        Fate::Alive(Alive::Fails | Alive::Refused) => unreachable!("{what} is no message's fate"),
    }
}

/// What passes must have cost something, and every counter of the list must be there: an
/// attack that did nothing would pass as well.
fn check_ran(attack: &Attack, what: &str, flow: &Running) {
    let (plan, tenant) = (&flow.plan, &flow.plan.tenant);
    let operator = &plan.steps[0].operator;
    let usage = tenant.keys.usage();
    for (name, least) in &attack.counts {
        let count = match name.as_str() {
            "absorbed" => plan.stats.absorbed.get(),
            "ahead" => plan.stats.ahead.get(),
            "retired" => plan.operators().map(|operator| operator.stats.retired.get()).sum(),
            "series" => operator.metrics.read().len() as u64,
            "stateKeys" => usage.map_or(0, |usage| usage.keys),
            "stateBytes" => usage.map_or(0, |usage| usage.bytes),
            "stateRefused" => tenant.keys.refused(),
            other => panic!("{what}: nobody counts `{other}`"),
        };
        assert!(count >= *least, "{what}: {name} is {count}");
    }
    assert!(operator.metrics.read().len() <= tidegate::guest::metrics::SERIES_MAX as usize, "{what}");
    let state = tenant.limits.state;
    assert!(
        usage.is_none_or(|usage| usage.keys <= state.keys_max && usage.bytes <= state.bytes_max),
        "{what}"
    );
    if attack.fate == Fate::Alive(Alive::Passes) && attack.at == At::Message && attack.counts.is_empty() {
        let (fuel, without) = (operator.stats.fuel.get(), innocent_fuel(attack));
        assert_ne!(fuel, without, "{what} uses as much fuel as what does not attack");
    }
}

/// What the guest uses on messages of which none is guilty; what a pass-through uses, if
/// there are none such.
fn innocent_fuel(attack: &Attack) -> u64 {
    let mut street = Street::new();
    let parameters = attack.parameters();
    let link = match attack.trigger {
        Some(_) => (attack.guest.as_str(), attack.kind.operator(), &parameters[..]),
        None => PASS,
    };
    let mut flow = street.rig.install(&tenant(ATTACKER), "flow", &[link]);
    let sent = attack.payloads().map(|payload| match &attack.trigger {
        Some(trigger) => payload.replace(trigger, "two"),
        None => payload,
    });
    flow.send(&sent);
    assert_eq!(street.settle(&flow).len(), 3, "{}: innocent messages pass", attack.name);
    flow.plan.steps[0].operator.stats.fuel.get()
}

/// Once the attacker is gone, nothing of it is left: no dataflow, no instance, no slot.
fn check_left_nothing(street: &mut Street, flow: Running, what: &str) {
    let tenant = flow.plan.tenant.clone();
    let dataflow = flow.id;
    drop(flow);
    let drain = Duration::from_secs(1);
    ask(street, |reply| Command::Remove { dataflow, drain, reply });
    let census = ask(street, |reply| Command::Census { reply });
    assert_eq!(tenant.instances.load(Ordering::Relaxed), 0, "{what}: instances of the attacker");
    assert_eq!(tenant.window_bytes.load(Ordering::Relaxed), 0, "{what}: windows of the attacker");
    let neighbours = street.neighbours.iter().map(|(neighbour, _)| &neighbour.plan.tenant.instances);
    let instances: u32 = neighbours.map(|instances| instances.load(Ordering::Relaxed)).sum();
    let instances = instances as usize;
    assert_eq!(census, Census { dataflows: 2, instances, instances_idle: instances }, "{what}");
    // All slots can be had again.
    let pass = [PASS; SLOTS];
    let mut flow = street.rig.install(&self::tenant("after"), "flow", &pass);
    flow.send(&["all"]);
    assert_eq!(street.settle(&flow), ["all"], "{what}");
    let retired: u64 = flow.plan.operators().map(|operator| operator.stats.retired.get()).sum();
    assert_eq!(retired, 0, "{what}: fewer than {SLOTS} slots are left");
}

/// What a shard stepped by hand can show.
fn on_a_street(attack: &Attack) -> bool {
    attack.at != At::Deploy && attack.through.is_none() && attack.shown_by.is_none()
}

#[test]
fn every_attack_gets_what_the_list_says_and_neighbours_get_all_that_is_theirs() {
    check_all(attacks::all().into_iter().filter(on_a_street));
}

#[test]
fn every_attack_gets_the_same_as_another_kind_of_operator() {
    let attacks = attacks::all();
    let others = attacks.iter().filter(|attack| on_a_street(attack));
    check_all(others.flat_map(|attack| attack.also.iter().map(|kind| attack.as_kind(*kind))));
}

#[test]
fn below_the_limit_the_same_operators_pass() {
    let attacks = attacks::all();
    let twins = attacks.iter().filter(|attack| on_a_street(attack));
    check_all(twins.filter_map(|attack| Some(attack.as_twin(attack.twin.as_ref()?))));
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

#[test]
fn the_list_has_every_attack_that_is_asked_for_and_every_hostile_operator() {
    let attacks = attacks::all();
    let names: BTreeSet<_> = attacks.iter().map(|attack| attack.name.as_str()).collect();
    assert_eq!(names.len(), attacks.len(), "a name is there twice");
    for name in ASKED_FOR.iter().flat_map(|names| names.split(' ')) {
        assert!(names.contains(name), "`{name}` is not in the list");
    }
    let likes = attacks.iter().filter_map(|attack| attack.like.as_deref());
    likes.for_each(|like| assert!(names.contains(like), "nothing is named `{like}`"));
    assert!(attacks.iter().filter(|attack| attack.like.is_none()).count() >= 24);

    let values = |guest: &str, key: &str| {
        let of_guest = attacks.iter().filter(|attack| attack.guest == guest);
        of_guest.filter_map(|attack| attack.configuration.get(key).cloned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(values("hostile_attacks", "attack"), variants("attacks/src/lib.rs", "Attack"));
    assert_eq!(values("hostile_layout", "breach"), variants("layout/src/lib.rs", "Breach"));

    let guests: BTreeSet<_> = attacks.iter().map(|attack| attack.guest.clone()).collect();
    assert_eq!(guests, compiled().chain(made()).collect());
    let root = hostile().join("../..");
    for attack in attacks {
        assert!(attack.rate > 0 && !attack.gets.is_empty(), "{}", attack.name);
        let does = attack.configuration.get("attack").or(attack.configuration.get("breach"));
        if does.is_some_and(|does| NOT_INTERRUPTIBLE.contains(&does.as_str())) {
            assert!(!attack.interruptible, "{}", attack.name);
        }
        let shown = |path: &String| root.join(path).is_file();
        assert!(attack.shown_by.as_ref().is_none_or(shown), "{}: {:?}", attack.name, attack.shown_by);
        // What is refused or fails says why; a dead letter may.
        let says = match attack.fate {
            Fate::Dead(_) => attack.words.is_some(),
            Fate::Alive(fate) => matches!(fate, Alive::Refused | Alive::Fails) && attack.shown_by.is_none(),
        };
        assert_eq!(attack.words.is_some(), says, "{}", attack.name);
    }
}

/// Components of the crates of `tenants/hostile`.
fn compiled() -> impl Iterator<Item = String> {
    let entries = fs::read_dir(hostile()).expect("a folder of the project").flatten();
    let crates = entries.filter(|entry| entry.path().join("Cargo.toml").is_file());
    crates.map(|entry| format!("hostile_{}", entry.file_name().to_string_lossy().replace('-', "_")))
}

/// Components that xtask makes.
fn made() -> impl Iterator<Item = String> {
    let path = hostile().join("../../xtask/src/made.rs");
    let text = fs::read_to_string(path).expect("a file of the project");
    let (_, list) = text.split_once("let made = [\n").expect("the list is there");
    let (list, _) = list.split_once("\n    ];").expect("it ends");
    let names = list.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next());
    let names: Vec<_> = names.map(|name| format!("hostile_{name}")).collect();
    assert!(names.len() > 5, "{names:?}");
    names.into_iter()
}

/// Ways of attack that are one instruction, one page of many, or one copy out of a guest.
const NOT_INTERRUPTIBLE: [&str; 11] = [
    "allocate",
    "bytes",
    "copy",
    "fill",
    "grow",
    "list-enormous",
    "long-labels",
    "messages",
    "pour",
    "swell",
    "write",
];

/// What a host that runs strangers' operators is asked to stand, a line for each sentence.
const ASKED_FOR: [&str; 24] = [
    "endless-loop endless-loop-in-init endless-loop-in-start",
    "deep-recursion",
    "grow-to-the-limit grow-and-touch grow-table",
    "allocation-churn",
    "trap-loop",
    "output-flood-by-count output-flood-by-bytes",
    "one-giant-message",
    "log-flood",
    "metric-label-explosion",
    "state-flood-by-keys state-flood-by-bytes state-flood-by-one-huge-value",
    "host-call-flood",
    "just-under-the-limit",
    "flood-of-50-us-calls",
    "memory-fill memory-copy",
    "packed-offset-beyond packed-length-beyond",
    "invalid-utf8 enormous-list",
    "ten-thousand-imports ten-thousand-functions huge-data-segment",
    "compile-bomb huge-component deploy-storm",
    "instance-churn slow-trickle",
    "poison-message",
    "far-future-ts",
    "topic-escape-wildcard topic-escape-sys topic-escape-share topic-escape-neighbour",
    "handle-forgery",
    "random-bytes",
];
