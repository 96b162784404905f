//! Deploying: a checked site becomes plans that shards can run. Components are read,
//! held against their policy and compiled here; nothing of it touches a shard.

pub mod known;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash as _,
    sync::{Arc, Mutex},
};

use known::{FindError, Found, FuseError, Known, read_parts};

use crate::{
    cloud_events::{Attributes, Maker},
    command::Commands,
    dataflow::{
        plan::{Check, DestinationPlan, Health, Plan, SourcePlan, Step, Target},
        window::WindowPlan,
    },
    guest::{
        Contract, Operator, OperatorKind, Schema,
        compile::{Cache, Code},
        component::{Digest, read_bytes},
        compose::{ComposeError, Parts},
        engine::Tuning,
        imports::Resources,
        metrics::GuestMetrics,
        state::INSTANCE_BYTES,
        world::PolicyWorld,
    },
    resource::{
        Diagnostics, EndpointKind, Limits, OperationKind, PoolLayout,
        dataflow::{Dataflow, FlowConnection, FlowNode, FlowNodeKind},
        graph::{Graph, NOT_YET_SUPPORTED, who_has},
        site::{DataflowSite, GraphSite, ModuleSite, SchemaFile, TenantSite},
        yaml::Text,
    },
    schema::PayloadSchema,
    stats::{DataflowStats, OperatorStats},
    store::WindowSpace,
    tenant::Tenant,
    write::{Destination, SinkQueue},
};

/// A component that its policy lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub digest: Digest,
    /// What it is fused from, if it is.
    pub fused: Option<Parts>,
    pub contract: Contract,
    /// It can ask other programs.
    pub asks: bool,
    pub resources: Resources,
}

/// The components of one dataflow: by node of the dataflow and operation of its graph.
pub type Components = HashMap<(usize, usize), Admitted>;

/// Reads and checks the components of a dataflow.
pub fn admit(
    tenant: &TenantSite,
    dataflow: &DataflowSite,
    known: &mut Known,
    diagnostics: &mut Diagnostics,
) -> Components {
    let mut admitted = Components::new();
    let world = match PolicyWorld::named(&tenant.world.text) {
        Ok(world) => world,
        Err(error) => {
            diagnostics.error("policy/world", tenant.world.place.clone(), error.to_string(), "");
            return admitted;
        }
    };
    for (node, GraphSite { graph, modules }) in &dataflow.graphs {
        for (operation, module) in modules {
            let Some(kind) = kind_of(graph.operations[*operation].kind) else { continue };
            if let Some(component) = admit_one(tenant, module, kind, world, known, diagnostics) {
                admitted.insert((*node, *operation), component);
            }
        }
    }
    admitted
}

/// Most imports that a refusal names. A component may have any number, and what an apply shows
/// is bounded: the rest is for the errors of others.
const IMPORTS_TOLD_MAX: usize = 20;

fn admit_one(
    tenant: &TenantSite,
    module: &ModuleSite,
    kind: OperatorKind,
    world: &'static PolicyWorld,
    known: &mut Known,
    diagnostics: &mut Diagnostics,
) -> Option<Admitted> {
    let place = || module.reference.place.clone();
    let found = find(module, &tenant.limits, known, diagnostics)?;
    if let Err(refusals) = known.fits(&found, world) {
        let label = || "not granted by the policy".to_owned();
        for refusal in refusals.iter().take(IMPORTS_TOLD_MAX) {
            diagnostics.error("component/import", place(), said_of(module, &refusal.to_string()), label());
        }
        let more = refusals.len().saturating_sub(IMPORTS_TOLD_MAX);
        if more > 0 {
            let message = said_of(module, &format!("has {more} more imports like these"));
            diagnostics.error("component/import", place(), message, label());
        }
        return None;
    }
    let Found { digest, parts, shape } = found;
    let (needed, most) = (shape.resources.memory_bytes_min, tenant.limits.memory_instance_bytes_max);
    if needed > most {
        let engine = tenant.limits.engine.name();
        let message = said_of(module, &format!("needs {} KiB of memory to start", needed >> 10));
        let label = format!(
            "policy gives an instance {} KiB on the engine `{engine}`; `engine: large` has more",
            most >> 10
        );
        diagnostics.error("component/memory", place(), message, label);
        return None;
    }
    let Some(contract) = shape.contract_for(kind) else {
        let has: Vec<_> = shape.operators.iter().map(|it| it.kind.name()).collect();
        let label = format!("it has {}", has.join(", "));
        let message = said_of(module, &format!("has no {}", kind.name()));
        diagnostics.error("component/role", place(), message, label);
        return None;
    };
    Some(Admitted { digest, fused: parts, contract, asks: shape.asks(), resources: shape.resources })
}

/// Whether the components of a dataflow lie in a host's pools as they must.
pub fn check_layout(
    tenant: &TenantSite,
    dataflow: &DataflowSite,
    components: &Components,
    layout: PoolLayout,
    diagnostics: &mut Diagnostics,
) {
    let tuning = Tuning::of(tenant.limits.engine, layout);
    let Some(first) = tuning.memory_bytes_first() else { return };
    for (node, GraphSite { modules, .. }) in &dataflow.graphs {
        for (operation, module) in modules {
            let Some(admitted) = components.get(&(*node, *operation)) else { continue };
            let Resources { memories, memory_bytes_min, .. } = admitted.resources;
            if memory_bytes_min == first * u64::from(memories) {
                continue;
            }
            let begins = match memories {
                1 => format!("begins with {} KiB of memory", memory_bytes_min >> 10),
                many => format!("begins with {} KiB in {many} memories", memory_bytes_min >> 10),
            };
            let label = format!(
                "under the Host's `pool: dense` each memory begins with all its {} KiB: link it with \
                 `-C link-arg=--initial-memory={first}`, or choose `engine: large`",
                first >> 10
            );
            let message = said_of(module, &begins);
            diagnostics.error("component/dense-memory", module.reference.place.clone(), message, label);
        }
    }
}

/// The endpoint over which operators of a dataflow ask other programs, if any of them
/// can and there is one.
pub fn command_endpoint<'a>(
    dataflow: &'a DataflowSite,
    components: &Components,
    endpoints: &BTreeMap<String, EndpointKind>,
) -> Option<&'a str> {
    if !components.values().any(|component| component.asks) {
        return None;
    }
    let candidates = dataflow.dataflow.command_endpoints().into_iter().map(|text| text.text.as_str());
    candidates.into_iter().find(|name| endpoints.get(*name).is_some_and(EndpointKind::carries_commands))
}

/// Whether all dataflows whose operators ask other programs have an endpoint for it, and
/// their tenant a connection for each such endpoint.
pub fn check_commands<'a>(
    tenant: &TenantSite,
    dataflows: impl Iterator<Item = (&'a DataflowSite, &'a Components)>,
    endpoints: &BTreeMap<String, EndpointKind>,
    diagnostics: &mut Diagnostics,
) {
    let mut over = BTreeSet::new();
    let mut last = None;
    for (dataflow, components) in dataflows {
        let name = &dataflow.dataflow.name;
        match command_endpoint(dataflow, components, endpoints) {
            Some(endpoint) if dataflow.dataflow.enabled => {
                over.insert(endpoint);
                last = Some(name);
            }
            None if components.values().any(|component| component.asks) => {
                let message =
                    format!("operators of `{}` ask other programs, and it has no broker", name.text);
                let label = "name an endpoint of the type `Mqtt` with `tidegate.dev/commands`";
                diagnostics.error("dataflow/commands", name.place.clone(), message, label);
            }
            _ => {}
        }
    }
    if let Some(name) = last {
        let is_connection = |name: &str| endpoints.get(name).is_some_and(EndpointKind::is_connection);
        tenant.check_connections(tenant.connections(is_connection) + over.len(), name, diagnostics);
    }
}

/// Bytes of all the components that a tenant's dataflows use, each counted once.
pub fn component_bytes<'a>(dataflows: impl Iterator<Item = &'a Components>) -> u64 {
    let components = dataflows.flat_map(|components| components.values());
    let by_digest: HashMap<_, _> = components.map(|it| (it.digest, it.resources.component_bytes)).collect();
    by_digest.values().sum()
}

/// Whether a tenant's memory has room for its components and, beside them, one instance of
/// each operator of its largest dataflow.
pub fn check_memory<'a>(
    tenant: &TenantSite,
    dataflows: impl Iterator<Item = (&'a DataflowSite, &'a Components)>,
    diagnostics: &mut Diagnostics,
) {
    let enabled: Vec<_> = dataflows.filter(|(dataflow, _)| dataflow.dataflow.enabled).collect();
    let components_bytes = component_bytes(enabled.iter().map(|(_, components)| *components));
    let allowed = tenant.limits.memory_total_bytes_max;
    for (dataflow, components) in enabled {
        let instances: u64 =
            components.values().map(|it| it.resources.memory_bytes_min + INSTANCE_BYTES).sum();
        if components_bytes + instances <= allowed {
            continue;
        }
        let name = &dataflow.dataflow.name;
        let message = format!(
            "`{}` needs {} KiB of memory for its instances beside {} KiB for components of the tenant `{}`",
            name.text,
            instances.div_ceil(1 << 10),
            components_bytes.div_ceil(1 << 10),
            tenant.name
        );
        let label = format!("policy's `memory.total` allows {} KiB", allowed >> 10);
        diagnostics.error("tenant/memory", name.place.clone(), message, label);
    }
}

fn said_of(module: &ModuleSite, what: &str) -> String {
    format!("the component `{}` {what}", module.reference.text)
}

/// Compiles those admitted components of a dataflow that the cache does not have. A graph
/// that may be checked and not run is refused here.
pub fn compile(
    tenant: &TenantSite,
    dataflow: &DataflowSite,
    components: &Components,
    cache: &Cache,
    diagnostics: &mut Diagnostics,
) {
    for feature in dataflow.graphs.values().flat_map(|it| &it.graph.features_missing) {
        let flow = &dataflow.dataflow.name.text;
        let message = format!("the dataflow `{flow}` needs the feature `{}`", feature.text);
        let label = format!("it is not there on this host{}", who_has(&feature.text));
        diagnostics.error(NOT_YET_SUPPORTED, feature.place.clone(), message, label);
    }
    if dataflow.graphs.values().any(|it| !it.graph.features_missing.is_empty()) {
        return;
    }
    let modules = dataflow.graphs.iter().flat_map(|(node, GraphSite { modules, .. })| {
        modules.iter().map(move |(operation, module)| ((*node, *operation), module))
    });
    for (place, module) in modules {
        let Some(admitted) = components.get(&place).filter(|it| !cache.has(tenant.limits.engine, it.digest))
        else {
            continue;
        };
        let compiled = compile_one(tenant, module, *admitted, cache);
        if let Err(cause) = compiled {
            let (place, message) = (module.reference.place.clone(), said_of(module, "is refused"));
            diagnostics.error("component/compile", place, message, cause);
        }
    }
}

fn compile_one(
    tenant: &TenantSite,
    module: &ModuleSite,
    admitted: Admitted,
    cache: &Cache,
) -> Result<(), String> {
    let bytes_max = tenant.limits.component_bytes_max;
    let compile = |code: Code<'_>| {
        let Limits { engine, compile, .. } = &tenant.limits;
        cache.compile(*engine, admitted.digest, code, *compile).map_err(|error| chain(&error))
    };
    if let (Some(provider), Some(parts)) = (&module.provider, admitted.fused) {
        let read = read_parts(&module.path, &provider.path, parts, bytes_max);
        let (map, provider) = read.map_err(|error| error.to_string())?;
        return compile(Code::Fused { map: &map, provider: &provider });
    }
    let bytes = read_bytes(&module.path, bytes_max).map_err(|error| error.to_string())?;
    if Digest::of(&bytes) != admitted.digest {
        return Err("it has changed since it was checked; apply again".to_owned());
    }
    compile(Code::Whole(&bytes))
}

/// The module's component, fused with its provider if it has one.
fn find(
    module: &ModuleSite,
    limits: &Limits,
    known: &mut Known,
    diagnostics: &mut Diagnostics,
) -> Option<Found> {
    let mut refuse = |rule: &'static str, reference: &Text, cause: String| {
        let message = format!("the component `{}` is refused", reference.text);
        diagnostics.error(rule, reference.place.clone(), message, cause);
        None
    };
    let Some(provider) = &module.provider else {
        return match known.find(&module.path, limits) {
            Ok(found) => Some(found),
            Err(error @ FindError::Read(_)) => refuse("component/file", &module.reference, error.to_string()),
            Err(error @ FindError::Form(_)) => refuse("component/form", &module.reference, error.to_string()),
        };
    };
    match known.find_fused(&module.path, &provider.path, limits.component_bytes_max) {
        Ok(found) => Some(found),
        Err(error) => {
            let (rule, at) = match error {
                FuseError::Map(_) => ("component/file", &module.reference),
                FuseError::Compose(ComposeError::Map(_)) => ("component/form", &module.reference),
                FuseError::Provider(_) | FuseError::Changed(_) => ("component/file", &provider.reference),
                FuseError::Compose(ComposeError::Provider(_)) => ("component/form", &provider.reference),
                FuseError::Compose(_) => ("component/provider", &provider.reference),
            };
            refuse(rule, at, error.to_string())
        }
    }
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn kind_of(kind: OperationKind) -> Option<OperatorKind> {
    match kind {
        OperationKind::Map => Some(OperatorKind::Map),
        OperationKind::Filter => Some(OperatorKind::Filter),
        OperationKind::Branch => Some(OperatorKind::Branch),
        OperationKind::Accumulate => Some(OperatorKind::Accumulate),
        OperationKind::Delay => Some(OperatorKind::Delay),
        OperationKind::Source | OperationKind::Sink | OperationKind::Concatenate => None,
    }
}

/// What the ends of a dataflow are bound to.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// Sources of endpoints that are not here are in order.
    pub endpoints: &'a BTreeMap<String, EndpointKind>,
    /// The tenant's queue for each endpoint that it writes to.
    pub sinks: &'a BTreeMap<String, Arc<SinkQueue>>,
    /// Over which operators ask other programs.
    pub commands: Option<&'a Arc<Commands>>,
}

/// Flattens a dataflow with all its graphs into a plan.
pub fn plan(
    tenant: &Arc<Tenant>,
    site: &TenantSite,
    dataflow: &DataflowSite,
    components: &Components,
    window_space: WindowSpace,
    Ends { endpoints, sinks, commands }: Ends<'_>,
) -> Plan {
    let mut flattening = Flattening {
        dataflow,
        steps: HashMap::new(),
        destinations: HashMap::new(),
        sources: Vec::new(),
        checks: RefCell::default(),
    };
    let order = dataflow.dataflow.order().expect("checked when it was read");
    let mut operators = Vec::new();
    for node in &order {
        let Some(GraphSite { graph, modules }) = dataflow.graphs.get(node) else { continue };
        for operation in graph.topological().expect("checked when it was read") {
            let (Some(module), Some(kind)) =
                (modules.get(&operation), kind_of(graph.operations[operation].kind))
            else {
                continue;
            };
            flattening.steps.insert((*node, operation), operators.len());
            let component = components[&(*node, operation)];
            operators.push((
                (*node, operation),
                operator(tenant, site, dataflow, graph, operation, module, kind, component, commands),
            ));
        }
    }
    let mut destinations = Vec::new();
    for (index, node) in dataflow.dataflow.nodes.iter().enumerate() {
        match &node.kind {
            FlowNodeKind::Destination { endpoint, topic, headers, .. } => {
                flattening.destinations.insert(index, destinations.len());
                let grants = site.grants.iter().find(|grants| grants.endpoint == endpoint.text);
                let fills = endpoints.get(&endpoint.text).and_then(EndpointKind::cloud_events)
                    == Some(Attributes::CreateOrRemap);
                let headers = match fills {
                    true => headers.clone().with_events(Maker::new(&endpoint.text)),
                    false => headers.clone(),
                };
                let destination = Destination {
                    name: format!("{}/{}/{}", tenant.name, dataflow.dataflow.name.text, node.name.text),
                    topic: topic.clone(),
                    write_grants: grants.map(|grants| grants.write.clone()).unwrap_or_default(),
                    headers,
                };
                let sink = sinks[&endpoint.text].clone();
                let gate = tenant.gates().of_sink(&endpoint.text);
                destinations.push(DestinationPlan { destination: Arc::new(destination), sink, gate });
            }
            FlowNodeKind::Source { .. } => flattening.sources.push(index),
            FlowNodeKind::Graph { .. } => {}
        }
    }
    let mut sources: Vec<SourcePlan> = flattening
        .sources
        .iter()
        .map(|node| {
            let FlowNode { name, kind } = &dataflow.dataflow.nodes[*node];
            let (gate, is_in_order) = match kind {
                FlowNodeKind::Source { endpoint, .. } => {
                    let is_in_order = endpoints.get(&endpoint.text).is_none_or(EndpointKind::has_order);
                    (tenant.gates().of_source(&endpoint.text), is_in_order)
                }
                FlowNodeKind::Destination { .. } | FlowNodeKind::Graph { .. } => (None, true),
            };
            let targets = flattening.after_node(*node, None);
            SourcePlan { name: name.text.clone(), targets, gate, is_in_order }
        })
        .collect();
    let mut windows = 0;
    let steps = operators.into_iter().map(|((node, operation), operator)| {
        let branch = operator.is_branch();
        let holds = matches!(operator.kind, OperatorKind::Accumulate | OperatorKind::Delay);
        windows += usize::from(holds);
        Step {
            operator,
            window: holds.then(|| windows - 1),
            targets: flattening.after_operation(node, operation, branch.then_some(false)),
            targets_true: if branch {
                flattening.after_operation(node, operation, Some(true))
            } else {
                Vec::new()
            },
        }
    });
    let steps: Vec<Step> = steps.collect();
    let checks = flattening.checks.take();
    let windows = window_plans(&mut sources, &steps, &checks);
    Plan {
        tenant: tenant.clone(),
        dataflow: dataflow.dataflow.name.text.clone(),
        sources,
        steps,
        destinations,
        checks,
        windows,
        timing: dataflow.dataflow.timing,
        keeping: dataflow.dataflow.keeping,
        window_space,
        stats: Arc::new(DataflowStats::default()),
        health: Mutex::new(Health::Running),
    }
}

/// The windows among `steps`, each with the sources whose messages reach it without
/// passing another; adds them to the sources.
pub fn window_plans(sources: &mut Vec<SourcePlan>, steps: &[Step], checks: &[Check]) -> Vec<WindowPlan> {
    let outside = sources.len();
    let holding = || steps.iter().filter(|step| step.window.is_some());
    sources.extend(holding().map(|step| SourcePlan {
        name: step.operator.operation().to_owned(),
        targets: step.targets.clone(),
        gate: None,
        is_in_order: true,
    }));
    let mut plans: Vec<WindowPlan> =
        holding().map(|step| WindowPlan { operator: step.operator.clone(), upstream: Vec::new() }).collect();
    for (source, plan) in sources.iter().enumerate() {
        let mut reached = vec![false; steps.len()];
        let mut waiting = plan.targets.clone();
        while let Some(target) = waiting.pop() {
            let index = match target {
                Target::Step(index) => index,
                Target::Destination(_) => continue,
                Target::Check(index) => {
                    waiting.push(checks[index].target);
                    continue;
                }
            };
            if std::mem::replace(&mut reached[index], true) {
                continue;
            }
            match steps[index].window {
                Some(window) => plans[window].upstream.push(source as u32),
                None => waiting.extend(steps[index].targets.iter().chain(&steps[index].targets_true)),
            }
        }
    }
    debug_assert_eq!(sources.len(), outside + plans.len());
    plans
}

#[allow(clippy::too_many_arguments, reason = "what an operator is made of, from one caller")]
fn operator(
    tenant: &Arc<Tenant>,
    site: &TenantSite,
    dataflow: &DataflowSite,
    graph: &Graph,
    operation: usize,
    module: &ModuleSite,
    kind: OperatorKind,
    component: Admitted,
    commands: Option<&Arc<Commands>>,
) -> Arc<Operator> {
    let Dataflow { name, pinned, .. } = &dataflow.dataflow;
    Arc::new(Operator {
        name: format!("{}/{}/{}", tenant.name, name.text, graph.operations[operation].name.text),
        tenant: tenant.clone(),
        kind,
        contract: component.contract,
        digest: component.digest,
        fused: component.fused,
        world: site.world.text.as_str().into(),
        configuration: module.configuration.clone(),
        schemas: module.schemas.iter().map(schema).collect(),
        pinned: *pinned,
        stats: Arc::new(OperatorStats::default()),
        metrics: Arc::new(GuestMetrics::within(tenant.series.clone())),
        commands: commands.filter(|_| component.asks).cloned(),
    })
}

fn schema(file: &SchemaFile) -> Schema {
    let content_type = "application/schema+json".to_owned();
    Schema { name: file.name.clone(), content_type, content: file.content.clone() }
}

/// Follows connections through concatenates, sinks and graph nodes to the next
/// operator or destination.
struct Flattening<'a> {
    dataflow: &'a DataflowSite,
    steps: HashMap<(usize, usize), usize>,
    destinations: HashMap<usize, usize>,
    sources: Vec<usize>,
    /// Schemas met on the way.
    checks: RefCell<Vec<Check>>,
}

impl Flattening<'_> {
    /// Where messages go that leave a node, by the sink `output` if it is a graph.
    fn after_node(&self, node: usize, output: Option<&str>) -> Vec<Target> {
        let leaving = self.dataflow.dataflow.connections.iter().filter(|connection| {
            let named = connection.output.as_ref().map(|output| output.text.as_str());
            connection.from == node && (named.is_none() || named == output)
        });
        leaving.flat_map(|connection| self.at_node(connection.to)).collect()
    }

    fn at_node(&self, node: usize) -> Vec<Target> {
        match self.dataflow.graphs.get(&node) {
            None => vec![Target::Destination(self.destinations[&node])],
            Some(GraphSite { graph, .. }) => {
                let sources =
                    graph.operations.iter().enumerate().filter(|(_, it)| it.kind == OperationKind::Source);
                sources.flat_map(|(source, _)| self.after_operation(node, source, None)).collect()
            }
        }
    }

    fn after_operation(&self, node: usize, operation: usize, arm: Option<bool>) -> Vec<Target> {
        let graph = &self.dataflow.graphs[&node].graph;
        let leaving = graph.connections.iter().filter(|it| it.from == operation && it.arm == arm);
        let mut targets = Vec::new();
        for connection in leaving {
            let to = &graph.operations[connection.to];
            let ends = match to.kind {
                OperationKind::Sink => self.after_node(node, Some(&to.name.text)),
                OperationKind::Concatenate => self.after_operation(node, connection.to, None),
                _ => vec![Target::Step(self.steps[&(node, connection.to)])],
            };
            match connection.schema {
                None => targets.extend(ends),
                Some(schema) => {
                    let check = |target| self.check(&graph.schemas[schema], &to.name.text, target);
                    targets.extend(ends.into_iter().map(check));
                }
            }
        }
        targets
    }

    /// A check before `target`; those behind it have their places already.
    fn check(&self, schema: &Arc<PayloadSchema>, operation: &str, target: Target) -> Target {
        let mut checks = self.checks.borrow_mut();
        checks.push(Check { schema: schema.clone(), operation: operation.to_owned(), target });
        Target::Check(checks.len() - 1)
    }
}

/// Digest of what a dataflow is made of: if it is the same, the running one stays.
pub fn fingerprint(dataflow: &DataflowSite, components: &Components) -> Digest {
    let Dataflow { pinned, timing, keeping, is_buffered, commands, nodes, connections, .. } =
        &dataflow.dataflow;
    Digest::of_values(|feed| {
        (pinned, timing, keeping, is_buffered, nodes.len(), connections.len()).hash(feed);
        commands.as_ref().map(|endpoint| &endpoint.text).hash(feed);
        for FlowNode { name, kind } in nodes {
            name.text.hash(feed);
            match kind {
                FlowNodeKind::Source { endpoint, topics } => {
                    (0, &endpoint.text, topics.len()).hash(feed);
                    topics.iter().for_each(|(_, text)| text.text.hash(feed));
                }
                FlowNodeKind::Destination { endpoint, at, headers, .. } => {
                    (1, &endpoint.text, &at.text, headers).hash(feed);
                }
                FlowNodeKind::Graph { artifact, .. } => (2, &artifact.text).hash(feed),
            }
        }
        for FlowConnection { from, output, to, .. } in connections {
            (from, output.as_ref().map(|output| &output.text), to).hash(feed);
        }
        for (node, GraphSite { graph, modules }) in &dataflow.graphs {
            (node, graph.operations.len()).hash(feed);
            for (index, operation) in graph.operations.iter().enumerate() {
                let module = modules.get(&index).map(|module| (&module.configuration, &module.schemas));
                let digest = components.get(&(*node, index)).map(|component| component.digest);
                (&operation.name.text, operation.kind, module, digest).hash(feed);
            }
            graph.connections.hash(feed);
            graph.schemas.iter().for_each(|schema| (schema.name(), schema.text()).hash(feed));
            // What runs without a feature does not go on when it begins to ask for one.
            graph.features_missing.iter().for_each(|feature| feature.text.hash(feed));
        }
    })
}
