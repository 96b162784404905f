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
    /// A component's file among the guests, without `.wasm` and `hostile_`.
    pub guest: String,
    /// Kind of operator.
    pub kind: String,
    pub configuration: Vec<(String, String)>,
    /// Whether the host can take the core from it at any moment.
    pub interruptible: bool,
    /// What a guilty payload holds; without it every message is guilty.
    pub trigger: Option<String>,
    /// Messages a second that each attacker is sent.
    pub rate: u32,
    pub payload: Option<Template>,
    /// To which size payloads are filled up.
    pub payload_bytes: usize,
    /// What the attacker gets, in a sentence.
    pub gets: String,
    pub at: Where,
    /// Keys of a policy's `spec` that differ from those of `standard`.
    pub policy: Option<serde_json::Value>,
}

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

/// All attacks of a list.
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
            let Some(attack) = attack(node, &mut problems) else { continue };
            if attacks.iter().any(|other| other.name == attack.name) {
                let message = format!("the attack `{}` is listed twice", attack.name);
                problems.add("attack/name", node.place.clone(), message, "an attack has a name of its own");
            }
            attacks.push(attack);
        }
    }
    if problems.is_empty() { Ok(attacks) } else { Err(problems.sorted()) }
}

fn attack(node: &Node, problems: &mut Problems) -> Option<Attack> {
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
    let gets = object.need_text("gets", problems).map(str::to_owned);
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
    Some(Attack {
        name: name?,
        guest: guest?,
        kind: kind?.to_owned(),
        configuration,
        interruptible: interruptible.unwrap_or(true),
        trigger,
        rate: rate.unwrap_or(RATE_DEFAULT) as u32,
        payload,
        payload_bytes: payload_bytes.unwrap_or(0) as usize,
        gets: gets?,
        at: at.unwrap_or(Where::Message),
        policy: policy.map(Node::to_json),
    })
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
