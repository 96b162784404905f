//! From a file's text to a [`Scenario`], or to all that is wrong with it.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    Beside, BrokerKind, Host, IdIn, Operator, Scenario, Tenants, Thresholds, Topics, Unfit, quiet_names,
    unfit,
};
use crate::{
    connector::Connector,
    diagnostic::{Place, Problems, SourceFile},
    payload::{Payloads, Template},
    quantity,
    schedule::Shape,
    spread::Spread,
    yaml::{self, Node, Object, Value},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const ROUNDS_MAX: u64 = 100;
const TENANTS_MAX: u64 = 20_000;
const RATE_MAX: f64 = 200_000.0;
const RATE_ALLOWED: &str = "from 0/s to 200000/s";
const ZIPF_MAX: f64 = 5.0;

pub fn scenario(file: &Arc<SourceFile>, folder: Option<&Path>) -> Result<Scenario, Problems> {
    let mut problems = Problems::default();
    let node = yaml::parse(file, &mut problems);
    let scenario = node.and_then(|node| document(&node, folder, &mut problems));
    match scenario {
        Some(scenario) if problems.is_empty() => Ok(scenario),
        _ => Err(problems.sorted()),
    }
}

/// None only with a problem.
fn document(node: &Node, folder: Option<&Path>, problems: &mut Problems) -> Option<Scenario> {
    let mut root = Object::of(node, "a scenario", problems);
    let name = root.need("name", problems).and_then(|node| name(node, "name", problems));
    let about = root.need_text("about", problems).map(str::to_owned);
    let seed = root.quantity("seed", quantity::count, 0..=u64::MAX, "", problems).unwrap_or(1);
    let connectors = Connector::ALL.map(|connector| (connector.name(), connector));
    let connector_key = root.key("connector");
    let connector = root.choice("connector", &connectors, problems).unwrap_or_default();
    root.need("phase", problems);
    let phase = root.quantity("phase", quantity::time, SECOND..=DAY, "from 1s to 24h", problems);
    let rounds = root.quantity("rounds", quantity::count, 1..=ROUNDS_MAX, "from 1 to 100", problems);
    let patience = root.quantity("patience", quantity::time, SECOND..=DAY / 24, "from 1s to 1h", problems);
    root.need("tenants", problems);
    let tenants = root.object("tenants", problems).and_then(|object| tenants(object, problems));
    let operators = root.list("operators", problems).map(|nodes| operators(nodes, problems));
    root.need("arrivals", problems);
    let arrivals = root.object("arrivals", problems).and_then(|object| arrivals(object, phase, problems));
    root.need("messages", problems);
    let messages = root.object("messages", problems).and_then(|object| messages(object, folder, problems));
    let several = tenants.as_ref().is_none_or(|(tenants, _)| tenants.names().len() > 1);
    let topics = match root.object("topics", problems) {
        Some(object) => topics(object, several, connector, problems),
        None => Some(connector.topics()),
    };
    let host =
        root.object("host", problems).map(|object| host(object, connector, problems)).unwrap_or_default();
    let beside_key = root.key("beside");
    let beside =
        root.object("beside", problems).and_then(|object| beside(object, phase, host.broker, problems));
    let has_steps = matches!(&tenants, Some((Tenants::Steps(_), _)));
    if let Some(place) = beside_key.clone().filter(|_| has_steps) {
        contradiction(place, "`beside` with steps of tenants", "have one or the other", problems);
    }
    let thresholds = match root.object("thresholds", problems) {
        Some(object) => thresholds(object, beside_key.is_some(), beside.as_ref(), problems),
        None => Thresholds::default(),
    };
    let thresholds = match connector.is_in_order() {
        true => Thresholds { out_of_order: thresholds.out_of_order.or(Some(0)), ..thresholds },
        false => thresholds,
    };
    let named = tenants.as_ref().map(|(tenants, _)| tenants);
    for Unfit { key, why, help } in unfit(connector, named, topics.as_ref(), beside.as_ref()) {
        let place = root.key(key).or_else(|| connector_key.clone()).unwrap_or_else(|| root.place());
        let message = format!("`{key}` and `connector: {}` contradict each other", connector.name());
        problems.add("scenario/contradiction", place, message, format!("{why}: {help}"));
    }
    root.finish(problems);
    let (tenants, spread) = tenants?;
    let (payloads, id) = messages?;
    Some(Scenario {
        name: name?,
        about: about?,
        seed,
        connector,
        phase: phase?,
        rounds: rounds.unwrap_or(1) as usize,
        patience: patience.unwrap_or(SECOND * 30),
        tenants,
        spread,
        operators: operators.unwrap_or_else(default_operators),
        arrivals: arrivals?,
        payloads,
        id,
        topics: topics?,
        host,
        beside,
        thresholds,
    })
}

/// Drops nothing of what the shipped templates say, and adds Fahrenheit.
fn default_operators() -> Vec<Operator> {
    let operator = |guest: &str, kind: &str, configuration: &[(&str, &str)]| Operator {
        guest: guest.into(),
        kind: kind.into(),
        configuration: configuration.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    };
    vec![
        operator("json_filter", "filter", &[("field", "temperature"), ("op", "gt"), ("value", "-1000")]),
        operator(
            "unit_convert",
            "map",
            &[("field", "temperature"), ("from", "C"), ("to", "F"), ("output", "fahrenheit")],
        ),
    ]
}

fn contradiction(place: Place, message: &str, help: impl Into<String>, problems: &mut Problems) {
    problems.add("scenario/contradiction", place, format!("{message} contradict each other"), help);
}

/// What becomes a folder, a topic or a client id: letters, digits, `-` and `_`.
fn name(node: &Node, what: &str, problems: &mut Problems) -> Option<String> {
    let text = yaml::text(node, what, problems)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
        let message = format!("`{text}` is no name");
        let label = "1 to 64 letters, digits, `-` or `_`";
        problems.add("scenario/name", node.place.clone(), message, label);
        return None;
    }
    Some(text.to_owned())
}

fn tenants(mut object: Object<'_>, problems: &mut Problems) -> Option<(Tenants, Spread)> {
    let allowed = "from 1 to 20000";
    let count = object.quantity("count", quantity::count, 1..=TENANTS_MAX, allowed, problems);
    let names = object.list("names", problems).map(|nodes| distinct_names(nodes, problems));
    let steps = object.list("steps", problems).map(|nodes| steps(nodes, problems));
    let spread = match object.get("spread") {
        Some(node) => spread(node, problems),
        None => Some(Spread::Uniform),
    };
    let said: Vec<Place> = ["count", "names", "steps"].iter().filter_map(|key| object.key(key)).collect();
    match said.as_slice() {
        [] if !object.is_mapping() => {}
        [] => {
            let label = "say one of `count`, `names` and `steps`";
            problems.add("yaml/missing-key", object.place(), "it is not said which tenants there are", label);
        }
        [_] => {}
        [_, second, ..] => {
            let message = "two ways to say which tenants there are";
            contradiction(second.clone(), message, "have one of `count`, `names` and `steps`", problems);
        }
    }
    object.finish(problems);
    let named = names.or(count.map(|count| quiet_names(count as usize))).map(Tenants::Named);
    named.or(steps.map(Tenants::Steps)).zip(spread)
}

fn distinct_names(nodes: &[Node], problems: &mut Problems) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for node in nodes {
        match name(node, "names", problems) {
            Some(name) if names.contains(&name) => {
                let message = format!("the tenant `{name}` is named twice");
                problems.add("scenario/name", node.place.clone(), message, "a tenant is there once");
            }
            name => names.extend(name),
        }
    }
    names
}

fn steps(nodes: &[Node], problems: &mut Problems) -> Vec<usize> {
    let mut steps: Vec<usize> = Vec::new();
    for node in nodes {
        let Some(text) = yaml::text(node, "steps", problems) else { continue };
        match quantity::count(text) {
            Ok(step) if (1..=TENANTS_MAX).contains(&step) && steps.last() < Some(&(step as usize)) => {
                steps.push(step as usize);
            }
            _ => {
                let message = format!("`{text}` is no next step");
                let label = "each step is a number up to 20000 and more than the one before";
                problems.add("scenario/steps", node.place.clone(), message, label);
            }
        }
    }
    steps
}

fn spread(node: &Node, problems: &mut Problems) -> Option<Spread> {
    match &node.value {
        Value::Map(_) => {
            let mut object = Object::of(node, "`spread`", problems);
            object.need("zipf", problems);
            let exponent = object.quantity("zipf", quantity::factor, 0.0..=ZIPF_MAX, "from 0 to 5", problems);
            object.finish(problems);
            exponent.map(|exponent| Spread::Zipf { exponent })
        }
        _ if node.text() == Some("uniform") => Some(Spread::Uniform),
        _ => {
            let label = "`uniform`, or `{ zipf: 1.1 }`";
            problems.add("yaml/choice", node.place.clone(), "that is no value of `spread`", label);
            None
        }
    }
}

fn operators(nodes: &[Node], problems: &mut Problems) -> Vec<Operator> {
    let mut operators = Vec::new();
    for node in nodes {
        let mut object = Object::of(node, "an operator", problems);
        let guest = object.need("guest", problems).and_then(|node| name(node, "guest", problems));
        object.need("kind", problems);
        let kinds = [("map", "map"), ("filter", "filter")];
        let kind = object.choice("kind", &kinds, problems);
        let configuration = object.object("configuration", problems);
        let configuration = configuration.map(|object| texts(&object, problems)).unwrap_or_default();
        object.finish(problems);
        operators.extend(guest.zip(kind).map(|(guest, kind)| Operator {
            guest,
            kind: kind.to_owned(),
            configuration,
        }));
    }
    operators
}

/// A mapping of texts, of whatever keys.
pub fn texts(object: &Object<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let pair = |(key, value): &(Node, Node)| {
        let key = key.text().unwrap_or_default().to_owned();
        yaml::text(value, &key, problems).map(|text| (key.clone(), text.to_owned()))
    };
    object.pairs().iter().filter_map(pair).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ShapeName {
    Constant,
    Poisson,
    Burst,
    Ramp,
    Diurnal,
}

const SHAPES: [(&str, ShapeName, &[&str]); 5] = [
    ("constant", ShapeName::Constant, &["rate"]),
    ("poisson", ShapeName::Poisson, &["rate"]),
    ("burst", ShapeName::Burst, &["rate", "peak", "every", "length"]),
    ("ramp", ShapeName::Ramp, &["from", "to"]),
    ("diurnal", ShapeName::Diurnal, &["low", "high", "period"]),
];

fn arrivals(mut object: Object<'_>, phase: Option<Duration>, problems: &mut Problems) -> Option<Shape> {
    object.need("shape", problems);
    let shape = object.choice("shape", &SHAPES.map(|(name, shape, _)| (name, shape)), problems);
    let mut rate = |key| object.quantity(key, quantity::rate, 0.0..=RATE_MAX, RATE_ALLOWED, problems);
    let [one, peak, from, to, low, high] = ["rate", "peak", "from", "to", "low", "high"].map(&mut rate);
    let mut time = |key| {
        object.quantity(key, quantity::time, Duration::from_millis(1)..=DAY, "from 1ms to 24h", problems)
    };
    let [every, length, period] = ["every", "length", "period"].map(&mut time);
    if let Some((name, _, wanted)) = SHAPES.iter().find(|(_, it, _)| Some(*it) == shape) {
        keys_of_shape(&object, name, wanted, problems);
    }
    let places = |key: &str| object.key(key).unwrap_or_else(|| object.place());
    let shape = match shape? {
        ShapeName::Constant => Shape::Constant { rate: one? },
        ShapeName::Poisson => Shape::Poisson { rate: one? },
        ShapeName::Burst => {
            let (rate, peak, every, length) = (one?, peak?, every?, length?);
            if length >= every {
                contradiction(
                    places("length"),
                    "`length` and `every`",
                    "a burst ends before the next",
                    problems,
                );
            }
            if peak <= rate {
                contradiction(places("peak"), "`peak` and `rate`", "a burst is above the rate", problems);
            }
            if phase.is_some_and(|phase| every > phase) {
                let help = "a phase has at least one burst and the time after it";
                contradiction(places("every"), "`every` and `phase`", help, problems);
            }
            Shape::Burst { rate, peak, every, length }
        }
        ShapeName::Ramp => Shape::Ramp { from: from?, to: to? },
        ShapeName::Diurnal => {
            let (low, high, period) = (low?, high?, period?);
            if low >= high {
                contradiction(places("low"), "`low` and `high`", "night is below noon", problems);
            }
            Shape::Diurnal { low, high, period }
        }
    };
    let most = shape.peak();
    if most == 0.0 {
        let label = "at least one rate is above 0";
        problems.add("scenario/rate", object.place(), "nothing would ever be sent", label);
    }
    object.finish(problems);
    Some(shape)
}

/// A shape has its own keys, all of them, and no other shape's.
fn keys_of_shape(object: &Object<'_>, name: &str, wanted: &[&'static str], problems: &mut Problems) {
    for key in wanted.iter().filter(|key| object.key(key).is_none()) {
        let message = format!("the key `{key}` is missing");
        let label = format!("`{name}` has {}", wanted.join(", "));
        problems.add("yaml/missing-key", object.place(), message, label);
    }
    let all = SHAPES.iter().flat_map(|(_, _, keys)| keys.iter());
    let mut seen: Vec<&str> = Vec::new();
    for key in all.filter(|key| !wanted.contains(key)) {
        let Some(place) = object.key(key).filter(|_| !seen.contains(key)) else { continue };
        seen.push(key);
        let message = format!("`{key}` is no key of the shape `{name}`");
        let label = format!("`{name}` has {}", wanted.join(", "));
        problems.add("scenario/contradiction", place, message, label);
    }
}

fn messages(
    mut object: Object<'_>,
    folder: Option<&Path>,
    problems: &mut Problems,
) -> Option<(Payloads, IdIn)> {
    let template_node = object.get("template");
    let template = template_node.and_then(|node| template(node, problems));
    let data_node = object.get("data");
    let data = data_node.and_then(|node| data(node, folder, problems));
    let id = object.choice("id", &[("payload", IdIn::Payload), ("property", IdIn::Property)], problems);
    let id_place = object.key("id");
    match (template_node, data_node) {
        (None, None) if !object.is_mapping() => {}
        (None, None) => {
            let label = "say `template` or `data`";
            problems.add("yaml/missing-key", object.place(), "it is not said what messages say", label);
        }
        (Some(_), Some(data)) => {
            let place = object.key("data").unwrap_or_else(|| data.place.clone());
            contradiction(place, "`template` and `data`", "have one of them", problems);
        }
        (None, Some(_)) if id == Some(IdIn::Payload) => {
            let place = id_place.unwrap_or_else(|| object.place());
            let help = "lines of a file hold no id: write `id: property`";
            contradiction(place, "`id: payload` and `data`", help, problems);
        }
        (Some(node), None)
            if id != Some(IdIn::Property) && template.as_ref().is_some_and(|template| !template.has_id()) =>
        {
            let message = "the template has no `{id}`";
            let label = "put `{id}` into it, or write `id: property`";
            problems.add("scenario/contradiction", node.place.clone(), message, label);
        }
        _ => {}
    }
    object.finish(problems);
    let default = if data_node.is_some() { IdIn::Property } else { IdIn::Payload };
    let payloads = template.map(Payloads::Template).or(data)?;
    Some((payloads, id.unwrap_or(default)))
}

/// The text of a node as a template.
pub fn template(node: &Node, problems: &mut Problems) -> Option<Template> {
    let text = yaml::text(node, "template", problems)?;
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            let Place { file, line, column, len } = node.place.clone();
            // Within quotes, if what stands in the file is what was read from it.
            let written: String =
                file.text.lines().nth(line - 1).unwrap_or_default().chars().skip(column - 1).collect();
            let quoted = written.get(1..).is_some_and(|rest| rest.starts_with(text));
            let place = match (quoted, written.starts_with(text)) {
                (true, _) => Place { file, line, column: column + 1 + error.at, len: error.len },
                (_, true) => Place { file, line, column: column + error.at, len: error.len },
                _ => Place { file, line, column, len },
            };
            problems.add("scenario/template", place, error.message, error.help);
            None
        }
    }
}

/// The demo's data, by name.
const DATA: [(&str, &str, &str); 2] = [
    ("weather", "weather.csv", include_str!("../../../tenants/demo/data/seattle-weather-hourly-normals.csv")),
    ("earthquakes", "earthquakes.jsonl", include_str!("../../../tenants/demo/data/earthquakes.jsonl")),
];

fn data(node: &Node, folder: Option<&Path>, problems: &mut Problems) -> Option<Payloads> {
    let name = yaml::text(node, "data", problems)?;
    let mut wrong = |why: String| {
        let message = format!("`{name}` gives no messages: {why}");
        let label = "`weather`, `earthquakes`, or a file beside the scenario";
        problems.add("scenario/data", node.place.clone(), message, label);
    };
    let read = match (DATA.iter().find(|(known, ..)| *known == name), folder) {
        (Some((_, file, text)), _) => Payloads::of_file(file, text).map_err(str::to_owned),
        (None, Some(folder)) => std::fs::read_to_string(folder.join(name))
            .map_err(|error| error.to_string())
            .and_then(|text| Payloads::of_file(name, &text).map_err(str::to_owned)),
        (None, None) => Err("there is no such data".to_owned()),
    };
    read.map_err(&mut wrong).ok()
}

fn topics(
    mut object: Object<'_>,
    several: bool,
    connector: Connector,
    problems: &mut Problems,
) -> Option<Topics> {
    let mut topic = |key| {
        let node = object.need(key, problems)?;
        let text = yaml::text(node, key, problems)?;
        let levels = text.split('/');
        let whole = levels.clone().all(|level| !level.contains("{tenant}") || level == "{tenant}");
        // Kafka's names have no levels, and are looked at as a whole.
        let whole = whole || connector.is_kafka();
        if text.is_empty() || text.contains(['+', '#', '\0']) || !whole {
            let message = format!("`{text}` is no topic");
            let label = "no wildcards; `{tenant}` is a level of its own";
            problems.add("scenario/topic", node.place.clone(), message, label);
            return None;
        }
        if several && !text.contains("{tenant}") {
            let message = format!("`{text}` is the same topic for every tenant");
            problems.add("scenario/topic", node.place.clone(), message, "put `{tenant}` into it");
            return None;
        }
        Some(text.to_owned())
    };
    let topics = topic("in").zip(topic("out"));
    if topics.as_ref().is_some_and(|(input, output)| input == output) {
        let place = object.key("out").unwrap_or_else(|| object.place());
        contradiction(place, "`in` and `out`", "what is sent would come back without a host", problems);
    }
    object.finish(problems);
    topics.map(|(input, output)| Topics { input, output })
}

impl Default for Host {
    fn default() -> Self {
        Host { shards: 1, broker: BrokerKind::Any }
    }
}

fn host(mut object: Object<'_>, connector: Connector, problems: &mut Problems) -> Host {
    let shards = object.quantity("shards", quantity::count, 1..=64, "from 1 to 64", problems);
    let kinds =
        [("any", BrokerKind::Any), ("mosquitto", BrokerKind::Mosquitto), ("embedded", BrokerKind::Embedded)];
    let broker = object.choice("broker", &kinds, problems);
    if let Some(place) = object.key("broker").filter(|_| connector != Connector::Mqtt) {
        let message = format!("`broker` and `connector: {}`", connector.name());
        contradiction(place, &message, "it says which broker of MQTT: leave it out", problems);
    }
    object.finish(problems);
    let default = Host::default();
    Host { shards: shards.unwrap_or(default.shards), broker: broker.unwrap_or(default.broker) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BesideName {
    Attacks,
    Deploys,
    KillHost,
    RestartBroker,
}

const BESIDES: [(&str, BesideName, &[&str]); 4] = [
    ("attacks", BesideName::Attacks, &["attackers", "only"]),
    ("deploys", BesideName::Deploys, &["tenants"]),
    ("kill-host", BesideName::KillHost, &["every"]),
    ("restart-broker", BesideName::RestartBroker, &["every"]),
];

fn beside(
    mut object: Object<'_>,
    phase: Option<Duration>,
    broker: BrokerKind,
    problems: &mut Problems,
) -> Option<Beside> {
    object.need("what", problems);
    let what = object.choice("what", &BESIDES.map(|(name, what, _)| (name, what)), problems);
    let attackers = object.quantity("attackers", quantity::count, 1..=1_000, "from 1 to 1000", problems);
    let only = object.list("only", problems).map(|nodes| distinct_names(nodes, problems));
    let tenants = object.quantity("tenants", quantity::count, 1..=1_000, "from 1 to 1000", problems);
    let every = object.quantity("every", quantity::time, SECOND..=DAY, "from 1s to 24h", problems);
    if let Some((name, _, own)) = BESIDES.iter().find(|(_, it, _)| Some(*it) == what) {
        for key in ["attackers", "only", "tenants", "every"].iter().filter(|key| !own.contains(key)) {
            if let Some(place) = object.key(key) {
                let message = format!("`{key}` has no meaning beside `{name}`");
                problems.add(
                    "scenario/contradiction",
                    place,
                    message,
                    format!("`{name}` has {}", own.join(", ")),
                );
            }
        }
    }
    let place = |key: &str| object.key(key).unwrap_or_else(|| object.place());
    if matches!(what, Some(BesideName::KillHost | BesideName::RestartBroker)) {
        if broker == BrokerKind::Embedded {
            let help = "the embedded broker dies with its host: write `broker: mosquitto`";
            contradiction(place("what"), "this and `broker: embedded`", help, problems);
        }
        if every.zip(phase).is_some_and(|(every, phase)| every >= phase) {
            let help = "it would not happen within a phase";
            contradiction(place("every"), "`every` and `phase`", help, problems);
        }
    }
    object.finish(problems);
    let every = every.unwrap_or(SECOND * 5);
    Some(match what? {
        BesideName::Attacks => {
            Beside::Attacks { attackers: attackers.unwrap_or(2) as usize, only: only.unwrap_or_default() }
        }
        BesideName::Deploys => Beside::Deploys { tenants: tenants.unwrap_or(20) as usize },
        BesideName::KillHost => Beside::KillHost { every },
        BesideName::RestartBroker => Beside::RestartBroker { every },
    })
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            p99: None,
            ratio: None,
            slack: Duration::ZERO,
            uninterruptible: Duration::ZERO,
            lost: 0,
            duplicates: None,
            out_of_order: None,
            memory_growth: None,
        }
    }
}

fn thresholds(
    mut object: Object<'_>,
    has_beside: bool,
    beside: Option<&Beside>,
    problems: &mut Problems,
) -> Thresholds {
    let hour = Duration::from_secs(3_600);
    let mut time =
        |key| object.quantity(key, quantity::time, Duration::ZERO..=hour, "from 0s to 1h", problems);
    let [p99, slack, uninterruptible] = ["p99", "slack", "uninterruptible"].map(&mut time);
    let ratio = object.quantity("ratio", quantity::factor, 1.0..=1_000.0, "from 1 to 1000", problems);
    let mut count = |key| object.quantity(key, quantity::count, 0..=u64::MAX, "", problems);
    let lost = count("lost");
    let duplicates = count("duplicates");
    let out_of_order = count("outOfOrder");
    let memory_growth =
        object.quantity("memoryGrowth", quantity::percent, 0.0..=10_000.0, "from 0% to 10000%", problems);
    for key in ["ratio", "slack", "uninterruptible"] {
        if let Some(place) = object.key(key).filter(|_| !has_beside) {
            let message = format!("`{key}` compares with a phase that this scenario does not have");
            problems.add("scenario/contradiction", place, message, "say what is `beside`, or leave it out");
        }
    }
    if let Some(place) = object.key("slack").filter(|_| has_beside && ratio.is_none()) {
        let label = "say `ratio` as well: the bound is ratio × p99 alone + slack";
        problems.add("scenario/contradiction", place, "`slack` without `ratio` bounds nothing", label);
    }
    if let Some(place) = object.key("uninterruptible")
        && beside.is_some_and(|beside| !matches!(beside, Beside::Attacks { .. }))
    {
        let message = "`uninterruptible` is about attacks, and there are none";
        problems.add("scenario/contradiction", place, message, "leave it out");
    }
    object.finish(problems);
    let default = Thresholds::default();
    Thresholds {
        p99,
        ratio,
        slack: slack.unwrap_or_default(),
        uninterruptible: uninterruptible.unwrap_or_default(),
        lost: lost.unwrap_or(default.lost),
        duplicates,
        out_of_order,
        memory_growth,
    }
}
