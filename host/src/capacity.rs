//! `Capacity`: what a site asks of the machine against what the machine has: memory maps,
//! files, address space, memory, CPU, slots. One function judges it, for `plan`, for `up`
//! and for every apply. Control side; knows neither shards nor connections.

mod machine;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

pub use machine::Machine;

use crate::{
    deploy::{Components, command_endpoint},
    guest::{component::Digest, engine::PoolSize, state::INSTANCE_BYTES},
    inference,
    resource::{
        Diagnostics, EndpointKind, EngineKind, HostConfig, PerEngine,
        dataflow::FlowNodeKind,
        endpoint::{HttpSettings, OtlpSettings},
        quantity::show_cpu,
        site::{DataflowSite, TenantSite},
    },
};

/// What one tenant asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub dataflows: u64,
    /// Slots that one instance of each operator takes, and of these those that stay.
    pub slots: PerEngine<u64>,
    pub slots_pinned: PerEngine<u64>,
    /// What these instances have of memory when they start.
    pub instances_bytes: u64,
    /// Its components, and what they have of memory.
    pub components: Box<[(Digest, u64)]>,
    /// Connections to brokers, and other files: ends of dataflows, pipes to models.
    pub connections: u64,
    pub files: u64,
    /// Servers that it uses, by address, and the connections that each may have.
    pub servers: Box<[(String, u64)]>,
    /// `memory.total`, and what a process for its models may have beside it.
    pub memory_bytes: u64,
    /// `cpu.rate`.
    pub cpu_milli: u64,
}

/// What a Kafka client opens beside its first connection: one more for the group's
/// coordinator or another broker each, and pipes by which its threads wake each other.
const KAFKA_FILES: u64 = 12;
/// What an HTTP server has beside its connections: its socket, and its poll.
const SERVER_FILES: u64 = 4;

impl Demand {
    /// Of a tenant with those of its dataflows that are to run.
    pub fn of<'a>(
        tenant: &TenantSite,
        dataflows: impl Iterator<Item = (&'a DataflowSite, &'a Components)>,
        endpoints: &BTreeMap<String, EndpointKind>,
    ) -> Self {
        let limits = &tenant.limits;
        let mut demand = Demand {
            memory_bytes: limits.memory_total_bytes_max,
            cpu_milli: limits.cpu_rate_milli,
            ..Demand::default()
        };
        let mut known = HashMap::new();
        // A tenant has one connection to an endpoint that it writes to, and one for commands.
        let (mut sinks, mut commands) = (BTreeSet::new(), BTreeSet::new());
        let mut servers = BTreeMap::new();
        let mut ends = |endpoint: &str| match endpoints.get(endpoint) {
            Some(EndpointKind::Mqtt(_) | EndpointKind::Otlp(OtlpSettings::Export(_))) => {
                demand.connections += 1;
            }
            Some(EndpointKind::Kafka(_)) => {
                demand.connections += 1;
                demand.files += KAFKA_FILES;
            }
            // What a server takes is its own, and counted once.
            Some(
                EndpointKind::Http(HttpSettings::Listen(settings))
                | EndpointKind::Otlp(OtlpSettings::Listen(settings)),
            ) => {
                servers.insert(settings.address.clone(), settings.connections_max as u64);
            }
            Some(EndpointKind::Http(HttpSettings::Webhook(settings))) => {
                demand.connections += 1;
                demand.files += settings.inflight_max as u64;
            }
            Some(EndpointKind::File { .. }) => demand.files += 1,
            Some(EndpointKind::Memory) | None => {}
        };
        for (dataflow, components) in dataflows {
            demand.dataflows += 1;
            for node in &dataflow.dataflow.nodes {
                match &node.kind {
                    FlowNodeKind::Source { endpoint, .. } => ends(&endpoint.text),
                    FlowNodeKind::Destination { endpoint, .. } => _ = sinks.insert(endpoint.text.clone()),
                    FlowNodeKind::Graph { .. } => {}
                }
            }
            commands.extend(command_endpoint(dataflow, components, endpoints).map(str::to_owned));
            for component in components.values() {
                known.insert(component.digest, component.resources.component_bytes);
                // A linear memory for each of what it is fused of.
                let slots = if component.fused.is_some() { 2 } else { 1 };
                *demand.slots.of_mut(limits.engine) += slots;
                if dataflow.dataflow.pinned {
                    *demand.slots_pinned.of_mut(limits.engine) += slots;
                }
                demand.instances_bytes += component.resources.memory_bytes_min + INSTANCE_BYTES;
            }
        }
        sinks.iter().chain(&commands).for_each(|endpoint| ends(endpoint));
        if inference::IS_BUILT && tenant.world.text.starts_with(WITH_MODELS) {
            demand.memory_bytes = demand.memory_bytes.saturating_add(limits.inference.memory_bytes_max);
            demand.files += MODEL_FILES;
        }
        demand.components = known.into_iter().collect();
        demand.servers = servers.into_iter().collect();
        demand
    }
}

/// What a host has been told to be, and what all its tenants ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub shards: u64,
    pub pool: PoolSize,
    /// Connections to it cost the host two files each: both ends are its own.
    pub has_broker: bool,
    pub tenants: u64,
    pub all: Demand,
}

impl Asked {
    pub fn of<'a>(config: &HostConfig, demands: impl Iterator<Item = &'a Demand>) -> Self {
        let mut all = Demand::default();
        let mut components = HashMap::new();
        let mut servers = BTreeMap::new();
        let mut tenants = 0;
        for demand in demands {
            tenants += 1;
            // Naming every field makes a forgotten one a build error.
            let Demand {
                dataflows,
                slots,
                slots_pinned,
                instances_bytes,
                components: own,
                connections,
                files,
                servers: its,
                memory_bytes,
                cpu_milli,
            } = demand;
            all.dataflows += dataflows;
            for kind in EngineKind::ALL {
                *all.slots.of_mut(kind) += slots.of(kind);
                *all.slots_pinned.of_mut(kind) += slots_pinned.of(kind);
            }
            all.instances_bytes = all.instances_bytes.saturating_add(*instances_bytes);
            components.extend(own.iter().copied());
            servers.extend(its.iter().cloned());
            all.connections += connections;
            all.files += files;
            all.memory_bytes = all.memory_bytes.saturating_add(*memory_bytes);
            all.cpu_milli = all.cpu_milli.saturating_add(*cpu_milli);
        }
        all.components = components.into_iter().collect();
        all.files += servers.values().map(|connections| connections + SERVER_FILES).sum::<u64>();
        all.servers = servers.into_iter().collect();
        Asked {
            shards: config.shards as u64,
            pool: PoolSize::of(config),
            has_broker: config.broker.is_some(),
            tenants,
            all,
        }
    }
}

/// Whether one thing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// It runs, and what is promised may not be had by all at once.
    Warned,
    /// It would not run.
    Refused,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Fits => "fits",
            Verdict::Warned => "warned",
            Verdict::Refused => "refused",
        }
    }
}

/// One thing that is asked for.
#[derive(Clone, Debug)]
pub struct Line {
    /// A stable name, such as `plan/files`.
    pub rule: &'static str,
    pub what: &'static str,
    pub needed: u64,
    /// `None` where nothing bounds it.
    pub available: Option<u64>,
    show: fn(u64) -> String,
    pub verdict: Verdict,
    /// What to do, where it does not fit.
    advice: String,
}

impl Line {
    fn count(rule: &'static str, what: &'static str, needed: u64) -> Self {
        let (verdict, advice) = (Verdict::Fits, String::new());
        Line { rule, what, needed, available: None, show: |it| it.to_string(), verdict, advice }
    }

    fn within(self, available: u64, otherwise: Verdict, advice: String) -> Self {
        let fits = self.needed <= available;
        let (verdict, advice) = if fits { (Verdict::Fits, String::new()) } else { (otherwise, advice) };
        Line { available: Some(available), verdict, advice, ..self }
    }

    fn shown(self, show: fn(u64) -> String) -> Self {
        Line { show, ..self }
    }
}

/// What a host takes without tenants, in bytes: engine, store, one shard (RSS of a debug
/// build with an empty site, rounded up).
const HOST_BYTES: u64 = 64 << 20;
/// Address space of everything but the pools: code, stacks, and a heap of 64 MiB that the
/// C library keeps for each of up to eight threads a core, about as measured on two.
const HOST_ADDRESS_BYTES: u64 = 4 << 30;
/// Files that a host has open without tenants: store, sockets, logs, the compile process's
/// pipes; and those of each shard's poll.
const HOST_FILES: u64 = 64;
const SHARD_FILES: u64 = 8;
/// Pipes of a process that runs models, which tenants of this world may have.
const MODEL_FILES: u64 = 4;
const WITH_MODELS: &str = "tidegate:policy/inference@";

/// What is asked for against what there is, thing by thing.
#[derive(Clone, Debug)]
pub struct Capacity {
    pub lines: Vec<Line>,
}

/// Holds what is asked for against the machine.
pub fn judge(asked: &Asked, machine: &Machine) -> Capacity {
    let Asked { tenants, all, .. } = asked;
    let mut lines = vec![
        Line::count("plan/tenants", "tenants", *tenants),
        Line::count("plan/dataflows", "dataflows", all.dataflows),
        Line::count("plan/connections", "connections to brokers", all.connections),
    ];
    lines.extend(pools(asked));
    lines.extend(kernel(asked, machine));
    lines.extend(promises(asked, machine));
    Capacity { lines }
}

/// Components, and slots for their instances.
fn pools(Asked { pool, all, .. }: &Asked) -> Vec<Line> {
    use Verdict::Warned;
    let advice = "raise `components` in the Host resource, or they are loaded again and again";
    let components = Line::count("plan/components", "components in use", all.components.len() as u64);
    let mut lines = vec![components.within(pool.components.into(), Warned, advice.to_owned())];
    for kind in EngineKind::ALL {
        let slots = u64::from(*pool.slots.of(kind));
        let (live, pinned) = slot_lines(kind);
        // More operators than slots are what retiring idle instances is for.
        let live = Line::count(live.0, live.1, *all.slots.of(kind));
        lines.push(Line { available: Some(slots), ..live });
        let advice = format!("raise `slots.{}` in the Host resource, or pin fewer dataflows", kind.name());
        lines.push(Line::count(pinned.0, pinned.1, *all.slots_pinned.of(kind)).within(slots, Warned, advice));
    }
    lines
}

/// What the kernel gives to one process: without it the host does not run.
fn kernel(Asked { shards, pool, has_broker, all, .. }: &Asked, machine: &Machine) -> [Line; 3] {
    use Verdict::Refused;
    let fit = pool.fuel_slots_that_fit(machine.maps_max);
    let maps = Line::count("plan/maps", "memory maps", pool.maps()).within(
        machine.maps_max,
        Refused,
        format!("lower `slots.fuel` to {fit} in the Host resource, or raise the kernel's vm.max_map_count"),
    );
    let ends = all.connections * if *has_broker { 2 } else { 1 } + all.files;
    let needed = HOST_FILES + SHARD_FILES * shards + ends;
    let files = Line::count("plan/files", "open files", needed).within(
        machine.files_max,
        Refused,
        format!(
            "raise the limit to {needed} (`ulimit -n`, LimitNOFILE of systemd), or have fewer connections"
        ),
    );
    let needed = HOST_ADDRESS_BYTES + pool.address_space_bytes();
    let space = Line::count("plan/address-space", "address space", needed).shown(shown_bytes).within(
        machine.address_space_bytes_max,
        Refused,
        "lower `slots` in the Host resource, or raise the limit (`ulimit -v`)".to_owned(),
    );
    [maps, files, space]
}

/// What tenants may count on, and not all at once.
fn promises(Asked { shards, all, .. }: &Asked, machine: &Machine) -> [Line; 4] {
    use Verdict::Warned;
    let components: u64 = all.components.iter().map(|(_, bytes)| bytes).sum();
    let expected = HOST_BYTES.saturating_add(components).saturating_add(all.instances_bytes);
    let expected = Line::count("plan/memory-expected", "memory, one instance each", expected).within(
        machine.memory_bytes,
        Warned,
        "the machine will swap or end the host: run fewer dataflows".to_owned(),
    );
    let promised = HOST_BYTES.saturating_add(all.memory_bytes);
    let promised = Line::count("plan/memory-promised", "memory promised", promised).within(
        machine.memory_bytes,
        Warned,
        "not all tenants can have their `memory.total` at once: lower it, or add memory".to_owned(),
    );
    let cpu = Line::count("plan/cpu-promised", "CPU promised", all.cpu_milli).within(
        machine.cores.min(*shards) * 1_000,
        Warned,
        "not all tenants can have their `cpu.rate` at once: lower it, or raise `shards`".to_owned(),
    );
    let shards = Line::count("plan/shards", "shards", *shards).within(
        machine.cores,
        Warned,
        "shards on one core take turns: lower `shards` in the Host resource".to_owned(),
    );
    [expected.shown(shown_bytes), promised.shown(shown_bytes), cpu.shown(show_cpu), shards]
}

type Named = (&'static str, &'static str);

/// What slots of an engine are called: with an instance of each operator, and pinned.
fn slot_lines(kind: EngineKind) -> (Named, Named) {
    match kind {
        EngineKind::Fuel => (
            ("plan/slots-fuel", "slots `fuel`, one instance each"),
            ("plan/pinned-fuel", "slots `fuel`, pinned"),
        ),
        EngineKind::Epoch => (
            ("plan/slots-epoch", "slots `epoch`, one instance each"),
            ("plan/pinned-epoch", "slots `epoch`, pinned"),
        ),
        EngineKind::Large => (
            ("plan/slots-large", "slots `large`, one instance each"),
            ("plan/pinned-large", "slots `large`, pinned"),
        ),
    }
}

impl Capacity {
    pub fn is_refused(&self) -> bool {
        self.lines.iter().any(|line| line.verdict == Verdict::Refused)
    }

    /// Says what does not fit.
    pub fn say(&self, diagnostics: &mut Diagnostics) {
        for Line { rule, what, needed, available, show, verdict, advice } in &self.lines {
            let there_is = show(available.unwrap_or(u64::MAX));
            let message = format!("{what}: {} and there is {there_is}", show(*needed));
            match verdict {
                Verdict::Fits => {}
                Verdict::Warned => diagnostics.warning(rule, None, message, advice.as_str()),
                Verdict::Refused => diagnostics.error(rule, None, message, advice.as_str()),
            }
        }
    }

    /// A table for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{:<34}{:>16}{:>16}  \n", "", "needed", "there is");
        for Line { what, needed, available, show, verdict, .. } in &self.lines {
            let there_is = available.map_or(String::new(), show);
            let verdict = if *verdict == Verdict::Fits { "" } else { verdict.name() };
            let line = format!("{what:<34}{:>16}{there_is:>16}  {verdict}", show(*needed));
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    pub fn to_json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            json!({
                "rule": line.rule, "what": line.what, "needed": line.needed, "available": line.available,
                "verdict": line.verdict.name(), "advice": (!line.advice.is_empty()).then_some(&line.advice),
            })
        });
        json!({ "refused": self.is_refused(), "lines": lines.collect::<Vec<_>>() })
    }
}

/// Rounded up to what a person reads.
fn shown_bytes(bytes: u64) -> String {
    let shift = [40, 30, 20, 10].into_iter().find(|shift| bytes >> shift >= 10).unwrap_or(0);
    let rounded = bytes.div_ceil(1 << shift);
    let unit = match shift {
        40 => "Ti",
        30 => "Gi",
        20 => "Mi",
        10 => "Ki",
        _ => "B",
    };
    format!("{rounded}{unit}")
}

#[cfg(test)]
mod tests;
