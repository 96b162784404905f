//! The attacks that the load tool makes: the list of `tenants/hostile`, read strictly.
//! The same list is what the host's own tests go through.

use std::sync::Arc;

use crate::{
    diagnostic::{Problems, SourceFile},
    payload::Template,
    quantity, scenario,
    yaml::{self, Node, Object, Value},
};

/// The list that this program was built with.
pub const LIST: &str = include_str!("../../tenants/hostile/attacks.yaml");

/// One attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Attack {
    pub name: String,
    /// The attack that it is a variant of.
    pub like: Option<String>,
    /// A component's file among the guests, without `.wasm`.
    pub guest: String,
    /// Kind of operator.
    pub kind: String,
    pub configuration: Vec<(String, String)>,
    /// How many of the operator stand in a row.
    pub operators: usize,
    /// Whether the host can take the core from it at any moment.
    pub interruptible: bool,
    /// What a guilty payload holds; without it every message is guilty.
    pub trigger: Option<String>,
    /// Messages a second that each attacker is sent.
    pub rate: u32,
    pub payload: Option<Template>,
    /// To which size payloads are filled up.
    pub payload_bytes: usize,
    /// User properties of its messages.
    pub properties: Vec<(String, String)>,
    /// What the attacker gets, in a sentence.
    pub gets: String,
    pub at: Where,
    /// As many tenants with it at once, each with a component of its own.
    pub deploys: Option<usize>,
    /// What its dataflow reads, and writes to, if that is the attack. [`NEIGHBOUR`] stands
    /// for the name of a quiet tenant, as in its configuration.
    pub source: Option<String>,
    pub destination: Option<String>,
    /// Its deploy must be refused.
    pub is_refused: bool,
    /// Keys of a policy's `spec` that differ from those of `standard`.
    pub policy: Option<serde_json::Value>,
}

/// Stands for the name of another tenant.
pub const NEIGHBOUR: &str = "$NEIGHBOUR";

/// When an attack happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Message,
    Init,
    Start,
    /// The component itself is refused or fails: there is no traffic.
    Deploy,
}

impl Where {
    /// Whether it happens while a dataflow is deployed, over and over.
    pub fn is_deploy(self) -> bool {
        self != Where::Message
    }
}

const RATE_DEFAULT: u64 = 50;
/// Of what MQTT carries in one message.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// Keys that say what the host's own tests look for, from inside.
const OF_TESTS: [&str; 6] = ["also", "counts", "endpoint", "through", "twin", "words"];

/// All attacks of a list, but those that take more than a dataflow of one operator, which a
/// test of the host shows.
pub fn parse(file: &Arc<SourceFile>) -> Result<Vec<Attack>, Problems> {
    let mut problems = Problems::default();
    let mut attacks: Vec<Attack> = Vec::new();
    if let Some(node) = yaml::parse(file, &mut problems) {
        let Value::List(nodes) = &node.value else {
            let label = format!("this is {}", node.kind());
            problems.add("yaml/type", node.place, "attacks must be a list", label);
            return Err(problems);
        };
        for node in nodes {
            let Some((attack, is_shown_by_a_test)) = attack(node, &mut problems) else { continue };
            if attacks.iter().any(|other| other.name == attack.name) {
                let message = format!("the attack `{}` is listed twice", attack.name);
                problems.add("attack/name", node.place.clone(), message, "an attack has a name of its own");
            }
            if !is_shown_by_a_test {
                attacks.push(attack);
            }
        }
    }
    if problems.is_empty() { Ok(attacks) } else { Err(problems.sorted()) }
}

/// An attack, and whether a test of the host shows it.
fn attack(node: &Node, problems: &mut Problems) -> Option<(Attack, bool)> {
    let mut object = Object::of(node, "an attack", problems);
    let name = object.need("name", problems).and_then(|node| name(node, problems));
    let guest = object.need_text("guest", problems).map(str::to_owned);
    let kinds = ["map", "filter", "branch", "accumulate", "delay"].map(|kind| (kind, kind));
    object.need("kind", problems);
    let kind = object.choice("kind", &kinds, problems);
    let configuration = object.object("configuration", problems);
    let configuration = configuration.map(|object| scenario::texts(&object, problems)).unwrap_or_default();
    let interruptible = object.choice("interruptible", &[("true", true), ("false", false)], problems);
    let trigger = object.text("trigger", problems).map(str::to_owned);
    let rate = object.quantity("rate", quantity::count, 1..=100_000, "from 1 to 100000", problems);
    let payload = object.get("payload").and_then(|node| scenario::template(node, problems));
    let bytes = quantity::count;
    let payload_bytes =
        object.quantity("payloadBytes", bytes, 0..=PAYLOAD_BYTES_MAX, "from 0 to 268435456", problems);
    let properties = object.object("properties", problems);
    let properties = properties.map(|object| scenario::texts(&object, problems)).unwrap_or_default();
    let gets = object.need_text("gets", problems).map(sentence);
    let like = object.text("like", problems).map(str::to_owned);
    let several = 1..=1_000;
    let operators =
        object.quantity("operators", quantity::count, several.clone(), "from 1 to 1000", problems);
    let deploys = object.quantity("deploys", quantity::count, several, "from 1 to 1000", problems);
    let [source, destination, fate, shown_by] =
        ["source", "destination", "fate", "shownBy"].map(|key| object.text(key, problems).map(str::to_owned));
    OF_TESTS.iter().for_each(|key| _ = object.get(key));
    let places = [
        ("message", Where::Message),
        ("init", Where::Init),
        ("start", Where::Start),
        ("deploy", Where::Deploy),
    ];
    let at = object.choice("where", &places, problems);
    let policy = object.get("policy");
    if let Some(node) = policy.filter(|node| !matches!(node.value, Value::Map(_))) {
        let label = format!("this is {}", node.kind());
        problems.add("yaml/type", node.place.clone(), "`policy` must be a mapping", label);
    }
    object.finish(problems);
    let attack = Attack {
        name: name?,
        like,
        guest: guest?,
        kind: kind?.to_owned(),
        configuration,
        operators: operators.unwrap_or(1) as usize,
        interruptible: interruptible.unwrap_or(true),
        trigger,
        rate: rate.unwrap_or(RATE_DEFAULT) as u32,
        payload,
        payload_bytes: payload_bytes.unwrap_or(0) as usize,
        properties,
        gets: gets?,
        at: at.unwrap_or(Where::Message),
        deploys: deploys.map(|count| count as usize),
        source,
        destination,
        is_refused: fate.as_deref() == Some("refused"),
        policy: policy.map(Node::to_json),
    };
    Some((attack, shown_by.is_some()))
}

/// The list says it as a part of one.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    let mut sentence: String = first.chain(chars).collect();
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

fn name(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = yaml::text(node, "name", problems)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 48 || !text.chars().all(fits) {
        let label = "1 to 48 lower-case letters, digits and `-`";
        problems.add("attack/name", node.place.clone(), format!("`{text}` is no name"), label);
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
