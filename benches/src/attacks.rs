//! The list of attacks, `tenants/hostile/attacks.yaml`, as tests and benches read it. What its keys
//! mean is said there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;
use tidegate::{
    dead_letter::Reason,
    guest::OperatorKind,
    resource::{
        Diagnostics, Limits, Policy,
        diagnostic::SourceFile,
        yaml::{self, Object, Text, Unknown},
    },
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attack {
    pub name: String,
    pub guest: String,
    pub kind: Kind,
    pub configuration: BTreeMap<String, String>,
    pub interruptible: bool,
    pub trigger: Option<String>,
    pub rate: u32,
    pub payload: Option<String>,
    pub payload_bytes: Option<usize>,
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    pub gets: String,
    #[serde(rename = "where")]
    pub at: At,
    #[serde(default = "nothing")]
    pub policy: Value,
    pub fate: Fate,
    pub words: Option<String>,
    #[serde(default)]
    pub also: Vec<Kind>,
    pub twin: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    #[serde(default = "one")]
    pub operators: usize,
    pub deploys: Option<usize>,
    pub source: Option<String>,
    pub destination: Option<String>,
    /// For those who deploy it: a street has no endpoints.
    pub endpoint: Option<Endpoint>,
    pub through: Option<Through>,
    pub like: Option<String>,
    pub shown_by: Option<String>,
}

fn nothing() -> Value {
    serde_json::json!({})
}

fn one() -> usize {
    1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Map,
    Filter,
    Branch,
    Accumulate,
    Delay,
}

impl Kind {
    pub fn operator(self) -> OperatorKind {
        match self {
            Kind::Map => OperatorKind::Map,
            Kind::Filter => OperatorKind::Filter,
            Kind::Branch => OperatorKind::Branch,
            Kind::Accumulate => OperatorKind::Accumulate,
            Kind::Delay => OperatorKind::Delay,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    Message,
    Init,
    Start,
    Deploy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    Mqtt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    Broker,
}

/// What must become of a guilty message, of the whole dataflow, or of its deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Fate {
    Alive(Alive),
    Dead(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alive {
    /// The message comes out after all.
    Passes,
    /// It is dropped with the operator's error.
    Error,
    /// It is in a window.
    Held,
    /// The operator never starts; the dataflow's state says so.
    Fails,
    /// Nothing of it is ever run.
    Refused,
}

/// Of the project's folder.
pub fn hostile() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tenants/hostile")
}

/// The whole list.
pub fn all() -> Vec<Attack> {
    let path = hostile().join("attacks.yaml");
    let text = fs::read_to_string(&path).expect("a file of the project");
    let json = document(&text);
    let entries = json.as_array().expect("a list");
    entries
        .iter()
        .map(|entry| serde_json::from_value(entry.clone()).unwrap_or_else(|error| panic!("{error}: {entry}")))
        .collect()
}

fn document(text: &str) -> Value {
    with_document(text, |node, _| node.to_json())
}

fn with_document<T>(text: &str, read: impl FnOnce(&yaml::Node, &mut Diagnostics) -> T) -> T {
    let file = Arc::new(SourceFile { path: "attacks.yaml".into(), text: text.to_owned() });
    let mut diagnostics = Diagnostics::default();
    let documents = yaml::parse(&file, &mut diagnostics);
    let [document] = &documents[..] else { panic!("one document, not {}", documents.len()) };
    let read = read(document, &mut diagnostics);
    assert!(!diagnostics.has_errors(), "{}", diagnostics.to_text(false));
    read
}

impl Attack {
    /// The limits that its tenant has.
    pub fn limits(&self) -> Limits {
        let mut spec = self.policy.clone();
        spec["world"] = "tidegate:policy/standard@0.1.0".into();
        with_document(&spec.to_string(), |node, diagnostics| {
            let name = Text { text: "attacker".into(), place: node.place.clone() };
            let spec = Object::of(node, "a spec", Unknown::Error, diagnostics);
            Policy::read(name, spec, diagnostics).expect("it has a world").limits
        })
    }

    /// The lines of a policy's spec that say the same.
    pub fn policy_lines(&self) -> Vec<String> {
        let keys = self.policy.as_object().expect("a mapping");
        keys.iter().map(|(key, value)| format!("{key}: {value}")).collect()
    }

    /// The messages of a run: a guilty one between innocent ones, or all guilty.
    pub fn payloads(&self) -> [String; 3] {
        let payload = |text: &str| {
            let text = self.payload.as_deref().unwrap_or(text);
            let padding = self.payload_bytes.map_or(0, |bytes| bytes.saturating_sub(text.len()));
            text.to_owned() + &"x".repeat(padding)
        };
        [payload("one"), payload(self.trigger.as_deref().unwrap_or("two")), payload("three")]
    }

    /// Which of them are guilty.
    pub fn guilty(&self) -> BTreeSet<usize> {
        if self.trigger.is_some() { BTreeSet::from([1]) } else { BTreeSet::from([0, 1, 2]) }
    }

    /// With the name of a tenant that it goes for.
    pub fn beside(mut self, neighbour: &str) -> Self {
        let fill = |text: &mut String| *text = text.replace("$NEIGHBOUR", neighbour);
        self.configuration.values_mut().for_each(fill);
        self.source.iter_mut().for_each(fill);
        self.destination.iter_mut().for_each(fill);
        self
    }

    /// The same as another kind of operator.
    pub fn as_kind(&self, kind: Kind) -> Self {
        Attack { kind, also: Vec::new(), twin: None, ..self.clone() }
    }

    /// With the parameters under which the guest passes.
    pub fn as_twin(&self, parameters: &BTreeMap<String, String>) -> Self {
        let mut twin = Attack {
            name: format!("{}, its twin", self.name),
            fate: Fate::Alive(Alive::Passes),
            also: Vec::new(),
            twin: None,
            counts: BTreeMap::new(),
            ..self.clone()
        };
        twin.configuration.extend(parameters.clone());
        twin
    }

    pub fn parameters(&self) -> Vec<(&str, &str)> {
        self.configuration.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}
