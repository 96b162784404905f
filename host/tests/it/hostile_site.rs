//! Attacks on a whole host: on what a broker is on the other side of, and on deploys. A
//! neighbour's messages go round all the while, each sent once the one before it is back.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate_benches::rig::guest_path;

use tidegate_benches::attacks::{self, Alive, At, Attack, Fate};

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{eventually, free_port},
    outside::{Pulse, Subscriber, publish_all},
    process::{Host, Output},
};

const NEIGHBOUR: &str = "neighbour";

/// Round trips that a neighbour makes in a second at the least. On an idle machine it makes
/// twenty, because the broker inside waits for the acknowledgement of what it sent before.
const BEATS_A_SECOND_MIN: f64 = 5.0;

/// Longest that one round trip may take.
const BEAT_MAX: Duration = Duration::from_secs(2);

/// A host with its broker inside, and one tenant that means no harm.
struct Town {
    site: SiteFolder,
    port: u16,
}

impl Town {
    fn new() -> Self {
        let (port, old) = (free_port(), free_port());
        let broker = format!("broker: {{ embedded: true, v5: {port}, v311: {old} }}");
        // Less than what is deployed and gone again takes when it is compiled.
        let host = format!("{{ shards: 1, compiled: 1Mi, {broker} }}");
        let site = SiteFolder::new(&host, &format!("127.0.0.1:{port}"));
        site.policy("policy", &[]);
        site.tenant(NEIGHBOUR, "policy");
        site.dataflow(NEIGHBOUR, "flow", &[("map", "pass_through", &[])]);
        Town { site, port }
    }

    fn pulse(&self) -> Pulse {
        let pulse =
            Pulse::start(self.port, &format!("{NEIGHBOUR}/in/flow"), &format!("{NEIGHBOUR}/out/flow"));
        eventually("the neighbour is served", || pulse.beats() >= 10);
        pulse
    }

    /// Puts an attacker's tenants into the site; gives their names.
    fn invite(&self, attack: &Attack) -> Vec<String> {
        let policy = format!("p-{}", attack.name);
        let lines = attack.policy_lines();
        self.site.policy(&policy, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let count = attack.deploys.unwrap_or(1);
        let names = (0..count).map(|number| match attack.deploys {
            None => attack.name.clone(),
            Some(_) => format!("{}-{number}", attack.name),
        });
        let names: Vec<_> = names.collect();
        for (number, name) in names.iter().enumerate() {
            self.site.tenant(name, &policy);
            let parameters = attack.parameters();
            let link: Link<'_> = (attack.kind.operator().name(), &attack.guest, &parameters);
            let source = attack.source.clone().unwrap_or(format!("{name}/in/flow"));
            let destination = attack.destination.clone().unwrap_or(format!("{name}/out/flow"));
            let links = vec![link; attack.operators];
            self.site.dataflow_between(name, "flow", ("local", &source), &links, ("local", &destination));
            if attack.deploys.is_some() {
                let mut bytes = fs::read(guest_path(&attack.guest)).expect("the guests are built");
                // A custom section named `n`: id, length, length of the name, name, content.
                bytes.extend([0, 4, 1, b'n', number as u8, (number >> 8) as u8]);
                self.site.component(name, &attack.guest, &bytes);
            }
        }
        names
    }

    fn evict(&self, attack: &Attack, names: &[String]) {
        for name in names {
            self.site.remove(&format!("platform/tenant-{name}.yaml"));
            self.site.remove(&format!("tenants/{name}"));
        }
        self.site.remove(&format!("platform/policy-p-{}.yaml", attack.name));
    }
}

#[test]
fn what_attacks_a_broker_s_topics_and_sizes_ends_in_its_own_dead_letters() {
    let attacks = attacks::all().into_iter().filter(|attack| attack.through.is_some());
    let attacks: Vec<_> = attacks.map(|attack| attack.beside(NEIGHBOUR)).collect();
    assert!(attacks.len() > 5);
    let town = Town::new();
    attacks.iter().for_each(|attack| _ = town.invite(attack));
    let host = Host::up(town.site.path());
    let everything = Subscriber::new(town.port, "#");
    let pulse = town.pulse();
    let messages = attacks.iter().flat_map(|attack| {
        let properties = PublishProperties::default();
        let topic = format!("{}/in/flow", attack.name);
        attack.payloads().map(|payload| (topic.clone(), payload.into_bytes(), properties.clone()))
    });
    let before = pulse.beats();
    publish_all(town.port, messages);
    let status = host.wait_for("all are given up", |status| {
        attacks.iter().all(|attack| status.count(&format!("{}/flow", attack.name), "dead") == 3)
    });
    let (neighbours, longest) = pulse.stop();
    assert!(neighbours > before, "the neighbour stood still");
    assert!(longest < BEAT_MAX, "the neighbour waited {longest:?}");
    for attack in &attacks {
        let flow = format!("{}/flow", attack.name);
        assert_eq!((status.count(&flow, "delivered"), status.count(&flow, "errors")), (0, 0), "{flow}");
        assert_eq!(status.dataflow(&flow)["state"], "Running", "{flow}");
    }
    // They are counted before they are on disk.
    let mut found = Vec::new();
    eventually("all dead letters are on disk", || {
        found = host.dead_letters();
        found.len() >= 3 * attacks.len()
    });
    let mut letters = BTreeMap::<_, Vec<_>>::new();
    for letter in found {
        letters.entry(letter.tenant).or_default().push(letter.reason);
    }
    for attack in &attacks {
        let Fate::Dead(reason) = attack.fate else { panic!("{}: {:?}", attack.name, attack.fate) };
        assert_eq!(letters.remove(&attack.name), Some(vec![reason; 3]), "{}", attack.name);
    }
    assert!(letters.is_empty(), "{letters:?}");
    // What the broker's own client saw: what was sent, and the neighbour's own.
    let own = |topic: &str| topic == format!("{NEIGHBOUR}/out/flow") || topic.ends_with("/in/flow");
    let received = everything.received();
    let topics = received.iter().map(|publish| String::from_utf8_lossy(&publish.topic).into_owned());
    let strange: Vec<_> = topics.filter(|topic| !own(topic)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    host.stop();
}

#[test]
fn no_deploy_holds_up_a_neighbour_or_leaves_anything_behind() {
    let attacks = attacks::all().into_iter().filter(|attack| attack.at == At::Deploy);
    let town = Town::new();
    let host = Host::up(town.site.path());
    let pulse = town.pulse();
    let before = Level::of(&host, town.site.path());
    let mut compiled = 0;
    for attack in attacks.map(|attack| attack.beside(NEIGHBOUR)) {
        compiled += deploy(&town, &host, &pulse, &attack);
    }
    let (_, longest) = pulse.stop();
    assert!(longest < BEAT_MAX, "the neighbour waited {longest:?}");
    let after = Level::of(&host, town.site.path());
    eprintln!("{before:?} {after:?}, longest round trip {longest:?}");
    // What was used least recently made room, so that nobody fills the disk.
    assert_eq!(after.compiled, before.compiled + compiled);
    assert!(after.removed > 0, "{before:?} {after:?}");
    assert!(after.data_bytes < before.data_bytes + DATA_BYTES_MAX, "{before:?} {after:?}");
    assert!(after.memory_bytes < before.memory_bytes + MEMORY_BYTES_MAX, "{before:?} {after:?}");
    assert_eq!((after.tenants, after.instances), (before.tenants, before.instances));
    host.stop();
}

/// What a host may hold of all the deploys of the list once they are gone. Compiled, the
/// largest that passes has 2.4 MiB.
const DATA_BYTES_MAX: u64 = 16 << 20;

/// What the allocator keeps; less than the largest component.
const MEMORY_BYTES_MAX: u64 = 48 << 20;

/// Deploys an attack and takes it away again; gives how many components that compiled.
fn deploy(town: &Town, host: &Host, pulse: &Pulse, attack: &Attack) -> usize {
    let what = &attack.name;
    let names = town.invite(attack);
    let compiled = Level::of(host, town.site.path()).compiled;
    let (beats, began) = (pulse.beats(), Instant::now());
    let applied = host.apply(town.site.path());
    let (beats, took) = (pulse.beats() - beats, began.elapsed());
    eprintln!("{what}: {took:?}, {beats} round trips");
    let enough = (took.as_secs_f64() * BEATS_A_SECOND_MIN) as usize;
    assert!(beats >= enough, "{what}: {beats} round trips in {took:?}");
    let now = Level::of(host, town.site.path());
    let compiled = now.compiled - compiled;
    match attack.fate {
        Fate::Alive(Alive::Passes) => {
            applied.expect_success();
            assert_eq!((compiled, now.tenants), (names.len(), 1 + names.len()), "{what}");
        }
        Fate::Alive(Alive::Refused) => {
            check_refusal(attack, &applied);
            assert_eq!((compiled, now.tenants), (0, 1), "{what}");
        }
        fate => panic!("{what}: {fate:?} is no fate of a deploy"),
    }
    town.evict(attack, &names);
    host.apply(town.site.path()).expect_success();
    compiled
}

/// Most bytes that a refusal says: somebody reads it.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

fn check_refusal(attack: &Attack, applied: &Output) {
    let (what, words) = (&attack.name, attack.words.as_deref().expect("what it says"));
    assert_eq!(applied.code, Some(1), "{what}: {applied:?}");
    let start: String = applied.stderr.chars().take(2000).collect();
    assert!(applied.stderr.contains(words), "{what}: `{words}` is not in {start}");
    assert!(applied.stderr.len() <= REFUSAL_BYTES_MAX, "{what}: {} bytes: {start}", applied.stderr.len());
}

/// How much a host holds.
#[derive(Debug)]
struct Level {
    memory_bytes: u64,
    data_bytes: u64,
    /// Components that were compiled, those included that made room again.
    compiled: usize,
    removed: usize,
    tenants: usize,
    instances: u64,
}

impl Level {
    fn of(host: &Host, site: &Path) -> Self {
        let status = host.status().0;
        let shards = status["shards"].as_array().expect("shards");
        let data = site.join(".tidegate");
        let kernel = fs::read_to_string(format!("/proc/{}/status", host.id())).expect("it runs");
        let resident = kernel.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        let kibibytes = resident.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
        let files = fs::read_dir(data.join("compiled")).expect("the cache").flatten();
        let files = files.filter(|file| file.path().extension().is_some_and(|it| it == "cwasm")).count();
        let removed = status["components"]["removals"].as_u64().expect("a count") as usize;
        Level {
            memory_bytes: kibibytes << 10,
            data_bytes: bytes_below(&data),
            compiled: files + removed,
            removed,
            tenants: status["tenants"].as_array().expect("tenants").len(),
            instances: shards.iter().filter_map(|shard| shard["instances"].as_u64()).sum(),
        }
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    // What goes while it is looked at has no bytes.
    let bytes = |path: &Path| match path.is_dir() {
        true => bytes_below(path),
        false => path.metadata().map_or(0, |data| data.len()),
    };
    entries.map(|entry| bytes(&entry.path())).sum()
}
