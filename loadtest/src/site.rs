//! The site folder that a scenario runs on: quiet tenants, attackers, and tenants that
//! come and go.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    attack::{Attack, NEIGHBOUR},
    connector::Connector,
    scenario::{Operator, Scenario, Topics},
};

/// The host refuses files of more values than this many tenants make.
const TENANTS_PER_FILE: usize = 1_000;

/// More than any attack deploys at once.
const DEPLOYS_MAX: u32 = 10_000;

/// The policy that attackers' own ones differ from.
const STANDARD: &str = include_str!("../../policies/standard.yaml");

/// Where `cargo xtask guests` puts components.
pub fn guests_built() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tenants/target/wasm32-wasip2/release").into()
}

/// What the host's endpoints lead to.
#[derive(Clone, Debug)]
pub enum ServerAt {
    /// A broker outside of the host, of MQTT or Kafka.
    Broker(String),
    /// A broker of MQTT in the host, on this port.
    Embedded(u16),
    /// Ports of the host's own server, and of whoever takes webhooks.
    Http { listen: u16, hook: u16 },
}

/// The endpoint that tenants' dataflows take from, and give to unless there is [`HOOK`].
const LOCAL: &str = "local";
const HOOK: &str = "hook";
/// The policy of quiet tenants over anything but MQTT: `standard` with other endpoints.
const OTHER_POLICY: &str = "load";

/// A site folder in the making.
pub struct Site {
    dir: PathBuf,
    guests: PathBuf,
    connector: Connector,
    topics: Topics,
    operators: Vec<Operator>,
    /// A quiet tenant, whom attackers may go for.
    neighbour: String,
}

impl Site {
    /// Writes the Host and its endpoints; no tenants yet.
    pub fn new(dir: &Path, guests: &Path, scenario: &Scenario, server: &ServerAt) -> anyhow::Result<Self> {
        let embedded = match server {
            ServerAt::Embedded(port) => format!(", broker: {{ embedded: true, v5: {port} }}"),
            ServerAt::Broker(_) | ServerAt::Http { .. } => String::new(),
        };
        let mut platform = format!(
            "apiVersion: tidegate.dev/v1\nkind: Host\nmetadata: {{ name: loadtest }}\n\
             spec: {{ shards: {}{embedded} }}\n---\n",
            scenario.host.shards
        );
        for (name, spec) in endpoints(scenario.connector, server) {
            platform += &format!(
                "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\nspec: {spec}\n---\n"
            );
        }
        if scenario.connector != Connector::Mqtt {
            platform += &policy_like_standard(OTHER_POLICY, &grants(scenario))?;
        }
        let site = Site {
            dir: dir.to_owned(),
            guests: guests.to_owned(),
            connector: scenario.connector,
            topics: scenario.topics.clone(),
            operators: scenario.operators.clone(),
            neighbour: scenario.tenants.names().into_iter().next().unwrap_or_default(),
        };
        site.write("platform/host.yaml", &platform)?;
        Ok(site)
    }

    /// Of quiet tenants.
    fn policy(&self) -> &'static str {
        if self.connector == Connector::Mqtt { "standard" } else { OTHER_POLICY }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().context("below the site")?)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The quiet tenants, all of them. More may follow.
    pub fn quiet(&self, names: &[String]) -> anyhow::Result<()> {
        for name in names.iter().filter(|name| !self.dir.join("tenants").join(name).exists()) {
            let topics = (topic(&self.topics.input, name), topic(&self.topics.output, name));
            self.tenant(name, &self.operators, topics, None)?;
        }
        for (file, names) in names.chunks(TENANTS_PER_FILE).enumerate() {
            let documents: String = names.iter().map(|name| tenant_document(name, self.policy())).collect();
            self.write(&format!("platform/quiet-{file}.yaml"), &documents)?;
        }
        Ok(())
    }

    /// The tenants of one attack, under a policy of their own if it asks for one. With
    /// a `variant`, their component is one that no other variant is equal to.
    pub fn attackers(
        &self,
        attack: &Attack,
        count: usize,
        variant: Option<u32>,
    ) -> anyhow::Result<Vec<String>> {
        let names = attackers(attack, count);
        let for_neighbour = |text: &str| text.replace(NEIGHBOUR, &self.neighbour);
        let operator = Operator {
            guest: attack.guest.clone(),
            kind: attack.kind.clone(),
            configuration: attack
                .configuration
                .iter()
                .map(|(key, value)| (key.clone(), for_neighbour(value)))
                .collect(),
        };
        let operators = vec![operator; attack.operators];
        for (index, name) in names.iter().enumerate() {
            let input = attack.source.as_deref().map_or_else(|| attackers_topic(name), for_neighbour);
            let output = attack.destination.as_deref();
            let output = output.map_or_else(|| format!("{name}/out/attack"), for_neighbour);
            // Those that are many to be many components, are.
            let index = if attack.deploys.is_some() { index as u32 } else { 0 };
            let variant = variant.map(|variant| variant * DEPLOYS_MAX + index);
            self.tenant(name, &operators, (input, output), variant)?;
        }
        let (policy, mut documents) = match &attack.policy {
            None => ("standard".to_owned(), String::new()),
            Some(differs) => {
                let name = format!("attack-{}", attack.name);
                let text = policy_like_standard(&name, differs)?;
                (name, text)
            }
        };
        documents.extend(names.iter().map(|name| tenant_document(name, &policy)));
        self.write(&format!("platform/attack-{}.yaml", attack.name), &documents)?;
        Ok(names)
    }

    pub fn without_attackers(&self, attack: &Attack, count: usize) -> anyhow::Result<()> {
        fs::remove_file(self.dir.join(format!("platform/attack-{}.yaml", attack.name)))?;
        self.remove(&attackers(attack, count))
    }

    /// Tenants that only come and go, with a component that nobody had before.
    pub fn passing(&self, count: usize, variant: u32) -> anyhow::Result<Vec<String>> {
        let names = passing(count, variant);
        for name in &names {
            let Topics { input, output } = self.connector.topics();
            self.tenant(name, &self.operators, (topic(&input, name), topic(&output, name)), Some(variant))?;
        }
        let documents: String = names.iter().map(|name| tenant_document(name, self.policy())).collect();
        self.write("platform/passing.yaml", &documents)?;
        Ok(names)
    }

    pub fn without_passing(&self, names: &[String]) -> anyhow::Result<()> {
        fs::remove_file(self.dir.join("platform/passing.yaml"))?;
        self.remove(names)
    }

    fn remove(&self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            fs::remove_dir_all(self.dir.join("tenants").join(name))?;
        }
        Ok(())
    }

    /// The folder of a tenant with one dataflow `flow`, its operators in a row.
    fn tenant(
        &self,
        name: &str,
        operators: &[Operator],
        (input, output): (String, String),
        variant: Option<u32>,
    ) -> anyhow::Result<()> {
        self.write(&format!("tenants/{name}/artifacts/graph/1.yaml"), &graph(operators))?;
        self.write(
            &format!("tenants/{name}/dataflows/flow.yaml"),
            &dataflow(self.connector, &input, &output),
        )?;
        for (index, operator) in operators.iter().enumerate() {
            // One component may be several operators.
            if !operators[..index].iter().any(|before| before.guest == operator.guest) {
                self.component(name, &operator.guest, variant)?;
            }
        }
        Ok(())
    }

    fn component(&self, tenant: &str, guest: &str, variant: Option<u32>) -> anyhow::Result<()> {
        let from = self.guest_file(guest)?;
        let to = self.dir.join(format!("tenants/{tenant}/artifacts/{guest}/1.wasm"));
        fs::create_dir_all(to.parent().context("below the site")?)?;
        let Some(variant) = variant else {
            // One file for all, where the file system can.
            let _ = fs::remove_file(&to);
            return fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .with_context(|| format!("cannot copy {}", from.display()));
        };
        let mut bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        // A custom section: id, size, length of the name, name, content.
        bytes.extend_from_slice(&[0, 9, 4]);
        bytes.extend_from_slice(b"copy");
        bytes.extend_from_slice(&variant.to_le_bytes());
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))
    }

    fn guest_file(&self, guest: &str) -> anyhow::Result<PathBuf> {
        let path = self.guests.join(format!("{guest}.wasm"));
        let found = path.is_file().then_some(path);
        found.with_context(|| {
            format!(
                "there is no component `{guest}` in {}: build the guests with `cargo xtask guests`, \
                 or say where they are with `--guests`",
                self.guests.display()
            )
        })
    }
}

/// Tenants that only come and go.
pub fn passing(count: usize, variant: u32) -> Vec<String> {
    (0..count).map(|index| format!("passing-{variant}-{index}")).collect()
}

/// The tenants that make an attack.
pub fn attackers(attack: &Attack, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("attack-{}-{index}", attack.name)).collect()
}

/// Where an attacker takes its messages from.
pub fn attackers_topic(name: &str) -> String {
    format!("{name}/in")
}

/// A topic of a tenant.
pub fn topic(pattern: &str, tenant: &str) -> String {
    pattern.replace("{tenant}", tenant)
}

/// Names and specs.
fn endpoints(connector: Connector, server: &ServerAt) -> Vec<(&'static str, String)> {
    let http = |settings: String| format!("{{ endpointType: Http, httpSettings: {{ {settings} }} }}");
    let address = match server {
        ServerAt::Broker(address) => address.clone(),
        ServerAt::Embedded(port) => format!("127.0.0.1:{port}"),
        ServerAt::Http { listen, hook } => {
            return vec![
                (LOCAL, http(format!("listen: \"127.0.0.1:{listen}\""))),
                (HOOK, http(format!("url: \"http://127.0.0.1:{hook}/\""))),
            ];
        }
    };
    let spec = match connector {
        Connector::Mqtt | Connector::Http => {
            format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{address}\" }} }}")
        }
        Connector::Kafka | Connector::Transactions => {
            let more = if connector == Connector::Transactions { ", transactions: true" } else { "" };
            let settings = format!("{{ host: \"{address}\", consumerGroupId: loadtest{more} }}");
            format!("{{ endpointType: Kafka, kafkaSettings: {settings} }}")
        }
    };
    vec![(LOCAL, spec)]
}

/// What tenants may do at the endpoints: as much as their topics need.
fn grants(scenario: &Scenario) -> Value {
    let other = scenario.connector.topics();
    let (read, write) = ([&scenario.topics.input, &other.input], [&scenario.topics.output, &other.output]);
    let grants = match scenario.connector {
        Connector::Http => json!([
            { "name": LOCAL, "read": read, "write": [] },
            { "name": HOOK, "read": [], "write": write },
        ]),
        _ => json!([{ "name": LOCAL, "read": read, "write": write }]),
    };
    json!({ "endpoints": grants })
}

fn tenant_document(name: &str, policy: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {{ policy: {policy} }}\n---\n"
    )
}

/// Text in a file of YAML, whatever it holds.
fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn graph(operators: &[Operator]) -> String {
    let mut text = String::from(
        "metadata: { $schema: \"https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json\", name: graph, version: \"1\" }\n\
         moduleRequirements: { apiVersion: \"1.1.0\", runtimeVersion: \"1.1.0\" }\n",
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
    if operators.iter().any(|operator| !operator.configuration.is_empty()) {
        line("moduleConfigurations:".into());
    }
    for (index, operator) in operators.iter().enumerate().filter(|(_, it)| !it.configuration.is_empty()) {
        let parameter = |(key, value): &(String, String)| {
            format!(
                "{}: {{ name: {}, default: {} }}",
                quoted(&format!("{key}-{index}")),
                quoted(key),
                quoted(value)
            )
        };
        let parameters: Vec<_> = operator.configuration.iter().map(parameter).collect();
        line(format!("  - {{ name: step-{index}, parameters: {{ {} }} }}", parameters.join(", ")));
    }
    line("operations:\n  - { operationType: source, name: in }".into());
    for (index, Operator { guest, kind, .. }) in operators.iter().enumerate() {
        line(format!("  - {{ operationType: {kind}, name: step-{index}, module: \"{guest}:1\" }}"));
    }
    line("  - { operationType: sink, name: out }\nconnections:".into());
    let steps = (0..operators.len()).map(|index| format!("step-{index}"));
    let names: Vec<_> = ["in".to_owned()].into_iter().chain(steps).chain(["out".to_owned()]).collect();
    for (from, to) in names.iter().zip(&names[1..]) {
        line(format!("  - {{ from: {{ name: {from} }}, to: {{ name: {to} }} }}"));
    }
    text
}

fn dataflow(connector: Connector, input: &str, output: &str) -> String {
    let to = if connector == Connector::Http { HOOK } else { LOCAL };
    format!(
        "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowGraph\nmetadata: {{ name: flow }}\n\
         spec:\n  nodes:\n\
         \x20   - {{ nodeType: Source, name: in, sourceSettings: {{ endpointRef: {LOCAL}, dataSources: [ {} ] }} }}\n\
         \x20   - {{ nodeType: Graph, name: g, graphSettings: {{ registryEndpointRef: r, artifact: \"graph:1\" }} }}\n\
         \x20   - {{ nodeType: Destination, name: out, destinationSettings: {{ endpointRef: {to}, dataDestination: {} }} }}\n\
         \x20 nodeConnections:\n\
         \x20   - {{ from: {{ name: in }}, to: {{ name: g }} }}\n\
         \x20   - {{ from: {{ name: g }}, to: {{ name: out }} }}\n",
        quoted(input),
        quoted(output)
    )
}

/// The policy `name`: `standard`, but for some keys.
fn policy_like_standard(name: &str, differs: &Value) -> anyhow::Result<String> {
    use std::sync::Arc;

    use crate::{
        diagnostic::{Problems, SourceFile},
        yaml,
    };
    let file = SourceFile { path: "policies/standard.yaml".into(), text: STANDARD.into() };
    let mut problems = Problems::default();
    let node = yaml::parse(&Arc::new(file), &mut problems);
    ensure!(problems.is_empty(), "{}", problems.to_text(false));
    let mut policy = node.context("a policy")?.to_json();
    policy["metadata"] = json!({ "name": name });
    merge(&mut policy["spec"], differs);
    Ok(format!("{policy}\n---\n"))
}

fn merge(into: &mut Value, differs: &Value) {
    match (into, differs) {
        (Value::Object(into), Value::Object(differs)) => {
            for (key, value) in differs {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, differs) => *into = differs.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attackers_policy_differs_where_it_says() {
        let differs = json!({ "engine": "large", "memory": { "instance": "64Mi" } });
        let text = policy_like_standard("attack-x", &differs).expect("a policy");
        let policy: Value = serde_json::from_str(text.trim_end_matches("\n---\n")).expect("JSON");
        assert_eq!(policy["metadata"]["name"], "attack-x");
        assert_eq!(policy["spec"]["engine"], "large");
        assert_eq!(policy["spec"]["memory"]["instance"], "64Mi");
        assert_eq!(policy["spec"]["faults"]["retries"], 2);
        assert_eq!(policy["spec"]["message"]["fuel"], "20M");
    }

    #[test]
    fn a_configuration_may_hold_any_text() {
        let operator = Operator {
            guest: "attacks".into(),
            kind: "map".into(),
            configuration: vec![("a\"b".into(), "x: { # \n".into())],
        };
        let graph = graph(&[operator]);
        assert!(graph.contains(r#""a\"b-0": { name: "a\"b", default: "x: { # \n" }"#), "{graph}");
    }
}
