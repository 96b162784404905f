//! Policies: what a tenant may import, use, spend, read and write.

pub mod explain;

use std::time::Duration;

use explain::Record;

use crate::{
    dead_letter::DeadLetterLimits,
    guest::{host_call::Interface, log::LogLimits, metrics},
    inference::{self, InferenceLimits},
    rate::{Rate, Rates},
    resource::{
        EngineKind,
        diagnostic::{Diagnostics, Place},
        quantity::{self, QuantityError},
        yaml::{Object, Text},
    },
    store::StateLimits,
    topic::TopicFilter,
};

/// The policy compiled in that is the default.
pub const STANDARD: &str = include_str!("../../../policies/standard.yaml");

/// The policies compiled in, by name.
pub const SHIPPED: [(&str, &str); 5] = [
    ("standard", STANDARD),
    ("strict", include_str!("../../../policies/strict.yaml")),
    ("python", include_str!("../../../policies/python.yaml")),
    ("trusted", include_str!("../../../policies/trusted.yaml")),
    ("inference", include_str!("../../../policies/inference.yaml")),
];

#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    /// The WIT world whose imports are all that may be granted.
    pub world: Text,
    pub limits: Limits,
    pub endpoints: Vec<EndpointGrant>,
    /// Every key that it may have, with its value and where that was said.
    pub record: Record,
}

/// Topics of one endpoint, with `{tenant}` still in them.
#[derive(Clone, Debug)]
pub struct EndpointGrant {
    pub name: Text,
    pub read: Vec<Text>,
    pub write: Vec<Text>,
    pub rates: Rates,
}

/// What one tenant may read and write at one endpoint.
#[derive(Clone, Debug, Hash)]
pub struct Grants {
    pub endpoint: String,
    pub read: Vec<TopicFilter>,
    pub write: Vec<TopicFilter>,
    /// Messages and bytes a second.
    pub rates: Rates,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnError {
    /// AIO's rule.
    Drop,
    DeadLetter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Late {
    Drop,
    DeadLetter,
    NextWindow,
}

/// Every limit of a policy, after its defaults. Fuel in wasmtime's units, CPU in
/// thousandths of a core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    pub engine: EngineKind,
    /// Share of a shard beside other busy tenants.
    pub weight: u32,
    pub cpu_rate_milli: u64,
    pub cpu_burst: Duration,
    pub cpu_cap: bool,
    pub fuel_rate: u64,
    pub fuel_burst: u64,
    /// For one message.
    pub message_fuel_max: u64,
    pub message_time_max: Duration,
    pub memory_total_bytes_max: u64,
    pub memory_instance_bytes_max: u64,
    /// Live at once.
    pub instances_max: u32,
    /// For one message taken in.
    pub output_messages_max: u32,
    pub output_bytes_max: u64,
    /// Largest message taken in.
    pub payload_bytes_max: u64,
    /// From ingest to settlement.
    pub inflight_bytes_max: u64,
    /// On disk, of what far sides cannot take now, over all its buffers.
    pub buffer_bytes_max: u64,
    pub component_bytes_max: u64,
    /// What compiling one component may take.
    pub compile: CompileLimits,
    pub fault_retries_max: u32,
    pub fault_cool_down: Duration,
    pub quarantine_after: u32,
    pub quarantine_within: Duration,
    pub on_error: OnError,
    pub late: Late,
    pub lateness_max: Duration,
    pub idle_max: Duration,
    pub tick_max: Duration,
    pub connections_max: u32,
    /// Requests to other programs that may be open at once.
    pub commands_max: u32,
    /// What its operators may keep.
    pub state: StateLimits,
    /// What its windows may hold, over all dataflows.
    pub window_bytes_max: u64,
    /// Messages given up that are kept.
    pub dead_letters: DeadLetterLimits,
    /// What its models may use.
    pub inference: InferenceLimits,
    /// Host calls a second, where they are limited.
    pub calls: CallLimits,
    /// What its operators may log.
    pub log: LogLimits,
    /// Series of its operators' metrics.
    pub series_max: u32,
    pub dataflows_max: u32,
}

/// What the process that compiles one component may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompileLimits {
    /// CPU time.
    pub time_max: Duration,
    /// Address space; the process itself has some 100 MiB before it compiles anything.
    pub memory_bytes_max: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        CompileLimits { time_max: Duration::from_secs(20), memory_bytes_max: 2 << 30 }
    }
}

/// Host calls a second by interface; `None` as many as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CallLimits([Option<u64>; Interface::ALL.len()]);

impl CallLimits {
    pub fn of(&self, interface: Interface) -> Option<u64> {
        self.0[interface as usize]
    }

    pub fn set(&mut self, interface: Interface, calls: u64) {
        self.0[interface as usize] = Some(calls);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            engine: EngineKind::Fuel,
            weight: 1,
            cpu_rate_milli: 100,
            cpu_burst: Duration::from_millis(200),
            cpu_cap: false,
            fuel_rate: u64::MAX,
            fuel_burst: u64::MAX,
            message_fuel_max: 20_000_000,
            message_time_max: Duration::from_millis(20),
            memory_total_bytes_max: 64 << 20,
            memory_instance_bytes_max: EngineKind::Fuel.memory_bytes_max(),
            instances_max: 16,
            output_messages_max: 64,
            output_bytes_max: 512 << 10,
            payload_bytes_max: 256 << 10,
            inflight_bytes_max: 1 << 20,
            buffer_bytes_max: 64 << 20,
            component_bytes_max: 8 << 20,
            compile: CompileLimits::default(),
            fault_retries_max: 2,
            fault_cool_down: Duration::from_secs(10),
            quarantine_after: 20,
            quarantine_within: Duration::from_secs(60),
            on_error: OnError::Drop,
            late: Late::Drop,
            lateness_max: Duration::from_secs(3600),
            idle_max: Duration::from_secs(60),
            tick_max: Duration::from_millis(100),
            connections_max: 4,
            commands_max: 16,
            state: StateLimits::default(),
            window_bytes_max: 16 << 20,
            dead_letters: DeadLetterLimits::default(),
            inference: InferenceLimits::default(),
            calls: CallLimits::default(),
            log: LogLimits::default(),
            series_max: metrics::SERIES_MAX,
            dataflows_max: 100,
        }
    }
}

impl Limits {
    /// The defaults of an engine: what a language's runtime needs takes more of
    /// everything.
    pub fn of_engine(engine: EngineKind) -> Self {
        let usual = Limits::default();
        match engine {
            EngineKind::Fuel => usual,
            // It has no fuel to run out of.
            EngineKind::Epoch => Limits { engine, message_fuel_max: u64::MAX, ..usual },
            EngineKind::Large => Limits {
                engine,
                cpu_rate_milli: 200,
                cpu_burst: Duration::from_secs(1),
                memory_total_bytes_max: 512 << 20,
                memory_instance_bytes_max: 128 << 20,
                instances_max: 4,
                message_fuel_max: 200_000_000,
                message_time_max: Duration::from_millis(100),
                component_bytes_max: 64 << 20,
                compile: CompileLimits { time_max: Duration::from_secs(120), ..usual.compile },
                ..usual
            },
        }
    }
}

/// Reads limits over a base, each value checked against a ceiling if there is one.
struct LimitReader<'a> {
    diagnostics: &'a mut Diagnostics,
    of: LimitsOf<'a>,
    /// Where what was read is kept. With it every group is read, whether it is there or
    /// not, so that all keys are in it that are read at all.
    record: Option<&'a mut Record>,
}

/// How the values of a limit are read and written.
struct Unit<T> {
    parse: fn(&str) -> Result<T, QuantityError>,
    show: fn(T) -> String,
}

/// Whose limits are read: a tenant may only lower its policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsOf<'a> {
    Policy(&'a str),
    Tenant(&'a str),
}

impl LimitsOf<'_> {
    fn is_lowering(self) -> bool {
        matches!(self, LimitsOf::Tenant(_))
    }
}

impl std::fmt::Display for LimitsOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LimitsOf::Policy(name) => write!(f, "the policy `{name}`"),
            LimitsOf::Tenant(name) => write!(f, "the tenant `{name}`"),
        }
    }
}

impl LimitReader<'_> {
    fn read<T: PartialOrd + Copy>(
        &mut self,
        object: &mut Object<'_>,
        key: &'static str,
        unit: fn() -> Unit<T>,
        into: &mut T,
    ) {
        let Unit { parse, show } = unit();
        let place = self.read_value(object, key, parse, into);
        self.note(object, key, show(*into), place);
    }

    /// Where the value stands that was taken, if there is one.
    fn read_value<T: PartialOrd + Copy>(
        &mut self,
        object: &mut Object<'_>,
        key: &'static str,
        parse: fn(&str) -> Result<T, QuantityError>,
        into: &mut T,
    ) -> Option<Place> {
        let text = object.text(key, self.diagnostics)?;
        match parse(&text.text) {
            Err(error) => {
                let message = format!("`{}` is no value for `{key}`", text.text);
                self.diagnostics.error("policy/quantity", text.place, message, error.to_string());
                None
            }
            Ok(value) if self.of.is_lowering() && value > *into => {
                let message = format!("a tenant's `{key}` may not be above its policy's");
                self.diagnostics.error(
                    "policy/above-ceiling",
                    text.place,
                    message,
                    "lower it, or leave it out",
                );
                None
            }
            Ok(value) => {
                *into = value;
                Some(text.place)
            }
        }
    }

    /// One of `choices` by name.
    fn choose<T: Copy + PartialEq>(
        &mut self,
        object: &mut Object<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
        into: &mut T,
    ) {
        let place = object.choice_at(key, choices, self.diagnostics).map(|(chosen, place)| {
            *into = chosen;
            place
        });
        let name = choices.iter().find(|(_, choice)| choice == into).map_or("", |(name, _)| name);
        self.note(object, key, name.to_owned(), place);
    }

    fn note(&mut self, object: &Object<'_>, key: &str, value: String, place: Option<Place>) {
        if let Some(record) = &mut self.record {
            record.note(object.name(), key, value, place);
        }
    }

    fn check_inference(&mut self, group: &mut Object<'_>, limits: &InferenceLimits) {
        if !group.is_there() {
            return;
        }
        if !inference::IS_BUILT {
            let message = "`inference` has no effect: this build runs no models".to_owned();
            let label = format!("a build with the cargo feature `{}` does", inference::FEATURE);
            self.diagnostics.warning("policy/not-built", group.place(), message, label);
        }
        if limits.model_bytes_max > limits.memory_bytes_max {
            let place = group.get("model").or(group.get("memory")).map(|node| node.place.clone());
            let message = "`model` may not be above `memory`";
            self.diagnostics.error(
                "policy/model-above-memory",
                place,
                message,
                "no such model could ever be loaded",
            );
        }
    }

    /// Refuses a limit in fuel under an engine that counts none.
    fn check_fuel_counts(&mut self, engine: EngineKind, key: &str, place: Option<Place>) {
        if engine.counts_fuel() || place.is_none() {
            return;
        }
        let message =
            format!("`{key}` limits nothing under the engine `{}`, which counts no fuel", engine.name());
        let label = "leave it out (`message.time` limits a message), or choose `engine: fuel`";
        self.diagnostics.error("policy/engine-fuel", place, message, label);
    }

    fn group<'n>(&mut self, object: &mut Object<'n>, key: &'static str) -> Option<Object<'n>> {
        let absent = || self.record.is_some().then(|| Object::absent(key));
        object.object(key, self.diagnostics).or_else(absent)
    }
}

/// Largest model that a policy may allow.
const MODEL_BYTES_MAX: u64 = 1 << 30;

const FAULTS_MAX: u32 = 10_000;

/// What one line of a policy may say: how it is read, and how it is shown.
macro_rules! units {
    ($($(#[$doc:meta])* $name:ident: $of:ty = $parse:expr, $show:expr;)*) => {
        $($(#[$doc])* fn $name() -> Unit<$of> { Unit { parse: $parse, show: $show } })*
    };
}

units! {
    small: u32 = parse_small, |count| quantity::show_count(count.into());
    at_least_one: u32 = |text| quantity::above_zero(parse_small, text), |count| quantity::show_count(count.into());
    count: u64 = quantity::count, quantity::show_count;
    some_fuel: u64 = |text| quantity::above_zero(quantity::fuel, text), quantity::show_fuel;
    some_calls: u64 = |text| quantity::above_zero(quantity::count, text), quantity::show_count;
    some_cpu: u64 = |text| quantity::above_zero(quantity::cpu, text), quantity::show_cpu;
    /// Faults that are too many: so many instants are kept for each dataflow.
    some_faults: u32 = parse_faults, |count| quantity::show_count(count.into());
    bytes: u64 = quantity::bytes, quantity::show_bytes;
    some_bytes: u64 = |text| quantity::above_zero(quantity::bytes, text), quantity::show_bytes;
    /// A frame to the process that runs models says its length in 32 bits.
    model_bytes: u64 = parse_model_bytes, quantity::show_bytes;
    time: Duration = quantity::time, quantity::show_time;
    some_time: Duration = |text| quantity::above_zero(quantity::time, text), quantity::show_time;
}

fn parse_small(text: &str) -> Result<u32, QuantityError> {
    u32::try_from(quantity::count(text)?).map_err(|_| QuantityError::TooLarge)
}

fn parse_faults(text: &str) -> Result<u32, QuantityError> {
    let faults = quantity::above_zero(parse_small, text)?;
    if faults <= FAULTS_MAX { Ok(faults) } else { Err(QuantityError::TooLarge) }
}

fn parse_model_bytes(text: &str) -> Result<u64, QuantityError> {
    let bytes = quantity::above_zero(quantity::bytes, text)?;
    if bytes <= MODEL_BYTES_MAX { Ok(bytes) } else { Err(QuantityError::TooLarge) }
}

impl Limits {
    /// Reads the limits in `object` over `self`. Of a tenant nothing may rise.
    pub fn read(&self, object: &mut Object<'_>, of: LimitsOf<'_>, diagnostics: &mut Diagnostics) -> Limits {
        self.read_noting(object, of, diagnostics, None)
    }

    /// The same, and where each value was said.
    pub fn read_noting(
        &self,
        object: &mut Object<'_>,
        of: LimitsOf<'_>,
        diagnostics: &mut Diagnostics,
        record: Option<&mut Record>,
    ) -> Limits {
        let mut limits = self.clone();
        let mut reader = LimitReader { diagnostics, of, record };
        reader.read(object, "weight", at_least_one, &mut limits.weight);
        reader.read(object, "instances", at_least_one, &mut limits.instances_max);
        reader.read(object, "payload", some_bytes, &mut limits.payload_bytes_max);
        reader.read(object, "inflight", some_bytes, &mut limits.inflight_bytes_max);
        reader.read(object, "buffer", bytes, &mut limits.buffer_bytes_max);
        reader.read(object, "connections", small, &mut limits.connections_max);
        reader.read(object, "commands", at_least_one, &mut limits.commands_max);
        reader.read(object, "dataflows", small, &mut limits.dataflows_max);
        limits.read_groups(object, &mut reader);
        let choices = [("drop", OnError::Drop), ("deadLetter", OnError::DeadLetter)];
        reader.choose(object, "onError", &choices, &mut limits.on_error);
        let choices =
            [("drop", Late::Drop), ("deadLetter", Late::DeadLetter), ("nextWindow", Late::NextWindow)];
        reader.choose(object, "late", &choices, &mut limits.late);
        if limits.payload_bytes_max > limits.inflight_bytes_max {
            let place = object.get("payload").or(object.get("inflight")).map(|node| node.place.clone());
            let message = "`payload` may not be above `inflight`";
            diagnostics.error(
                "policy/payload-above-inflight",
                place,
                message,
                "no such message could ever be taken in",
            );
        }
        limits
    }

    fn read_groups(&mut self, object: &mut Object<'_>, reader: &mut LimitReader<'_>) {
        if let Some(mut group) = reader.group(object, "cpu") {
            reader.read(&mut group, "rate", some_cpu, &mut self.cpu_rate_milli);
            reader.read(&mut group, "burst", some_time, &mut self.cpu_burst);
            let before = self.cpu_cap;
            reader.choose(&mut group, "cap", &[("true", true), ("false", false)], &mut self.cpu_cap);
            if before && !self.cpu_cap && reader.of.is_lowering() {
                self.cpu_cap = before;
                let place = group.get("cap").map(|node| node.place.clone());
                let message = "a tenant may not lift its policy's `cap`";
                reader.diagnostics.error("policy/above-ceiling", place, message, "leave it out");
            }
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "fuel") {
            for (key, name) in [("rate", "fuel.rate"), ("burst", "fuel.burst")] {
                let place = group.get(key).map(|node| node.place.clone());
                reader.check_fuel_counts(self.engine, name, place);
            }
            reader.read(&mut group, "rate", some_fuel, &mut self.fuel_rate);
            let Unit { parse, show } = some_fuel();
            let said = reader.read_value(&mut group, "burst", parse, &mut self.fuel_burst);
            if self.fuel_burst == u64::MAX && said.is_none() {
                // A second's worth, where nothing else is said.
                self.fuel_burst = self.fuel_rate;
            }
            reader.note(&group, "burst", show(self.fuel_burst), said);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "message") {
            let place = group.get("fuel").map(|node| node.place.clone());
            reader.check_fuel_counts(self.engine, "message.fuel", place);
            reader.read(&mut group, "fuel", some_fuel, &mut self.message_fuel_max);
            reader.read(&mut group, "time", some_time, &mut self.message_time_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "memory") {
            reader.read(&mut group, "total", some_bytes, &mut self.memory_total_bytes_max);
            reader.read(&mut group, "instance", some_bytes, &mut self.memory_instance_bytes_max);
            let (engine, most) = (self.engine.name(), self.engine.memory_bytes_max());
            if self.memory_instance_bytes_max > most
                && let Some(place) = group.get("instance").map(|node| node.place.clone())
            {
                let most = most >> 20;
                let message =
                    format!("an instance of the engine `{engine}` has at most {most}Mi, whatever is allowed");
                reader.diagnostics.warning(
                    "policy/engine-memory",
                    place,
                    message,
                    "the engine `large` has more",
                );
            }
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "output") {
            reader.read(&mut group, "messages", at_least_one, &mut self.output_messages_max);
            reader.read(&mut group, "bytes", some_bytes, &mut self.output_bytes_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "component") {
            reader.read(&mut group, "size", some_bytes, &mut self.component_bytes_max);
            let CompileLimits { time_max, memory_bytes_max } = &mut self.compile;
            reader.read(&mut group, "compileTime", some_time, time_max);
            reader.read(&mut group, "compileMemory", some_bytes, memory_bytes_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "faults") {
            reader.read(&mut group, "retries", small, &mut self.fault_retries_max);
            reader.read(&mut group, "coolDown", time, &mut self.fault_cool_down);
            reader.read(&mut group, "quarantineAfter", some_faults, &mut self.quarantine_after);
            reader.read(&mut group, "within", some_time, &mut self.quarantine_within);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "state") {
            reader.read(&mut group, "keys", count, &mut self.state.keys_max);
            reader.read(&mut group, "bytes", bytes, &mut self.state.bytes_max);
            reader.read(&mut group, "value", bytes, &mut self.state.value_bytes_max);
            reader.read(&mut group, "windows", bytes, &mut self.window_bytes_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "deadLetters") {
            let DeadLetterLimits { count_max, bytes_max, age_max } = &mut self.dead_letters;
            reader.read(&mut group, "count", count, count_max);
            reader.read(&mut group, "bytes", bytes, bytes_max);
            reader.read(&mut group, "age", some_time, age_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "inference") {
            let InferenceLimits { memory_bytes_max, time_max, model_bytes_max } = &mut self.inference;
            reader.read(&mut group, "memory", some_bytes, memory_bytes_max);
            reader.read(&mut group, "time", some_time, time_max);
            reader.read(&mut group, "model", model_bytes, model_bytes_max);
            reader.check_inference(&mut group, &self.inference);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "log") {
            reader.read(&mut group, "lines", some_calls, &mut self.log.lines_max);
            reader.read(&mut group, "bytes", some_bytes, &mut self.log.bytes_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "metrics") {
            reader.read(&mut group, "series", small, &mut self.series_max);
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "calls") {
            for interface in Interface::limited() {
                let mut calls = self.calls.of(interface).unwrap_or(u64::MAX);
                reader.read(&mut group, interface.name(), some_calls, &mut calls);
                if calls < u64::MAX {
                    self.calls.set(interface, calls);
                }
            }
            group.finish(reader.diagnostics);
        }
        if let Some(mut group) = reader.group(object, "time") {
            reader.read(&mut group, "lateness", time, &mut self.lateness_max);
            reader.read(&mut group, "idle", time, &mut self.idle_max);
            reader.read(&mut group, "tick", time, &mut self.tick_max);
            group.finish(reader.diagnostics);
        }
    }
}

impl Policy {
    /// Reads a Policy's `spec`.
    pub fn read(name: Text, mut spec: Object<'_>, diagnostics: &mut Diagnostics) -> Option<Policy> {
        let world = spec.need_text("world", diagnostics);
        let engines = EngineKind::ALL.map(|engine| (engine.name(), engine));
        let (engine, engine_place) = spec.choice_at("engine", &engines, diagnostics).unzip();
        let engine = engine.unwrap_or_default();
        let mut record = Record::default();
        if let Some(world) = &world {
            record.note("", "world", world.text.clone(), Some(world.place.clone()));
        }
        record.note("", "engine", engine.name().to_owned(), engine_place);
        let limits = Limits::of_engine(engine).read_noting(
            &mut spec,
            LimitsOf::Policy(&name.text),
            diagnostics,
            Some(&mut record),
        );
        let mut endpoints = Vec::new();
        for node in spec.list("endpoints", diagnostics) {
            let mut grant = Object::of(node, "an endpoint", super::yaml::Unknown::Error, diagnostics);
            let name = grant.need_text("name", diagnostics);
            let mut topics = |key| {
                let nodes = grant.list(key, diagnostics).iter();
                nodes.filter_map(|node| topic_grant(node, key, diagnostics)).collect::<Vec<_>>()
            };
            let (read, write) = (topics("read"), topics("write"));
            let rates = Rates {
                r#in: rate(&mut grant, "in", diagnostics),
                out: rate(&mut grant, "out", diagnostics),
            };
            if let Some(name) = &name {
                let value = format!("read {}, write {}{}", read.len(), write.len(), show_rates(rates));
                record.note("endpoints", &name.text, value, Some(name.place.clone()));
            }
            grant.finish(diagnostics);
            let Some(name) = name else { continue };
            if endpoints.iter().any(|other: &EndpointGrant| other.name.text == name.text) {
                let message = format!("the endpoint `{}` is granted twice", name.text);
                diagnostics.error(
                    "policy/duplicate-endpoint",
                    name.place,
                    message,
                    "put all topics into one entry",
                );
                continue;
            }
            endpoints.push(EndpointGrant { name, read, write, rates });
        }
        if endpoints.is_empty() {
            record.note("", "endpoints", "none".to_owned(), None);
        }
        spec.finish(diagnostics);
        Some(Policy { name: name.text, world: world?, limits, endpoints, record })
    }

    /// What a tenant of this policy may read and write.
    pub fn grants_for(&self, tenant: &str) -> Vec<Grants> {
        let filters = |texts: &[Text]| {
            let texts = texts.iter().map(|text| text.text.replace(TENANT, tenant));
            texts.filter_map(|text| TopicFilter::parse(&text).ok()).collect()
        };
        let grants = self.endpoints.iter().map(|grant| Grants {
            endpoint: grant.name.text.clone(),
            read: filters(&grant.read),
            write: filters(&grant.write),
            rates: grant.rates,
        });
        grants.collect()
    }
}

/// Messages and bytes a second, under `key` of an endpoint.
fn rate(grant: &mut Object<'_>, key: &'static str, diagnostics: &mut Diagnostics) -> Rate {
    let mut rate = Rate::default();
    let Some(mut object) = grant.object(key, diagnostics) else { return rate };
    let Rate { messages, bytes } = &mut rate;
    for (key, Unit { parse, .. }, into) in
        [("messages", some_calls(), messages), ("bytes", some_bytes(), bytes)]
    {
        let Some(text) = object.text(key, diagnostics) else { continue };
        match parse(&text.text) {
            Ok(value) => *into = Some(value),
            Err(error) => {
                let message = format!("`{}` is no value for `{key}`", text.text);
                diagnostics.error("policy/quantity", text.place, message, error.to_string());
            }
        }
    }
    object.finish(diagnostics);
    rate
}

fn show_rates(Rates { r#in, out }: Rates) -> String {
    let mut text = String::new();
    for (side, Rate { messages, bytes }) in [("in", r#in), ("out", out)] {
        let messages = messages.map(|messages| format!("{} messages/s", quantity::show_count(messages)));
        let bytes = bytes.map(|bytes| format!("{} bytes/s", quantity::show_bytes(bytes)));
        for rate in messages.into_iter().chain(bytes) {
            text.push_str(&format!(", {side} {rate}"));
        }
    }
    text
}

/// The only variable in a grant.
const TENANT: &str = "{tenant}";

fn topic_grant(node: &super::yaml::Node, key: &str, diagnostics: &mut Diagnostics) -> Option<Text> {
    let text = Text::of(node, key, diagnostics)?;
    let filled = text.text.replace(TENANT, "tenant");
    let problem = if filled.contains(['{', '}']) {
        Some("`{tenant}` is the only variable".to_owned())
    } else {
        TopicFilter::parse(&filled).err().map(|error| error.to_string())
    };
    if let Some(problem) = problem {
        let message = format!("`{}` is no topic filter", text.text);
        diagnostics.error("policy/topic", text.place.clone(), message, problem);
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests;
