//! Accumulate and delay on a shard of their own, on a virtual clock: windows of ten
//! seconds, who closes them, what becomes of what comes too late, and what a host that
//! was killed finds again.

use std::{collections::BTreeSet, fs::File, io::Write as _, path::Path, sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate::{
    batch::{Batch, BatchBuilder},
    clock::{Clock, VirtualClock},
    dataflow::{
        shard::Command,
        window::Keeping::{self, Durable, Volatile},
    },
    dead_letter::Reason,
    guest::OperatorKind::{Accumulate, Delay, Filter, Map},
    queue::{Marks, Places, SourceDoor},
    resource::{Late, Limits},
    store::Store,
    tenant::Tenant,
    write::SinkQueue,
};
use tidegate_benches::{
    rig::{Link, Rig, Running},
    site::chain,
};

use crate::{
    kafka,
    mosquitto::{Mosquitto, eventually, widening},
    outside::{Subscriber, publish_all},
    site::{Flow, payloads},
};

const ALIGN: Link<'_> = ("align", Delay, &[("seconds", "10")]);
const AGGREGATE: Link<'_> = ("aggregate", Accumulate, &[("field", "v")]);

struct Site {
    rig: Rig,
    clock: Arc<VirtualClock>,
    flow: Running,
}

impl Site {
    fn new(links: &[Link<'_>], late: Late) -> Self {
        Self::with(links, Limits { late, ..Limits::default() }, Durable)
    }

    fn with(links: &[Link<'_>], limits: Limits, keeping: Keeping) -> Self {
        let clock = Arc::<VirtualClock>::default();
        let mut rig = Rig::on(Clock::Virtual(clock.clone()), 8, 4);
        let plan = rig.plan(&Tenant::new("team", limits), "flow", links, SinkQueue::new(1 << 20));
        let mut plan = Arc::try_unwrap(plan).expect("nobody else has it");
        plan.keeping = keeping;
        let flow = rig.start(Arc::new(plan));
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
fn a_clock_far_ahead_closes_no_window_of_others() {
    let mut site = Site::new(&[ALIGN, AGGREGATE], Late::Drop);
    let wall = Clock::Virtual(site.clock.clone()).wall().as_secs() - START;
    // Two hours ahead, held to a minute: what comes within the minute is in time.
    assert_eq!(site.send(&[(wall, 1.0), (wall + 7_200, 9.0)]), [summary(1, 1.0, 1.0, 1.0)]);
    assert_eq!(site.flow.plan.stats.ahead.get(), 1);
    assert_eq!(site.send(&[(wall + 60, 2.0)]), [""; 0]);
    assert_eq!(site.flow.plan.stats.late.get(), 0);
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

#[test]
fn a_window_waits_for_what_is_still_on_its_way_to_it() {
    // Each message takes several slices between the delay and the accumulate.
    let busy = ("hostile_busy", Map, [("micros", "600")].as_slice());
    let mut site = Site::new(&[ALIGN, busy, AGGREGATE], Late::Drop);
    let closed = [summary(1, 1.0, 1.0, 1.0), summary(2, 5.0, 2.0, 3.0)];
    assert_eq!(site.send(&[(1, 1.0), (11, 2.0), (12, 3.0), (21, 4.0)]), closed);
    site.flow.source.end();
    assert_eq!(site.listen(), [summary(1, 4.0, 4.0, 4.0)]);
    assert_eq!(site.flow.plan.stats.late.get(), 0);
}

#[test]
fn volatile_windows_keep_their_deliveries_open_and_give_credit_back() {
    let mut site = Site::with(&[ALIGN, AGGREGATE], Limits::default(), Volatile);
    assert_eq!(site.send(&[(1, 10.0)]), [""; 0]);
    assert_eq!(site.send(&[(5, 20.0), (10, 2.0)]), [""; 0]);
    let in_flight = |site: &Site| site.flow.plan.tenant.ledger.bytes_in_flight();
    assert_eq!((site.flow.source.unsettled(), in_flight(&site)), (2, 0));
    // Written, and not confirmed: still open.
    site.flow.deliver(batch(&[(11, 7.0)]));
    site.rig.settle();
    let writes = site.flow.take();
    assert_eq!(writes.len(), 1);
    assert_eq!((site.flow.source.unsettled(), in_flight(&site)), (3, 0));
    writes.into_iter().for_each(|write| write.confirm(Vec::new()));
    site.rig.settle();
    // The first two are settled; what is open holds the third, and all behind it.
    assert_eq!(site.flow.source.unsettled(), 1);
    assert_eq!(site.send(&[(12, 7.0)]), [""; 0]);
    assert_eq!(site.flow.source.unsettled(), 2);
    site.flow.source.end();
    assert_eq!(site.listen(), [summary(2, 14.0, 7.0, 7.0)]);
    assert_eq!(site.flow.source.unsettled(), 0);
    let held = &site.flow.plan.tenant.window_bytes;
    assert_eq!(held.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_volatile_window_may_need_more_deliveries_than_may_be_under_way() {
    let mut site = Site::with(&[ALIGN, AGGREGATE], Limits::default(), Volatile);
    let deliveries = 3 * SourceDoor::UNSETTLED_MAX;
    for number in 0..deliveries {
        let batch = batch(&[(1, number as f64)]);
        let mut ctx = std::task::Context::from_waker(std::task::Waker::noop());
        let credit = site.flow.source.poll_credit(batch.arena.len(), &mut ctx);
        let std::task::Poll::Ready(credit) = credit else { panic!("no credit for delivery {number}") };
        site.flow.source.deliver(credit, batch);
        site.rig.settle();
    }
    assert_eq!(site.flow.source.unsettled(), deliveries);
    site.flow.source.end();
    let (most, count) = (deliveries - 1, deliveries);
    let sum = (count * most / 2) as f64;
    assert_eq!(site.listen(), [summary(count, sum, 0.0, most as f64)]);
    assert_eq!(site.flow.source.unsettled(), 0);
}

#[test]
fn what_volatile_windows_hold_is_bounded_by_policy() {
    for (window_bytes_max, absorbed) in [(8 << 10, false), (1 << 20, true)] {
        let limits = Limits { window_bytes_max, ..Limits::default() };
        let mut site = Site::with(&[ALIGN, AGGREGATE], limits, Volatile);
        for second in 0..200 {
            assert_eq!(site.send(&[(1 + second % 9, 1.0)]), [""; 0]);
        }
        let dead = site.rig.dead.lock().expect("no panic under this lock").len();
        assert_eq!(dead == 0, absorbed, "{dead} dead letters");
        let stats = &site.flow.plan.stats;
        assert_eq!(stats.absorbed.get() + dead as u64, 200);
    }
}

/// A delivery may have more of them than the guests get through in one slice.
const WINDOWS: u64 = 2_000;

/// Values over many windows, some of them out of order, each window's sum its own.
fn values() -> Vec<(u64, f64)> {
    (0..WINDOWS * 2).map(|number| (1 + (number ^ 3) * 5, f64::from(number as u32) * number as f64)).collect()
}

/// A host on a copy of what another had on disk, fed from where that was settled.
struct Life {
    site: Site,
    store: Store,
    from: usize,
}

impl Life {
    fn begin(dir: &Path, from: usize, links: &[Link<'_>], keeping: Keeping) -> Self {
        let store = Store::open(dir).expect("it can be opened");
        let clock = Arc::<VirtualClock>::default();
        let mut rig = Rig::on(Clock::Virtual(clock.clone()), 8, 4);
        let tenant = Tenant::new("team", Limits::default());
        let plan = rig.plan(&tenant, "flow", links, SinkQueue::new(1 << 20));
        let mut plan = Arc::try_unwrap(plan).expect("nobody else has it");
        plan.keeping = keeping;
        plan.window_space = store.window_space("team/flow").expect("it can be read");
        // Out of order by fifteen seconds at most.
        plan.timing.lateness = Duration::from_secs(16);
        let flow = rig.start(Arc::new(plan));
        Life { site: Site { rig, clock, flow }, store, from }
    }

    /// Delivers `values[range]`.
    fn deliver(&mut self, values: &[(u64, f64)], range: std::ops::Range<usize>) {
        let batch = batch(&values[range.clone()]);
        let places = Places {
            stream: [7, 0],
            is_one_of_many: false,
            ends: range.map(|index| index as u64 + 1).collect(),
        };
        let flow = &mut self.site.flow;
        let credit = flow.plan.tenant.ledger.try_acquire(batch.arena.len()).expect("credit");
        flow.source.deliver_marked(credit, batch, Some(Marks::Places(places)));
    }

    /// Goes to the end of its source.
    fn drain(&mut self, heard: &mut BTreeSet<String>) {
        self.site.flow.source.end();
        let (reply, mut removed) = tokio::sync::oneshot::channel();
        let remove = Command::Remove { dataflow: self.site.flow.id, drain: Duration::from_secs(60), reply };
        self.site.rig.door.send(remove);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while removed.try_recv().is_err() {
            assert!(std::time::Instant::now() < deadline, "it drains");
            self.site.rig.settle();
            heard.extend(self.site.flow.receive());
            std::thread::yield_now();
        }
    }
}

/// Copies a store at rest: sled tidies up in the background even after a flush.
fn copy(from: &Path, to: &Path) {
    let stamps = || {
        let mut stamps = BTreeSet::new();
        files_below(from, &mut |path| {
            // One that has just gone is a change as well.
            let stamp = std::fs::metadata(path).and_then(|data| Ok((data.len(), data.modified()?))).ok();
            stamps.insert((path.to_owned(), stamp));
        });
        stamps
    };
    loop {
        let before = stamps();
        let _ = std::fs::remove_dir_all(to);
        let mut is_whole = true;
        files_below(from, &mut |path| {
            let place = to.join(path.strip_prefix(from).expect("it is below"));
            std::fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
            is_whole &= std::fs::copy(path, place).is_ok();
        });
        if is_whole && stamps() == before {
            return;
        }
    }
}

fn files_below(folder: &Path, see: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => files_below(&entry.path(), see),
            false => see(&entry.path()),
        }
    }
}

/// What comes out over several lives that end without a word, each with windows kept as
/// `keeping` says; the last goes to the end.
fn outputs(
    rng: &mut StdRng,
    lives: usize,
    links: &[Link<'_>],
    keeping: impl Fn(&mut StdRng) -> Keeping,
) -> (BTreeSet<String>, u64) {
    let root = tempfile::tempdir().expect("a folder");
    let values = values();
    let (mut heard, mut recognised) = (BTreeSet::new(), 0);
    let mut from = 0;
    for life in 0..=lives {
        let dir = root.path().join(life.to_string());
        let mut host = Life::begin(&dir, from, links, keeping(rng));
        let (mut next, mut ends) = (from, vec![from]);
        let last = life == lives;
        let until = if last { values.len() } else { rng.random_range(next..=values.len()) };
        while next < until {
            let end = (next + rng.random_range(1..WINDOWS as usize)).min(until);
            host.deliver(&values, next..end);
            (next, _) = (end, ends.push(end));
            for _ in 0..rng.random_range(0..4) {
                // In the middle of a delivery, with all on disk that is to be there.
                (0..rng.random_range(0..20)).for_each(|_| _ = host.site.rig.shard.turn());
                host.store.flush().expect("it is written");
                heard.extend(host.site.flow.receive());
            }
        }
        if last {
            host.drain(&mut heard);
        } else {
            copy(&dir, &root.path().join((life + 1).to_string()));
            // Its source was told a little less than what was settled.
            let settled = host.site.flow.source.settled_upto() as usize;
            from = ends[settled - rng.random_range(0..=settled.min(2))].max(host.from);
        }
        recognised += host.site.flow.plan.stats.recognised.get();
    }
    (heard, recognised)
}

/// Lives cut short give what one whole life gives.
fn check_lives(links: &[Link<'_>], windows: usize, keeping: impl Fn(&mut StdRng) -> Keeping) {
    let (whole, none) = outputs(&mut StdRng::seed_from_u64(0), 0, links, |_| Durable);
    assert_eq!((whole.len(), none), (windows, 0));
    let mut recognised = 0;
    for seed in 0..12 {
        let (cut, again) = outputs(&mut StdRng::seed_from_u64(seed), 4, links, &keeping);
        let differ: Vec<_> = cut.symmetric_difference(&whole).take(4).collect();
        assert!(differ.is_empty(), "seed {seed}: {differ:?}");
        recognised += again;
    }
    assert!(recognised > 0, "some messages came again");
}

#[test]
fn lives_cut_short_at_any_moment_give_the_same_windows() {
    check_lives(&[ALIGN, AGGREGATE], WINDOWS as usize, |_| Durable);
}

#[test]
fn volatile_lives_cut_short_at_any_moment_give_the_same_windows() {
    check_lives(&[ALIGN, AGGREGATE], WINDOWS as usize, |_| Volatile);
}

#[test]
fn a_dataflow_may_keep_its_windows_otherwise_from_life_to_life() {
    let either = |rng: &mut StdRng| if rng.random() { Durable } else { Volatile };
    check_lives(&[ALIGN, AGGREGATE], WINDOWS as usize, either);
}

#[test]
fn windows_of_windows_are_whole_after_lives_cut_short() {
    let minutes = ("align", Delay, [("seconds", "60")].as_slice());
    let sums = ("aggregate", Accumulate, [("field", "sum")].as_slice());
    let links = [ALIGN, AGGREGATE, minutes, sums];
    check_lives(&links, (WINDOWS as usize).div_ceil(6), |_| Durable);
    check_lives(&links, (WINDOWS as usize).div_ceil(6), |_| Volatile);
}

/// What is complete at once leaves in pieces, and a life may end between two of them.
#[test]
fn a_release_in_pieces_is_whole_after_a_life_cut_short() {
    let mut values = vec![(1, 1.0); 5_000];
    values.push((100, 0.0));
    let mut whole = BTreeSet::new();
    for turns in 0..40 {
        let root = tempfile::tempdir().expect("a folder");
        let begin = |dir: &Path, from| {
            let mut host = Life::begin(dir, from, &[ALIGN, AGGREGATE], Durable);
            if from == 0 {
                host.deliver(&values, 0..values.len());
            }
            host
        };
        let mut heard = BTreeSet::new();
        let mut host = begin(&root.path().join("0"), 0);
        if turns == 0 {
            host.drain(&mut whole);
            assert!(whole.contains(&summary(5_000, 5_000.0, 1.0, 1.0)), "{whole:?}");
            continue;
        }
        for _ in 0..turns {
            host.site.rig.shard.turn();
            host.store.flush().expect("it is written");
        }
        heard.extend(host.site.flow.receive());
        copy(&root.path().join("0"), &root.path().join("1"));
        let settled = host.site.flow.source.settled_upto() as usize;
        begin(&root.path().join("1"), settled * values.len()).drain(&mut heard);
        assert_eq!(heard, whole, "after {turns} turns");
    }
}

/// Readings of one minute with their times, and one of the next that closes it.
fn minute(messages: u64) -> impl Iterator<Item = (String, Vec<u8>, PublishProperties)> {
    let ms = move |number: u64| START * 60_000 + 1 + number * 59_998 / messages;
    let last = (START * 60_000 + 61_000, 0);
    (0..messages).map(move |number| (ms(number), number)).chain([last]).map(|(ms, value)| {
        let user_properties = vec![("__ts".into(), format!("{ms:015}:00000:outside"))];
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        ("a/in".to_owned(), format!(r#"{{"v":{value}}}"#).into_bytes(), properties)
    })
}

#[test]
fn mqtt_a_window_is_larger_than_what_a_broker_leaves_unacknowledged() {
    // Twenty messages in flight, as mosquitto has it by itself.
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let site = crate::site::Site::new("{}", &[("local", &spec)]);
    site.flow(&Flow {
        tenant: "a",
        name: "flow",
        from: ("local", "a/in"),
        to: ("local", "a/out"),
        operators: &[("delay", "align"), ("accumulate", "aggregate")],
    });
    let links = [
        chain::Link { kind: "delay", module: "align", configuration: &[("seconds", "60")] },
        chain::Link { kind: "accumulate", module: "aggregate", configuration: &[("field", "v")] },
    ];
    site.write("tenants/a/artifacts/flow/1.yaml", &chain::graph("flow", &links));
    let subscriber = Subscriber::new(broker.port, "a/out");
    let up = site.up();
    const MESSAGES: u64 = 100_000;
    publish_all(broker.port, minute(MESSAGES));
    eventually("the minute is over", || subscriber.len() == 1);
    let sum = (MESSAGES * (MESSAGES - 1) / 2) as f64;
    let payload = String::from_utf8(subscriber.received()[0].payload.to_vec()).expect("text");
    assert_eq!(payload, summary(MESSAGES, sum, 0.0, (MESSAGES - 1) as f64));
    assert_eq!(site.counter("a", "absorbed"), 2 * MESSAGES + 1);
    assert_eq!(site.counter("a", "dead") + site.counter("a", "late"), 0);
    drop(up);
}

/// A line of a file: a value and its second.
fn line(second: u64) -> String {
    let time = format!("{:015}:00000:a", (START + second) * 1000);
    format!("{{\"topic\":\"in\",\"payload\":{{\"v\":{second}}},\"properties\":[[\"__ts\",\"{time}\"]]}}\n")
}

/// A dataflow of windows of ten seconds.
fn tens(endpoints: &[(&str, &str)], from: (&str, &str), to: (&str, &str)) -> crate::site::Site {
    let site = crate::site::Site::new("{ shards: 1 }", endpoints);
    let operators = &[("delay", "align"), ("accumulate", "aggregate")];
    site.flow(&Flow { tenant: "a", name: "flow", from, to, operators });
    let links = [
        chain::Link { kind: "delay", module: "align", configuration: &[] },
        chain::Link { kind: "accumulate", module: "aggregate", configuration: &[("field", "v")] },
    ];
    site.write("tenants/a/artifacts/flow/1.yaml", &chain::graph("flow", &links));
    site
}

/// JSON with its keys in order.
fn canonical(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json).expect("it is JSON").to_string()
}

/// The first windows of [`tens`], each second its own value.
fn first(windows: u64) -> BTreeSet<String> {
    let whole = |window| {
        let values = (window * 10 + 1..=window * 10 + 10).map(|value| value as f64);
        let (min, max) = ((window * 10 + 1) as f64, (window * 10 + 10) as f64);
        canonical(&summary(10, values.sum(), min, max))
    };
    (0..windows).map(whole).collect()
}

/// Kills a host ten times while `give` gives it seconds, each its own value, in the middle
/// of what it takes in; then what comes out of the next one. Windows that should not have,
/// and windows that did not.
fn killed(
    site: &crate::site::Site,
    plant: &str,
    windows: u64,
    mut give: impl FnMut(std::ops::RangeInclusive<u64>),
    heard: impl Fn() -> BTreeSet<String>,
) -> (Vec<String>, Vec<String>) {
    // The last one opens a window that stays open.
    let seconds = windows * 10 + 1;
    let mut rng = StdRng::seed_from_u64(3);
    let mut given = 0;
    for life in 0..10 {
        let host = site.up_planted(plant);
        let until = seconds * (life + 1) / 10;
        give(given + 1..=until);
        let goal = rng.random_range(1..until - given);
        given = until;
        eventually("some of it is taken in", || {
            site.counter("a", "absorbed") + site.counter("a", "recognised") >= goal
        });
        host.kill();
    }
    let host = site.up_planted(plant);
    let expected = first(windows);
    eventually("every window is closed", || heard().len() >= expected.len());
    drop(host);
    let heard: BTreeSet<String> = heard().iter().map(|summary| canonical(summary)).collect();
    let (strange, missing) = (heard.difference(&expected), expected.difference(&heard));
    (strange.take(3).cloned().collect(), missing.take(3).cloned().collect())
}

const FILES: [(&str, &str); 2] = [
    ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
    ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
];

/// Says how the dataflow of a site keeps its windows.
fn keep(site: &crate::site::Site, keeping: Keeping) {
    let path = "tenants/a/dataflows/flow.yaml";
    let text = std::fs::read_to_string(site.dir().join(path)).expect("it was written");
    let kept = if keeping == Volatile { "volatile" } else { "durable" };
    let annotated = format!("metadata: {{ name: flow, annotations: {{ tidegate.dev/windows: {kept} }} }}");
    assert!(text.contains("metadata: { name: flow }"));
    site.write(path, &text.replace("metadata: { name: flow }", &annotated));
}

/// A file that grows while the host reads it.
fn killed_over_a_file(plant: &str, keeping: Keeping) -> (Vec<String>, Vec<String>) {
    let site = tens(&FILES, ("in", "in"), ("out", "out"));
    keep(&site, keeping);
    let mut file =
        File::options().create(true).append(true).open(site.dir().join("in.jsonl")).expect("a file");
    let give = |seconds: std::ops::RangeInclusive<u64>| {
        let lines: String = seconds.map(line).collect();
        file.write_all(lines.as_bytes()).expect("it is written");
    };
    let heard = || BTreeSet::from_iter(payloads(&site.dir().join("out.jsonl")));
    killed(&site, plant, 2_000, give, heard)
}

/// A broker that sends again what was not acknowledged.
fn killed_over_mqtt(plant: &str) -> Option<(Vec<String>, Vec<String>)> {
    let broker = Mosquitto::start(&[])?;
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let site = tens(&[("local", &spec)], ("local", "a/in"), ("local", "a/out"));
    let subscriber = Subscriber::new(broker.port, "a/out");
    let give = |seconds: std::ops::RangeInclusive<u64>| publish_seconds(broker.port, seconds);
    Some(killed(&site, plant, 1_000, give, || summaries_of(&subscriber)))
}

/// Publishes messages as those of [`line`].
fn publish_seconds(port: u16, seconds: std::ops::RangeInclusive<u64>) {
    let message = |second| {
        let user_properties = vec![("__ts".into(), format!("{:015}:00000:a", (START + second) * 1000))];
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        ("a/in".to_owned(), format!(r#"{{"v":{second}}}"#).into_bytes(), properties)
    };
    publish_all(port, seconds.map(message));
}

fn summaries_of(subscriber: &Subscriber) -> BTreeSet<String> {
    let text = |message: &rumqttc::v5::mqttbytes::v5::Publish| {
        String::from_utf8(message.payload.to_vec()).expect("text")
    };
    subscriber.received().iter().map(text).collect()
}

#[test]
fn a_host_killed_again_and_again_gives_each_window_of_a_file_whole() {
    assert_eq!(killed_over_a_file("", Durable), (vec![], vec![]));
}

#[test]
fn a_host_killed_again_and_again_gives_each_volatile_window_of_a_file_whole() {
    assert_eq!(killed_over_a_file("", Volatile), (vec![], vec![]));
}

/// Appends lines to the file that a site reads, at once: one delivery.
fn append(site: &crate::site::Site, seconds: std::ops::RangeInclusive<u64>) {
    let path = site.dir().join("in.jsonl");
    let mut file = File::options().create(true).append(true).open(path).expect("a file");
    let lines: String = seconds.map(line).collect();
    file.write_all(lines.as_bytes()).expect("it is written");
}

/// The first three windows of ten seconds.
fn three_windows() -> BTreeSet<String> {
    let whole = [(55.0, 1), (155.0, 11), (255.0, 21)];
    let whole = whole.map(|(sum, min)| summary(10, sum, f64::from(min), f64::from(min + 9)));
    whole.iter().map(|summary| canonical(summary)).collect()
}

/// What is given of three windows when the host is stopped once the source has to begin
/// again in the middle of the second one, which was given before.
fn stopped_in_the_middle(plant: &str) -> BTreeSet<String> {
    let site = tens(&FILES, ("in", "in"), ("out", "out"));
    keep(&site, Volatile);
    let heard = || BTreeSet::from_iter(payloads(&site.dir().join("out.jsonl")));
    let up = site.up_planted(plant);
    append(&site, 1..=14);
    eventually("one window is given", || heard().len() == 1);
    append(&site, 15..=27);
    eventually("two windows are given", || heard().len() == 2);
    eventually("the first lines are needed no more", || site.counter("a", "settled") == 1);
    up.stop();
    let up = site.up_planted(plant);
    append(&site, 28..=31);
    let third = three_windows().pop_last().expect("there are three");
    let is_third = |summary: &String| canonical(summary) == third;
    eventually("the third window is given", || heard().iter().any(is_third));
    drop(up);
    heard().iter().map(|summary| canonical(summary)).collect()
}

#[test]
fn what_is_read_again_from_the_middle_of_a_window_gives_no_part_of_it() {
    assert_eq!(stopped_in_the_middle(""), three_windows());
}

#[test]
fn volatile_windows_that_forgot_what_they_gave_would_be_found() {
    let part = canonical(&summary(6, 105.0, 15.0, 20.0));
    assert!(stopped_in_the_middle("partial-window").contains(&part), "the second window, in part");
}

#[test]
fn a_host_that_is_stopped_waits_for_no_volatile_window() {
    let site = tens(&FILES, ("in", "in"), ("out", "out"));
    keep(&site, Volatile);
    let up = site.up();
    append(&site, 1..=24);
    eventually("it is taken in", || site.counter("a", "absorbed") >= 24);
    let begun = std::time::Instant::now();
    up.stop();
    // Far less than it would wait for what is under way.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let up = site.up();
    append(&site, 25..=31);
    let heard = || BTreeSet::from_iter(payloads(&site.dir().join("out.jsonl")));
    eventually("three windows are closed", || heard().len() >= 3);
    drop(up);
    let heard: BTreeSet<String> = heard().iter().map(|summary| canonical(summary)).collect();
    assert_eq!(heard, three_windows());
}

#[test]
fn mqtt_a_host_killed_again_and_again_gives_each_window_whole() {
    let Some(windows) = killed_over_mqtt("") else { return };
    assert_eq!(windows, (vec![], vec![]));
}

/// Each partition has a clock of its own: what is read of one while another is far behind is late
/// for nobody, over a kill as well.
#[test]
fn kafka_a_backlog_of_several_partitions_is_in_time_for_its_windows() {
    const PARTITIONS: u64 = 4;
    const WINDOWS: u64 = 400;
    let Some(server) = kafka::Server::shared() else { return };
    server.topic("backlog", PARTITIONS as u32);
    // More than is fetched of one partition at once.
    let pad = "x".repeat(4 << 10);
    let record = |second: u64| {
        let value = format!(r#"{{"v":{second},"pad":"{pad}"}}"#);
        let time = format!("{:015}:00000:a", (START + second) * 1000);
        ((second % PARTITIONS) as i32, value, time)
    };
    server.send_timed("backlog", (1..=WINDOWS * 10 + 1).map(record));
    let from = kafka::endpoint(&server.address(), "backlog", "");
    let site = tens(&[("in", &from), FILES[1]], ("in", "backlog"), ("out", "out"));
    let heard = || BTreeSet::from_iter(payloads(&site.dir().join("out.jsonl")));
    let host = site.up();
    eventually("some are closed", || heard().len() as u64 >= WINDOWS / 4);
    assert_eq!(site.counter("a", "late"), 0);
    host.kill();
    let host = site.up();
    eventually("every window is closed", || heard().len() as u64 >= WINDOWS);
    assert_eq!(site.counter("a", "late"), 0);
    drop(host);
    let heard: BTreeSet<String> = heard().iter().map(|summary| canonical(summary)).collect();
    assert_eq!(heard.difference(&first(WINDOWS)).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(heard.len() as u64, WINDOWS);
}

/// Having been without its client, mosquitto sends all that waited, however few messages
/// the client allows at once; and it may not hear of one of them that it was taken.
#[test]
fn mqtt_all_that_a_broker_was_never_told_of_is_recognised() {
    const WINDOWS: u64 = 1_000;
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    // mosquitto 2.0.11 comes to send more than a client wants open by itself, later ones
    // do not.
    let network = widening(broker.port);
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", network.address());
    let site = tens(&[("local", &spec)], ("local", "a/in"), ("local", "a/out"));
    let subscriber = Subscriber::new(broker.port, "a/out");
    let host = site.up();
    publish_seconds(broker.port, 1..=1);
    eventually("the first is taken in", || site.counter("a", "absorbed") > 0);
    network.deafen();
    publish_seconds(broker.port, 2..=WINDOWS * 10 + 1);
    eventually("both operators have taken in all", || site.counter("a", "absorbed") > 2 * WINDOWS * 10);
    host.kill();
    network.admit();
    let host = site.up();
    eventually("every window is heard", || summaries_of(&subscriber).len() as u64 >= WINDOWS);
    eventually("all come again", || site.counter("a", "recognised") >= WINDOWS * 10);
    assert_eq!(site.counter("a", "late"), 0);
    drop(host);
    let heard: BTreeSet<String> =
        summaries_of(&subscriber).iter().map(|summary| canonical(summary)).collect();
    assert_eq!(heard, first(WINDOWS));
}

#[test]
fn mqtt_windows_that_took_in_twice_what_they_have_would_be_found() {
    assert!(!killed_over_a_file("count-twice", Durable).0.is_empty(), "some windows have too much");
    let Some((strange, _)) = killed_over_mqtt("count-twice") else { return };
    assert!(!strange.is_empty(), "some windows have too much");
}
