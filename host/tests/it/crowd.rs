//! Fifty tenants on a host that has room for few of them at once: two shards, sixteen
//! instances, four components in memory. Whatever a test does to it, instances and
//! components are evicted, components compiled, messages retried and given up
//! meanwhile, and [`Happened`] says from the host's counters that they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate_benches::rig::guest_path;

use crate::{
    folder::{Link, PATIENT, SiteFolder},
    mosquitto::WITHIN,
    outside::Subscriber,
    process::{Host, Status},
};

pub const TENANTS: u64 = 50;

/// Of what they do; each is every fifth tenant.
pub const CHAINS: [&[Link<'static>]; 5] = [
    &[PASS, PASS_FILTER],
    &[PASS_FILTER, AIO_PASS],
    &[AIO_PASS, PASS],
    &[GUILTY, PASS],
    &[STUMBLES, PASS_FILTER],
];
const PASS: Link<'_> = ("map", "pass_through", &[]);
const PASS_FILTER: Link<'_> = ("filter", "pass_filter", &[]);
const AIO_PASS: Link<'_> = ("map", "aio_pass_through", &[]);
/// Always traps on some messages.
const GUILTY: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap"), ("marker", "99")]);
/// Traps now and then, and the same message passes on a fresh instance.
const STUMBLES: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap"), ("every", "40")]);

pub fn name(tenant: u64) -> String {
    format!("t{tenant:02}")
}

/// The site; every tenant has one dataflow, `flow`.
pub fn site(address: &str) -> SiteFolder {
    let site = SiteFolder::new("{ shards: 2, slots: { fuel: 16 }, components: 4 }", address);
    site.policy("crowd", &[PATIENT]);
    for tenant in 0..TENANTS {
        site.tenant(&name(tenant), "crowd");
        site.dataflow(&name(tenant), "flow", CHAINS[tenant as usize % CHAINS.len()]);
    }
    site
}

/// Whose turn it is with this number.
pub fn tenant_of(number: u64) -> u64 {
    number % TENANTS
}

/// Whether the number's message is given up rather than delivered.
pub fn is_given_up(number: u64) -> bool {
    tenant_of(number) % CHAINS.len() as u64 == 3 && number.to_string().contains("99")
}

/// The numbers as messages, each to its tenant.
pub fn messages(numbers: std::ops::Range<u64>) -> impl Iterator<Item = (String, Vec<u8>, PublishProperties)> {
    numbers.map(|number| {
        let topic = format!("{}/in/flow", name(tenant_of(number)));
        (topic, number.to_string().into_bytes(), PublishProperties::default())
    })
}

/// What came out, by tenant, in the order in which it came first.
pub fn delivered(subscriber: &Subscriber) -> BTreeMap<u64, Vec<u64>> {
    let mut seen = BTreeSet::new();
    let mut by_tenant = BTreeMap::<_, Vec<_>>::new();
    for number in subscriber.numbers() {
        if seen.insert(number) {
            by_tenant.entry(tenant_of(number)).or_default().push(number);
        }
    }
    by_tenant
}

/// Of `0..count`, all that must come out did, each tenant's in order.
pub fn check_delivered(subscriber: &Subscriber, count: u64) {
    for (tenant, numbers) in delivered(subscriber) {
        let expected = (0..count).filter(|it| tenant_of(*it) == tenant && !is_given_up(*it));
        assert!(numbers.iter().copied().eq(expected), "{}: {numbers:?}", name(tenant));
    }
}

/// Gives a tenant another component of the same behaviour, which must be compiled.
pub fn change_component(site: &SiteFolder, tenant: u64, revision: u8) {
    let (_, guest, _) = CHAINS[tenant as usize % CHAINS.len()][0];
    let mut bytes = fs::read(guest_path(guest)).expect("the guests are built");
    // A custom section named `r`: id, length, length of the name, name, content.
    bytes.extend([0, 4, 1, b'r', tenant as u8, revision]);
    site.component(&name(tenant), guest, &bytes);
}

/// Until each of `0..count` has come out or is among the dead letters, as an outside
/// client and the host's command say. What is missing after the deadline is named,
/// with the state of those tenants.
pub fn wait_until_answered(subscriber: &Subscriber, host: &Host, count: u64) {
    let expected = (0..count).filter(|number| !is_given_up(*number)).count();
    let until = Instant::now() + WITHIN;
    let in_time = || Instant::now() < until;
    let delivered = || subscriber.numbers().into_iter().collect::<BTreeSet<_>>().len();
    // Asking the host takes it time that messages need.
    while delivered() < expected && in_time() {
        thread::park_timeout(Duration::from_millis(20));
    }
    loop {
        let answered = answered(subscriber, host);
        let missing: Vec<_> = (0..count).filter(|number| !answered.contains(number)).collect();
        if missing.is_empty() {
            return;
        }
        if !in_time() {
            let status = host.status();
            let tenants: BTreeSet<_> = missing.iter().map(|number| name(tenant_of(*number))).collect();
            for tenant in status.0["tenants"].as_array().expect("tenants") {
                if tenants.iter().any(|name| tenant["name"] == *name) {
                    eprintln!("{tenant}");
                }
            }
            panic!("not answered within {WITHIN:?}, of {} tenants: {missing:?}", tenants.len());
        }
    }
}

/// Which numbers were delivered or given up, each given up only if it must be.
pub fn answered(subscriber: &Subscriber, host: &Host) -> BTreeSet<u64> {
    let mut answered: BTreeSet<u64> = subscriber.numbers().into_iter().collect();
    assert!(!answered.iter().any(|number| is_given_up(*number)), "a guilty message came out");
    for letter in host.dead_letters() {
        let number = letter.payload.expect("a number").parse().expect("a number");
        assert!(is_given_up(number), "{number} was given up");
        answered.insert(number);
    }
    answered
}

/// What a host did, over all its lives.
#[derive(Debug, Default)]
pub struct Happened {
    instances_evicted: u64,
    components_evicted: u64,
    loads: u64,
    compiles: u64,
    retries: u64,
    dead: u64,
}

impl Happened {
    /// Counts what one life of the host did, from its last state.
    pub fn add(&mut self, status: &Status) {
        let component = |counter: &str| status.0["components"][counter].as_u64().expect("a counter");
        self.instances_evicted += status.sum_of_operators("retired");
        self.components_evicted += component("evictions");
        self.loads += component("loads");
        self.compiles += component("compiles");
        self.retries += status.sum_of_operators("retries");
        self.dead += status.sum("dead");
        let shards = status.0["shards"].as_array().expect("shards");
        assert_eq!(shards.len(), 2);
        for shard in shards {
            assert!(shard["instances"].as_u64().expect("a count") <= 8, "{shard}");
        }
    }

    /// All of it did.
    pub fn check(&self) {
        let Happened { instances_evicted, components_evicted, loads, compiles, retries, dead } = *self;
        let all = [instances_evicted, components_evicted, loads, compiles, retries, dead];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
        // Of the four components that the site began with, and at least one that was changed.
        assert!(compiles > 4, "nothing was compiled while messages ran: {self:?}");
        eprintln!("{self:?}");
    }
}
