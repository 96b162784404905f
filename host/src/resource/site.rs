//! The site folder: who owns a file is decided by where it lies, never by what it
//! says. Reading it gives everything that a host runs, or all that is wrong.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::Hash as _,
    io::{self, Read as _},
    path::{Component as PathPart, Path, PathBuf},
    sync::Arc,
};

use crate::dataflow::{watermark::Timing, window::Keeping};
use crate::guest::component::Digest;
use crate::resource::{
    Dataflow, Endpoint, EndpointKind, Grants, Graph, HostConfig, Limits, Policy, Schemas, Seen,
    dataflow::{FlowNode, FlowNodeKind, Provider},
    diagnostic::{Diagnostics, SourceFile, nearest},
    endpoint::{ExportSettings, HttpSettings, KafkaSettings, OtlpSettings, Payload, is_kafka_topic},
    footprint::footprint,
    graph::{ConfigurationError, Operation, OperationKind, Setting},
    policy::{
        self, Late,
        explain::{ExplainError, Explanation, Record},
    },
    schemas::{PLATFORM, SchemaFolder, parse_reference},
    tenant::TenantResource,
    yaml::{self, FILE_BYTES_MAX, Node, Object, Text, Unknown, Value},
};

/// A site that can be run.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where its files were read.
    pub dir: PathBuf,
    /// What paths of file endpoints are relative to: the folder that was applied,
    /// though its files may since be read from the data folder.
    pub home: PathBuf,
    pub host: HostConfig,
    pub endpoints: BTreeMap<String, EndpointKind>,
    /// In order of their names; without those that are unchanged.
    pub tenants: Vec<TenantSite>,
    /// Tenants that a host runs already as they are here.
    pub unchanged: BTreeSet<String>,
    /// Every text that was read, by its path below the folder.
    pub texts: BTreeMap<String, Arc<SourceFile>>,
    /// What a host that runs this site has seen.
    pub seen: Arc<Seen>,
}

/// One tenant with everything resolved.
#[derive(Clone, Debug)]
pub struct TenantSite {
    pub name: String,
    pub policy: String,
    /// The policy's WIT world.
    pub world: Text,
    pub limits: Limits,
    pub grants: Vec<Grants>,
    /// What its operators and dataflows may look up; nothing where there is no site.
    pub schemas: Option<Arc<Schemas>>,
    pub dataflows: Vec<DataflowSite>,
}

impl TenantSite {
    /// Connections that the ends of its dataflows need.
    pub fn connections(&self, is_connection: impl Fn(&str) -> bool) -> usize {
        let mut sources = 0;
        let mut sinks = BTreeSet::new();
        for node in self.dataflows.iter().filter(|it| it.dataflow.enabled).flat_map(|it| &it.dataflow.nodes) {
            match &node.kind {
                FlowNodeKind::Source { endpoint, .. } if is_connection(&endpoint.text) => sources += 1,
                FlowNodeKind::Destination { endpoint, .. } if is_connection(&endpoint.text) => {
                    sinks.insert(&endpoint.text);
                }
                _ => {}
            }
        }
        sources + sinks.len()
    }

    /// Whether policy allows so many.
    pub fn check_connections(&self, needed: usize, at: &Text, diagnostics: &mut Diagnostics) {
        let allowed = self.limits.connections_max as usize;
        if needed > allowed {
            let message =
                format!("the tenant `{}` needs {needed} connections and may have {allowed}", self.name);
            diagnostics.error("tenant/connections", at.place.clone(), message, "policy's `connections`");
        }
    }
}

/// A dataflow with its graphs read and its components found.
#[derive(Clone, Debug)]
pub struct DataflowSite {
    pub dataflow: Dataflow,
    /// For each node of the dataflow that is a graph.
    pub graphs: BTreeMap<usize, GraphSite>,
}

impl DataflowSite {
    /// Whether anything in it holds messages until a time is complete.
    pub fn has_windows(&self) -> bool {
        let mut operations = self.graphs.values().flat_map(|graph| &graph.graph.operations);
        operations.any(|it| matches!(it.kind, OperationKind::Accumulate | OperationKind::Delay))
    }
}

#[derive(Clone, Debug)]
pub struct GraphSite {
    pub graph: Arc<Graph>,
    /// For each operation that runs a component.
    pub modules: BTreeMap<usize, ModuleSite>,
}

#[derive(Clone, Debug)]
pub struct ModuleSite {
    pub path: PathBuf,
    /// Where the graph names it.
    pub reference: Text,
    /// As the operator sees it.
    pub configuration: Vec<(String, String)>,
    /// What its component is fused with, if the dataflow says so.
    pub provider: Option<ProviderSite>,
    /// What the operator is told about its messages.
    pub schemas: Vec<SchemaFile>,
}

/// The component that gives a map what it imports.
#[derive(Clone, Debug)]
pub struct ProviderSite {
    pub path: PathBuf,
    /// Where the dataflow names it.
    pub reference: Text,
}

/// A JSON schema in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SchemaFile {
    /// The file's name.
    pub name: String,
    pub content: String,
}

const AIO_API: &str = "connectivity.iotoperations.azure.com/v1";
const OUR_API: &str = "tidegate.dev/v1";

/// Who owns a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Platform,
    Tenant(String),
}

/// What the files say, before it is put together.
#[derive(Default)]
struct Raw {
    host: Option<HostConfig>,
    policies: BTreeMap<String, Policy>,
    tenants: BTreeMap<String, TenantResource>,
    endpoints: BTreeMap<String, Endpoint>,
    /// Of one tenant.
    dataflows: Vec<Dataflow>,
    /// Kind and name of all that was there, whether it could be read or not: what
    /// is broken is said once, not again by each that names it.
    named: BTreeSet<(String, String)>,
}

/// Most files, and deepest folders, below `platform/` and below each tenant's
/// `dataflows/`.
const FILES_MAX: usize = 10_000;
const FOLDERS_DEEP_MAX: usize = 8;

impl Site {
    /// The tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<&TenantSite> {
        let place = self.tenants.binary_search_by(|tenant| tenant.name.as_str().cmp(name)).ok()?;
        Some(&self.tenants[place])
    }

    /// Reads and checks the folder. There is a site only if there is no error.
    pub fn load(dir: &Path) -> (Option<Site>, Diagnostics) {
        Site::load_since(dir, &Seen::default())
    }

    /// The same for a host that has seen it before: tenants of which neither the folder
    /// has changed, nor what the platform says of them, are not read.
    pub fn load_since(dir: &Path, seen: &Seen) -> (Option<Site>, Diagnostics) {
        let mut diagnostics = Diagnostics::default();
        let mut raw = Raw::default();
        if !dir.join("platform").is_dir() && !dir.join("tenants").is_dir() {
            let message = format!("{} is no site folder", dir.display());
            diagnostics.error("site/folder", None, message, "it holds neither `platform` nor `tenants`");
            return (None, diagnostics);
        }
        let files = Files::new(dir);
        let folders = subfolders(&dir.join("tenants"), &mut diagnostics);
        let except = Some(dir.join("platform").join(SCHEMAS));
        let platform = Folder { except, ..Folder::new(&files, dir.join("platform")) };
        read_files(&platform, &Owner::Platform, &mut raw, &mut diagnostics);
        say_strays(dir, &dir.join("tenants"), &mut diagnostics);
        raw.add_shipped_policies();
        let site = raw.assemble(&files, &folders, seen, &mut diagnostics);
        let site = (!diagnostics.has_errors()).then_some(site);
        (site, diagnostics)
    }
}

/// Where each limit of a tenant comes from, if the platform's files say so much of it:
/// what is wrong with them, [`Site::load`] says.
pub fn explain(dir: &Path, tenant: &str) -> Result<Explanation, ExplainError> {
    let (mut raw, mut unsaid) = (Raw::default(), Diagnostics::default());
    let files = Files::new(dir);
    let except = Some(dir.join("platform").join(SCHEMAS));
    let platform = Folder { except, ..Folder::new(&files, dir.join("platform")) };
    read_files(&platform, &Owner::Platform, &mut raw, &mut unsaid);
    raw.add_shipped_policies();
    let Some(resource) = raw.tenants.get(tenant) else {
        let nearest = nearest(tenant, raw.tenants.keys().map(String::as_str)).map(str::to_owned);
        return Err(ExplainError::NoTenant { tenant: tenant.to_owned(), nearest });
    };
    let name = &resource.policy.text;
    let Some(policy) = raw.policies.get(name) else {
        return Err(ExplainError::NoPolicy { tenant: tenant.to_owned(), policy: name.clone() });
    };
    let mut own = Record::default();
    resource.limits_noting(&policy.limits, &mut unsaid, Some(&mut own));
    let is_shipped = !raw.is_named("Policy", name);
    Ok(Explanation::of(tenant, (name, is_shipped), &policy.record, &own))
}

/// The policy of this name that is compiled in.
pub fn shipped_policy(name: &str) -> Option<Policy> {
    let (name, text) = policy::SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
    policy_of(&format!("policies/{name}.yaml"), text, &mut Diagnostics::default())
}

/// Reads one Policy from text; `path` is how messages name it.
pub fn policy_of(path: &str, text: &str, diagnostics: &mut Diagnostics) -> Option<Policy> {
    let file = Arc::new(SourceFile { path: path.to_owned(), text: text.to_owned() });
    let mut raw = Raw::default();
    for node in yaml::parse(&file, diagnostics) {
        raw.read_document(&node, &Owner::Platform, diagnostics);
    }
    raw.policies.into_values().next()
}

/// All that is wrong with a text that may be any resource file of a site.
pub fn read_text(text: &str) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    let file = Arc::new(SourceFile { path: "text".to_owned(), text: text.to_owned() });
    let mut raw = Raw::default();
    for node in yaml::parse(&file, &mut diagnostics) {
        for owner in [Owner::Platform, Owner::Tenant("tenant".to_owned())] {
            raw.read_document(&node, &owner, &mut diagnostics);
        }
        Graph::read(&node, &mut diagnostics);
    }
    diagnostics
}

fn subfolders(dir: &Path, diagnostics: &mut Diagnostics) -> Vec<String> {
    let mut names = Vec::new();
    for path in entries(dir, diagnostics) {
        if path.is_dir() {
            names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names
}

/// What a folder holds, in order, without hidden entries.
fn entries(dir: &Path, diagnostics: &mut Diagnostics) -> Vec<PathBuf> {
    let read = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match read {
        Ok(paths) => {
            let mut paths: Vec<PathBuf> = paths;
            let hidden = |path: &PathBuf| {
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
            };
            paths.retain(|path| !hidden(path));
            paths.sort();
            paths
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            diagnostics.error("site/read", None, format!("cannot read {}: {error}", dir.display()), "");
            Vec::new()
        }
    }
}

/// A file as it is shown, relative to the site. Nothing but a regular file is read,
/// and no more of it than is allowed.
pub fn read_source(base: &Path, path: &Path, diagnostics: &mut Diagnostics) -> Option<Arc<SourceFile>> {
    let shown = shown(base, path);
    let read = || -> io::Result<Vec<u8>> {
        // Asked before opening: to open a pipe waits for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        // One more than allowed, so that the parser sees that it is too large.
        fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) => {
            diagnostics.error("site/read", None, format!("cannot read {shown}: {error}"), "");
            return None;
        }
    };
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("{shown} has more than the {FILE_BYTES_MAX} bytes that are allowed");
        diagnostics.error("yaml/too-large", None, message, "split it");
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(Arc::new(SourceFile { path: shown, text })),
        Err(_) => {
            diagnostics.error("yaml/utf8", None, format!("{shown} is not UTF-8"), "save it as UTF-8");
            None
        }
    }
}

/// The texts of a site, each read once: what one part of it saw, all others see,
/// though somebody edits meanwhile.
struct Files<'a> {
    base: &'a Path,
    read: RefCell<BTreeMap<String, Arc<SourceFile>>>,
}

impl<'a> Files<'a> {
    fn new(base: &'a Path) -> Self {
        Files { base, read: RefCell::default() }
    }

    fn read(&self, path: &Path, diagnostics: &mut Diagnostics) -> Option<Arc<SourceFile>> {
        if let Some(file) = self.read.borrow().get(&shown(self.base, path)) {
            return Some(file.clone());
        }
        let file = read_source(self.base, path, diagnostics)?;
        self.read.borrow_mut().insert(file.path.clone(), file.clone());
        Some(file)
    }
}

fn shown(base: &Path, path: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).display().to_string()
}

/// A folder of one owner's files. Nothing outside of it is ever read through it.
struct Folder<'a> {
    files: &'a Files<'a>,
    dir: PathBuf,
    /// Components lie there as a build leaves them: without tags, `_` for `-`.
    as_built: bool,
    /// A folder in it that is read as something else.
    except: Option<PathBuf>,
}

impl<'a> Folder<'a> {
    fn new(files: &'a Files<'a>, dir: PathBuf) -> Self {
        Folder { files, dir, as_built: false, except: None }
    }

    fn as_built(files: &'a Files<'a>, dir: PathBuf) -> Self {
        Folder { as_built: true, ..Folder::new(files, dir) }
    }

    /// A link may not lead out of the folder: what it leads to is somebody else's.
    fn holds(&self, file: &Path) -> bool {
        match (file.canonicalize(), self.dir.canonicalize()) {
            (Ok(file), Ok(dir)) => file.starts_with(dir),
            _ => false,
        }
    }

    /// Resource files in it and below. Links to folders are not followed, so that
    /// there is an end.
    fn files(&self, diagnostics: &mut Diagnostics) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![(self.dir.clone(), 0)];
        while let Some((dir, depth)) = folders.pop() {
            for path in entries(&dir, diagnostics) {
                if self.except.as_ref() == Some(&path) {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() && depth < FOLDERS_DEEP_MAX {
                    folders.push((path, depth + 1));
                } else if path.is_dir() || is_resource_file(&path) {
                    files.push(path);
                }
            }
            if files.len() > FILES_MAX {
                let message = format!("{} holds more than {FILES_MAX} files", self.shown(&self.dir));
                diagnostics.error("site/too-large", None, message, "");
                files.truncate(FILES_MAX);
                break;
            }
        }
        files.sort();
        files
    }

    /// What can be read of these files.
    fn texts(&self, diagnostics: &mut Diagnostics) -> Vec<(PathBuf, Arc<SourceFile>)> {
        let mut texts = Vec::new();
        for path in self.files(diagnostics) {
            if path.is_dir() || !self.holds(&path) {
                let message = format!("{} leads out of its folder, or is too deep in it", self.shown(&path));
                diagnostics.error("site/link", None, message, "put the file itself there");
            } else if let Some(file) = self.files.read(&path, diagnostics) {
                texts.push((path, file));
            }
        }
        texts
    }

    fn shown(&self, path: &Path) -> String {
        shown(self.files.base, path)
    }
}

fn is_resource_file(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json")
}

fn read_files(folder: &Folder<'_>, owner: &Owner, raw: &mut Raw, diagnostics: &mut Diagnostics) {
    for (_, file) in folder.texts(diagnostics) {
        for node in yaml::parse(&file, diagnostics) {
            raw.read_document(&node, owner, diagnostics);
        }
    }
}

/// The dataflows in a tenant's folder.
fn read_dataflows(files: &Files<'_>, tenant: &str, diagnostics: &mut Diagnostics) -> Vec<Dataflow> {
    let folder = files.base.join("tenants").join(tenant);
    say_strays(files.base, &folder, diagnostics);
    let mut raw = Raw::default();
    let folder = Folder::new(files, folder.join("dataflows"));
    read_files(&folder, &Owner::Tenant(tenant.to_owned()), &mut raw, diagnostics);
    raw.dataflows
}

/// The folder of schemas in an owner's folder.
const SCHEMAS: &str = "schemas";

/// `owner` is the folder of the owner named `namespace`.
fn read_schemas(
    files: &Files<'_>,
    owner: &Path,
    namespace: &str,
    diagnostics: &mut Diagnostics,
) -> Arc<SchemaFolder> {
    let folder = Folder::new(files, owner.join(SCHEMAS));
    let mut texts = folder.texts(diagnostics);
    for (path, _) in &mut texts {
        *path = path.strip_prefix(&folder.dir).expect("it was found there").to_owned();
    }
    Arc::new(SchemaFolder::read(namespace, &texts, diagnostics))
}

/// Files beside the folders that are read would do nothing, silently.
fn say_strays(base: &Path, dir: &Path, diagnostics: &mut Diagnostics) {
    for path in entries(dir, diagnostics).into_iter().filter(|path| is_resource_file(path)) {
        let message = format!("{} is read by nobody", path.strip_prefix(base).unwrap_or(&path).display());
        let label =
            "the platform's files lie in `platform/`, a tenant's in its `dataflows/` and `artifacts/`";
        diagnostics.error("site/stray", None, message, label);
    }
}

impl Raw {
    fn read_document(&mut self, node: &Node, owner: &Owner, diagnostics: &mut Diagnostics) {
        if node.get("apiVersion").is_none()
            && (node.get("properties").is_some() || node.get("value").is_some())
        {
            return self.read_arm(node, owner, diagnostics);
        }
        let mut document = Object::of(node, "a resource", Unknown::Warning, diagnostics);
        let (Some(api), Some(kind)) =
            (document.need_text("apiVersion", diagnostics), document.need_text("kind", diagnostics))
        else {
            return;
        };
        let Some(ours) = check_kind(&api, &kind, diagnostics) else { return };
        if !check_owner(&kind.text, &kind.place, owner, diagnostics) {
            return;
        }
        let Some(metadata) = document.need("metadata", diagnostics) else { return };
        let mut metadata = Object::of(metadata, "`metadata`", Unknown::Ignored, diagnostics);
        let Some(name) = metadata.need_text("name", diagnostics) else { return };
        let annotations = metadata.get("annotations");
        self.named.insert((kind.text.clone(), name.text.clone()));
        if kind.text != "DataflowGraph" && !is_name(&name.text) {
            let message = format!("`{}` is no name for a {}", name.text, kind.text);
            diagnostics.error("site/name", name.place, message, "1 to 63 of a-z, A-Z, 0-9, `-` and `_`");
            return;
        }
        let unknown = if ours { Unknown::Error } else { Unknown::Warning };
        let Some(spec) = document.need("spec", diagnostics) else { return };
        let spec = Object::of(spec, "`spec`", unknown, diagnostics);
        document.finish(diagnostics);
        self.read_kind(&kind.text, name, annotations, spec, ours, owner, diagnostics);
    }

    /// A DataflowGraph as Azure's resource manager writes it, or a list of them.
    fn read_arm(&mut self, node: &Node, owner: &Owner, diagnostics: &mut Diagnostics) {
        if let Some(Value::List(nodes)) = node.get("value").map(|node| &node.value) {
            nodes.iter().for_each(|node| self.read_arm(node, owner, diagnostics));
            return;
        }
        let mut resource = Object::of(node, "a resource", Unknown::Ignored, diagnostics);
        let Some(spec) = resource.need("properties", diagnostics) else { return };
        if !check_owner("DataflowGraph", &spec.place, owner, diagnostics) {
            return;
        }
        // The last part of `id` is the name, where a list leaves `name` out.
        let id = resource.text("id", diagnostics).and_then(|id| {
            let text = id.text.rsplit('/').next()?.to_owned();
            Some(Text { text, place: id.place })
        });
        let Some(name) = resource.text("name", diagnostics).or(id) else {
            resource.need("name", diagnostics);
            return;
        };
        let spec = Object::of(spec, "`properties`", Unknown::Warning, diagnostics);
        self.read_kind("DataflowGraph", name, None, spec, false, owner, diagnostics);
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one document, taken apart by the only caller")]
    fn read_kind(
        &mut self,
        kind: &str,
        name: Text,
        annotations: Option<&Node>,
        spec: Object<'_>,
        ours: bool,
        owner: &Owner,
        diagnostics: &mut Diagnostics,
    ) {
        let at = name.clone();
        let taken = match (kind, owner) {
            ("Host", _) => self.host.replace(HostConfig::read(name, spec, diagnostics)).is_some(),
            ("Policy", _) => Policy::read(name, spec, diagnostics)
                .is_some_and(|it| self.policies.insert(it.name.clone(), it).is_some()),
            ("Tenant", _) => TenantResource::read(name, spec, diagnostics)
                .is_some_and(|it| self.tenants.insert(it.name.text.clone(), it).is_some()),
            ("DataflowEndpoint", _) => Endpoint::read(name, spec, ours, diagnostics)
                .is_some_and(|it| self.endpoints.insert(it.name.text.clone(), it).is_some()),
            ("DataflowGraph", Owner::Tenant(_)) => {
                let Some(dataflow) = Dataflow::read(name, annotations, spec, diagnostics) else { return };
                let taken = self.dataflows.iter().any(|it| it.name.text == at.text);
                self.dataflows.push(dataflow);
                taken
            }
            // A registry is named by dataflows; artifacts are found in the site.
            _ => false,
        };
        if taken {
            let (message, label) = match kind {
                "Host" => ("there are two Hosts".to_owned(), "a site has one"),
                _ => (format!("there are two {kind}s named `{}`", at.text), "names are unique"),
            };
            diagnostics.error("site/duplicate", at.place, message, label);
        }
    }

    /// A site's own policy of that name comes first.
    fn add_shipped_policies(&mut self) {
        let policies = policy::SHIPPED.iter().filter_map(|(name, _)| shipped_policy(name));
        for policy in policies {
            if !self.is_named("Policy", &policy.name) {
                self.policies.insert(policy.name.clone(), policy);
            }
        }
    }

    fn is_named(&self, kind: &str, name: &str) -> bool {
        self.named.contains(&(kind.to_owned(), name.to_owned()))
    }

    fn assemble(
        self,
        files: &Files<'_>,
        folders: &[String],
        seen: &Seen,
        diagnostics: &mut Diagnostics,
    ) -> Site {
        for folder in folders {
            if !self.tenants.contains_key(folder) {
                read_dataflows(files, folder, diagnostics);
            }
            if !self.is_named("Tenant", folder) {
                let message = format!("the folder `tenants/{folder}` has no Tenant of that name");
                diagnostics.error(
                    "site/tenant",
                    None,
                    message,
                    "add a Tenant to `platform/`, or remove the folder",
                );
            }
        }
        self.check_addresses(diagnostics);
        let shared = read_schemas(files, &files.base.join("platform"), PLATFORM, diagnostics);
        let to_all = self.digest_of_what_all_share(files);
        let dir = std::path::absolute(files.base).unwrap_or_else(|_| files.base.to_owned());
        let mut now = Seen { dir, ..Seen::default() };
        let (mut tenants, mut unchanged) = (Vec::new(), BTreeSet::new());
        for (name, resource) in &self.tenants {
            if !folders.contains(name) {
                let message = format!("the tenant `{name}` has no folder `tenants/{name}`");
                let label = "it runs nothing";
                diagnostics.warning("site/tenant", resource.name.place.clone(), message, label);
            }
            let Some(policy) = self.policies.get(&resource.policy.text) else {
                read_dataflows(files, name, diagnostics);
                if self.is_named("Policy", &resource.policy.text) {
                    continue;
                }
                let message = format!("unknown policy `{}`", resource.policy.text);
                let label = nearest(&resource.policy.text, self.policies.keys().map(String::as_str));
                let label = label.map_or("no policy has this name".into(), |it| {
                    format!("no policy has this name; `{it}` does")
                });
                diagnostics.error("tenant/unknown-policy", resource.policy.place.clone(), message, label);
                continue;
            };
            let limits = resource.limits_under(&policy.limits, diagnostics);
            let said = diagnostics.count();
            let grants = policy.grants_for(name);
            let own = files.base.join("tenants").join(name);
            // Before anything of it is read: what changes from here on shows next time.
            let footprint = footprint(&own, |feed| {
                (to_all, &policy.name, &policy.world.text, &limits, &grants).hash(feed);
            });
            if let Some(footprint) = footprint.filter(|it| seen.dir == now.dir && seen.is(name, *it)) {
                now.tenants.insert(name.clone(), footprint);
                unchanged.insert(name.clone());
                continue;
            }
            let schemas = read_schemas(files, &own, name, diagnostics);
            let mut tenant = TenantSite {
                name: name.clone(),
                policy: policy.name.clone(),
                world: policy.world.clone(),
                limits,
                grants,
                schemas: Some(Arc::new(Schemas::new(name, schemas, shared.clone()))),
                dataflows: Vec::new(),
            };
            let artifacts = Folder::new(files, own.join("artifacts"));
            for dataflow in read_dataflows(files, name, diagnostics) {
                self.check_rights(&dataflow, &tenant, diagnostics);
                let schemas = tenant.schemas.as_deref().expect("a site has schemas");
                let dataflow = resolve(&dataflow, &artifacts, schemas, diagnostics);
                tenant.dataflows.extend(dataflow);
            }
            check_connections(&tenant, &self.endpoints, &resource.name, diagnostics);
            check_dataflows(&tenant, &resource.name, diagnostics);
            check_pinned(&tenant, &resource.name, diagnostics);
            check_timing(&tenant, diagnostics);
            check_volatile(&tenant, &self.endpoints, diagnostics);
            check_transactions_of_windows(&tenant, &self.endpoints, diagnostics);
            tenants.push(tenant);
            // What is said of it is said every time.
            if diagnostics.count() == said {
                now.tenants.extend(footprint.map(|footprint| (name.clone(), footprint)));
            }
        }
        let endpoints = self.endpoints.into_iter().map(|(name, endpoint)| (name, endpoint.kind)).collect();
        Site {
            dir: files.base.to_owned(),
            home: files.base.to_owned(),
            host: self.host.unwrap_or_default(),
            endpoints,
            tenants,
            unchanged,
            texts: files.read.take(),
            seen: Arc::new(now),
        }
    }

    /// No two endpoints can listen at one address.
    fn check_addresses(&self, diagnostics: &mut Diagnostics) {
        let mut taken = BTreeMap::new();
        for (name, endpoint) in &self.endpoints {
            let Some(settings) = endpoint.kind.listens() else { continue };
            if let Some(first) = taken.insert(&settings.address, name) {
                let message = format!("`{first}` and `{name}` listen at `{}`", settings.address);
                let label = "one endpoint serves any number of tenants";
                diagnostics.error("endpoint/listen", endpoint.name.place.clone(), message, label);
            }
        }
    }

    /// Of what the platform says to every tenant.
    fn digest_of_what_all_share(&self, files: &Files<'_>) -> Digest {
        let schemas = format!("platform/{SCHEMAS}/");
        Digest::of_values(|feed| {
            self.endpoints.iter().for_each(|(name, endpoint)| (name, &endpoint.kind).hash(feed));
            let read = files.read.borrow();
            for (path, file) in
                read.range(schemas.clone()..).take_while(|(path, _)| path.starts_with(&schemas))
            {
                (path, &file.text).hash(feed);
            }
        })
    }
}

/// Whether a name can be part of a path, a topic and a client id: no `/`, no
/// wildcard, no `..`.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Whether apiVersion and kind are known, and if so, whether they are ours.
fn check_kind(api: &Text, kind: &Text, diagnostics: &mut Diagnostics) -> Option<bool> {
    match (api.text.as_str(), kind.text.as_str()) {
        (OUR_API, "Host" | "Policy" | "Tenant" | "DataflowEndpoint") => Some(true),
        (AIO_API, "DataflowEndpoint" | "DataflowGraph" | "RegistryEndpoint") => Some(false),
        (OUR_API | AIO_API, "Host" | "Policy" | "Tenant" | "DataflowGraph" | "RegistryEndpoint") => {
            let other = if api.text == AIO_API { OUR_API } else { AIO_API };
            let message = format!("a {} does not have this apiVersion", kind.text);
            diagnostics.error("site/kind", kind.place.clone(), message, format!("it has `{other}`"));
            None
        }
        (OUR_API | AIO_API, _) => {
            let known = ["Host", "Policy", "Tenant", "DataflowEndpoint", "DataflowGraph", "RegistryEndpoint"];
            let label = match nearest(&kind.text, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("one of {}", known.join(", ")),
            };
            diagnostics.error(
                "site/kind",
                kind.place.clone(),
                format!("unknown kind `{}`", kind.text),
                label,
            );
            None
        }
        _ => {
            let message = format!("unknown apiVersion `{}`", api.text);
            diagnostics.error(
                "site/api-version",
                api.place.clone(),
                message,
                format!("`{OUR_API}` or `{AIO_API}`"),
            );
            None
        }
    }
}

/// Whether a kind may stand where it stands.
fn check_owner(
    kind: &str,
    at: &crate::resource::diagnostic::Place,
    owner: &Owner,
    diagnostics: &mut Diagnostics,
) -> bool {
    let (message, label) = match (kind, owner) {
        ("DataflowGraph", Owner::Platform) => {
            ("a DataflowGraph belongs to a tenant".to_owned(), "move it to `tenants/NAME/dataflows/`")
        }
        (kind, Owner::Tenant(tenant)) if kind != "DataflowGraph" => {
            let message = format!("a {kind} cannot stand in the folder of the tenant `{tenant}`");
            (message, "it belongs to the platform: move it to `platform/`")
        }
        _ => return true,
    };
    diagnostics.error("site/owner", at.clone(), message, label);
    false
}

impl Raw {
    /// Whether the tenant's policy lets the dataflow read and write what it names.
    fn check_rights(&self, dataflow: &Dataflow, tenant: &TenantSite, diagnostics: &mut Diagnostics) {
        if let Some(endpoint) = &dataflow.commands
            && self.granted(endpoint, tenant, diagnostics).is_some()
            && !self.endpoints[&endpoint.text].kind.carries_commands()
        {
            let message = format!("no commands can go over the endpoint `{}`", endpoint.text);
            let label = "an endpoint of the type `Mqtt` is needed, and of MQTT v5";
            diagnostics.error("dataflow/commands", endpoint.place.clone(), message, label);
        }
        self.check_transactions(dataflow, diagnostics);
        self.check_buffers(dataflow, diagnostics);
        for node in &dataflow.nodes {
            let (FlowNodeKind::Source { endpoint, .. } | FlowNodeKind::Destination { endpoint, .. }) =
                &node.kind
            else {
                continue;
            };
            let Some(grants) = self.granted(endpoint, tenant, diagnostics) else { continue };
            let allowed = |filters: &[crate::topic::TopicFilter]| {
                let names: Vec<_> = filters.iter().map(|filter| format!("`{}`", filter.as_str())).collect();
                if names.is_empty() {
                    "nothing is granted".to_owned()
                } else {
                    format!("granted: {}", names.join(", "))
                }
            };
            if let EndpointKind::Kafka(settings) = &self.endpoints[&endpoint.text].kind {
                check_kafka(node, endpoint, settings, diagnostics);
            }
            if let EndpointKind::Otlp(settings) = &self.endpoints[&endpoint.text].kind {
                check_otlp(node, endpoint, settings, diagnostics);
            }
            if let EndpointKind::Http(HttpSettings::Webhook(_)) = &self.endpoints[&endpoint.text].kind
                && matches!(node.kind, FlowNodeKind::Source { .. })
            {
                let message = format!("nothing comes from the webhook `{}`", endpoint.text);
                let label = "a source needs an endpoint that has `listen`";
                diagnostics.error("dataflow/http-source", endpoint.place.clone(), message, label);
            }
            match &node.kind {
                FlowNodeKind::Source { topics, .. } => {
                    for (topic, at) in topics {
                        if !grants.read.iter().any(|grant| grant.covers(topic)) {
                            let message =
                                format!("the policy `{}` does not let `{}` be read", tenant.policy, at.text);
                            diagnostics.error(
                                "dataflow/read-right",
                                at.place.clone(),
                                message,
                                allowed(&grants.read),
                            );
                        }
                    }
                }
                FlowNodeKind::Destination { topic, at, .. } => {
                    if let Some(fixed) = topic.fixed()
                        && !grants.write.iter().any(|grant| grant.matches(fixed))
                    {
                        let message =
                            format!("the policy `{}` does not let `{fixed}` be written", tenant.policy);
                        diagnostics.error(
                            "dataflow/write-right",
                            at.place.clone(),
                            message,
                            allowed(&grants.write),
                        );
                    }
                }
                FlowNodeKind::Graph { .. } => {}
            }
        }
    }

    /// A dataflow that asks for disk persistence has a destination that can have it.
    fn check_buffers(&self, dataflow: &Dataflow, diagnostics: &mut Diagnostics) {
        let destinations = dataflow.nodes.iter().filter_map(|node| match &node.kind {
            FlowNodeKind::Destination { endpoint, .. } => Some(endpoint),
            FlowNodeKind::Source { .. } | FlowNodeKind::Graph { .. } => None,
        });
        let is_bufferable = |endpoint: &Text| {
            self.endpoints.get(&endpoint.text).is_none_or(|endpoint| endpoint.kind.is_bufferable())
        };
        let destinations: Vec<_> = destinations.collect();
        if dataflow.is_buffered && !destinations.iter().any(|endpoint| is_bufferable(endpoint)) {
            let message = format!("`requestDiskPersistence` has no effect on `{}`", dataflow.name.text);
            let label = "none of its destinations is MQTT, Kafka without transactions, OTLP, or a webhook";
            diagnostics.warning("dataflow/buffer", Some(dataflow.name.place.clone()), message, label);
        }
    }

    /// A transaction has what one source read and all that was made of it, on one cluster.
    fn check_transactions(&self, dataflow: &Dataflow, diagnostics: &mut Diagnostics) {
        let is_transactional = |endpoint: &Text| {
            let kind = self.endpoints.get(&endpoint.text).map(|it| &it.kind);
            matches!(kind, Some(EndpointKind::Kafka(settings)) if settings.transactions)
        };
        let ends = dataflow.nodes.iter().filter_map(|node| match &node.kind {
            FlowNodeKind::Source { endpoint, .. } => Some((endpoint, true)),
            FlowNodeKind::Destination { endpoint, .. } => Some((endpoint, false)),
            FlowNodeKind::Graph { .. } => None,
        });
        let ends: Vec<_> = ends.collect();
        let Some((within, _)) = ends.iter().find(|(endpoint, _)| is_transactional(endpoint)) else { return };
        let message = format!("`{}` cannot be in transactions of `{}`", dataflow.name.text, within.text);
        for (endpoint, _) in ends.iter().filter(|(endpoint, _)| endpoint.text != within.text) {
            let label = "all its sources and destinations must be on that endpoint";
            diagnostics.error("dataflow/transactions", endpoint.place.clone(), message.clone(), label);
        }
        let sources: Vec<_> = ends.iter().filter(|(_, is_source)| *is_source).collect();
        if let [_, (endpoint, _), ..] = sources[..] {
            let label = "it must have one source: a transaction has how far that has read";
            diagnostics.error("dataflow/transactions", endpoint.place.clone(), message, label);
        }
    }

    /// What the tenant may do with an endpoint that its dataflow names; says what is wrong
    /// if it is nothing.
    fn granted<'t>(
        &self,
        endpoint: &Text,
        tenant: &'t TenantSite,
        diagnostics: &mut Diagnostics,
    ) -> Option<&'t Grants> {
        if !self.endpoints.contains_key(&endpoint.text) {
            if self.is_named("DataflowEndpoint", &endpoint.text) {
                return None;
            }
            let message = format!("unknown endpoint `{}`", endpoint.text);
            let label = nearest(&endpoint.text, self.endpoints.keys().map(String::as_str));
            let label = label.map_or("no DataflowEndpoint has this name".into(), |it| {
                format!("no endpoint has this name; `{it}` does")
            });
            diagnostics.error("dataflow/unknown-endpoint", endpoint.place.clone(), message, label);
            return None;
        }
        let grants = tenant.grants.iter().find(|grants| grants.endpoint == endpoint.text);
        if grants.is_none() {
            let message =
                format!("the policy `{}` does not grant the endpoint `{}`", tenant.policy, endpoint.text);
            let label = "ask the platform team";
            diagnostics.error("dataflow/endpoint-right", endpoint.place.clone(), message, label);
        }
        grants
    }
}

/// What Kafka does not let a source or a destination have.
fn check_kafka(node: &FlowNode, endpoint: &Text, settings: &KafkaSettings, diagnostics: &mut Diagnostics) {
    let mut no_topic = |name: &str, at: &Text| {
        let message = format!("Kafka has no topic `{name}`");
        let label = "letters, digits, `.`, `_` and `-`, at most 249 of them; no wildcards";
        diagnostics.error("dataflow/kafka-topic", at.place.clone(), message, label);
    };
    match &node.kind {
        FlowNodeKind::Source { topics, .. } => {
            for (topic, at) in topics.iter().filter(|(topic, _)| !is_kafka_topic(topic.subscription())) {
                no_topic(topic.subscription(), at);
            }
            if settings.group.is_none() {
                let message = format!("`{}` has no `consumerGroupId`", endpoint.text);
                let label =
                    "a source needs one; the platform team writes it in the endpoint's `kafkaSettings`";
                diagnostics.error("dataflow/kafka-group", endpoint.place.clone(), message, label);
            }
        }
        FlowNodeKind::Destination { topic, at, .. } => {
            if let Some(fixed) = topic.fixed().filter(|fixed| !is_kafka_topic(fixed)) {
                no_topic(fixed, at);
            }
        }
        FlowNodeKind::Graph { .. } => {}
    }
}

/// What OTLP does not let a source or a destination have.
fn check_otlp(node: &FlowNode, endpoint: &Text, settings: &OtlpSettings, diagnostics: &mut Diagnostics) {
    let name = &endpoint.text;
    match (&node.kind, settings) {
        (FlowNodeKind::Source { .. }, OtlpSettings::Export(_)) => {
            let message = format!("nothing comes from `{name}`, which is exported to");
            let label = "a source needs an endpoint that has `listen`";
            diagnostics.error("dataflow/otlp-source", endpoint.place.clone(), message, label);
        }
        (FlowNodeKind::Destination { .. }, OtlpSettings::Listen(_)) => {
            let message = format!("nothing can be written to `{name}`, which listens");
            let label = "a destination needs an endpoint that has `host`";
            diagnostics.error("dataflow/otlp-destination", endpoint.place.clone(), message, label);
        }
        (FlowNodeKind::Source { topics, .. }, OtlpSettings::Listen(_)) => {
            for (filter, at) in topics {
                if !SIGNALS.iter().any(|signal| filter.matches(signal)) {
                    let message = format!("no signal of OTLP is named `{}`", at.text);
                    let label = "one of `traces`, `metrics` and `logs`, or `#` for all";
                    diagnostics.error("dataflow/otlp-signal", at.place.clone(), message, label);
                }
            }
        }
        (
            FlowNodeKind::Destination { topic, at, .. },
            OtlpSettings::Export(ExportSettings { payload: Payload::Otlp, .. }),
        ) => {
            if let Some(fixed) = topic.fixed().filter(|fixed| !SIGNALS.contains(fixed)) {
                let message = format!("no signal of OTLP is named `{fixed}`");
                let label = "one of `traces`, `metrics` and `logs`, or `${outputTopic}`";
                diagnostics.error("dataflow/otlp-signal", at.place.clone(), message, label);
            }
        }
        _ => {}
    }
}

/// The topics of OTLP.
const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

/// One connection for each source, one for each endpoint written to, where they are such.
fn check_connections(
    tenant: &TenantSite,
    endpoints: &BTreeMap<String, Endpoint>,
    at: &Text,
    diagnostics: &mut Diagnostics,
) {
    let needed =
        tenant.connections(|name| endpoints.get(name).is_some_and(|endpoint| endpoint.kind.is_connection()));
    tenant.check_connections(needed, at, diagnostics);
}

fn check_dataflows(tenant: &TenantSite, at: &Text, diagnostics: &mut Diagnostics) {
    let (has, allowed) = (tenant.dataflows.len(), tenant.limits.dataflows_max as usize);
    if has > allowed {
        let message = format!("the tenant `{}` has {has} dataflows and may have {allowed}", tenant.name);
        diagnostics.error("tenant/dataflows", at.place.clone(), message, "policy's `dataflows`");
    }
}

/// Pinned operators keep their instances, so that all must have one, and those that are
/// not pinned at least one between them: they would wait for ever.
fn check_pinned(tenant: &TenantSite, at: &Text, diagnostics: &mut Diagnostics) {
    let count = |pinned: bool| {
        let dataflows = tenant.dataflows.iter().map(|it| (&it.dataflow, &it.graphs));
        let those = dataflows.filter(|(dataflow, _)| dataflow.enabled && dataflow.pinned == pinned);
        those.flat_map(|(_, graphs)| graphs.values()).map(|graph| graph.modules.len()).sum::<usize>()
    };
    let (pinned, others) = (count(true), count(false).min(1));
    let allowed = tenant.limits.instances_max.max(1) as usize;
    if pinned > 0 && pinned + others > allowed {
        let message = format!(
            "the tenant `{}` has {pinned} pinned operators{} and may have {allowed} instances",
            tenant.name,
            if others == 0 { "" } else { ", and others that need one more," }
        );
        diagnostics.error("tenant/instances", at.place.clone(), message, "policy's `instances`");
    }
}

/// Volatile windows are built again from their sources, which must give the same again.
fn check_volatile(
    tenant: &TenantSite,
    endpoints: &BTreeMap<String, Endpoint>,
    diagnostics: &mut Diagnostics,
) {
    let volatile = |it: &&DataflowSite| it.dataflow.keeping == Keeping::Volatile && it.has_windows();
    for DataflowSite { dataflow, .. } in tenant.dataflows.iter().filter(volatile) {
        for node in &dataflow.nodes {
            let FlowNodeKind::Source { endpoint, .. } = &node.kind else { continue };
            let reason = match endpoints.get(&endpoint.text).map(|it| &it.kind) {
                Some(EndpointKind::Mqtt(_)) => {
                    "a broker keeps few messages unacknowledged: fewer than a window may need"
                }
                // A source gives all its partitions one place to go on from here.
                Some(EndpointKind::Kafka(_)) => "partitions are read again from different places",
                Some(EndpointKind::Http(_) | EndpointKind::Otlp(_)) => {
                    "a request that was answered does not come again"
                }
                Some(EndpointKind::Memory) => "nothing gives again what came from memory",
                Some(EndpointKind::File { .. }) | None => continue,
            };
            let message = format!("the windows of `{}` cannot be volatile", dataflow.name.text);
            diagnostics.error("dataflow/volatile", endpoint.place.clone(), message, reason);
        }
        if tenant.limits.late == Late::NextWindow {
            let message = format!("the windows of `{}` cannot be volatile", dataflow.name.text);
            let label = "with policy's `late: nextWindow` nothing says, when a late message is read again, in which window it was";
            diagnostics.error("dataflow/volatile", dataflow.name.place.clone(), message, label);
        }
    }
}

/// What windows hold is in no transaction.
fn check_transactions_of_windows(
    tenant: &TenantSite,
    endpoints: &BTreeMap<String, Endpoint>,
    diagnostics: &mut Diagnostics,
) {
    for DataflowSite { dataflow, .. } in tenant.dataflows.iter().filter(|it| it.has_windows()) {
        for node in &dataflow.nodes {
            if let FlowNodeKind::Source { endpoint, .. } = &node.kind
                && let Some(EndpointKind::Kafka(settings)) = endpoints.get(&endpoint.text).map(|it| &it.kind)
                && settings.transactions
            {
                let message =
                    format!("`{}` cannot be in transactions of `{}`", dataflow.name.text, endpoint.text);
                let label = "its graph keeps messages in windows, which would not be part of them";
                diagnostics.error("dataflow/transactions", endpoint.place.clone(), message, label);
            }
        }
    }
}

/// What dataflows ask of time is bounded by policy.
fn check_timing(tenant: &TenantSite, diagnostics: &mut Diagnostics) {
    let limits = &tenant.limits;
    for dataflow in &tenant.dataflows {
        let Timing { lateness, idle, tick } = dataflow.dataflow.timing;
        for (key, asked, most) in [
            ("lateness", lateness, limits.lateness_max),
            ("idle", idle, limits.idle_max),
            ("tick", tick, limits.tick_max),
        ] {
            if asked > most {
                let message = format!("`tidegate.dev/{key}` is {asked:?} and may be {most:?}");
                let place = dataflow.dataflow.name.place.clone();
                diagnostics.error("dataflow/time", place, message, format!("policy's `time.{key}`"));
            }
        }
    }
}

/// A tenant's folder of components and graph definitions.
impl Folder<'_> {
    /// Finds `[registry/][path/]name[:tag]` with one of the extensions, below the
    /// folder and nowhere else.
    fn find(&self, reference: &Text, extensions: &[&str], diagnostics: &mut Diagnostics) -> Option<PathBuf> {
        let (path, tag) = match reference.text.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (reference.text.as_str(), None),
        };
        let plain = |text: &str| {
            !text.is_empty() && Path::new(text).components().all(|part| matches!(part, PathPart::Normal(_)))
        };
        if !plain(path) || tag.is_some_and(|tag| !plain(tag)) {
            let message = format!("`{}` is no artifact reference", reference.text);
            diagnostics.error("artifact/reference", reference.place.clone(), message, "write `NAME:TAG`");
            return None;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut tried = Vec::new();
        for extension in extensions {
            // With a registry or a path, without it, and with the first part gone.
            let rest = path.split_once('/').map_or(path, |(_, rest)| rest);
            let mut files: Vec<PathBuf> = [path, rest, name]
                .iter()
                .map(|place| match tag {
                    Some(tag) => self.dir.join(place).join(format!("{tag}.{extension}")),
                    None => self.dir.join(format!("{place}.{extension}")),
                })
                .collect();
            if self.as_built {
                let built = [name.to_owned(), name.replace('-', "_")];
                files.extend(built.map(|name| self.dir.join(format!("{name}.{extension}"))));
            }
            for file in files {
                if file.is_file() && !self.holds(&file) {
                    let message = format!("`{}` leads out of the tenant's artifacts", self.shown(&file));
                    diagnostics.error(
                        "site/link",
                        reference.place.clone(),
                        message,
                        "put the file itself there",
                    );
                    return None;
                }
                if file.is_file() {
                    return Some(file);
                }
                tried.push(file);
            }
        }
        let message = format!("the artifact `{}` is not there", reference.text);
        let label = if name.starts_with("graph-dataflow-") {
            "AIO's built-in transforms are not there yet".to_owned()
        } else {
            format!("looked for {} and the like", self.shown(&tried[0]))
        };
        diagnostics.error("artifact/missing", reference.place.clone(), message, label);
        None
    }
}

fn resolve(
    dataflow: &Dataflow,
    artifacts: &Folder<'_>,
    schemas: &Schemas,
    diagnostics: &mut Diagnostics,
) -> Option<DataflowSite> {
    let before = diagnostics.errors();
    let mut graphs = BTreeMap::new();
    for (index, node) in dataflow.nodes.iter().enumerate() {
        let FlowNodeKind::Graph { artifact, settings } = &node.kind else { continue };
        let Some(path) = artifacts.find(artifact, &["yaml", "yml"], diagnostics) else { continue };
        let Some(file) = artifacts.files.read(&path, diagnostics) else { continue };
        let Some(graph) = read_graph(&file, diagnostics) else { continue };
        check_outputs(dataflow, index, &graph, diagnostics);
        let mut modules = resolve_modules(&graph, settings, artifact, artifacts, diagnostics);
        let told = schemas_into(dataflow, index, schemas, diagnostics);
        modules.values_mut().for_each(|module| module.schemas.clone_from(&told));
        graphs.insert(index, GraphSite { graph, modules });
    }
    bind_providers(&mut graphs, &dataflow.providers, artifacts, diagnostics);
    (diagnostics.errors() == before).then(|| DataflowSite { dataflow: dataflow.clone(), graphs })
}

/// Schemas of the messages that come into a node, each once.
fn schemas_into(
    dataflow: &Dataflow,
    node: usize,
    schemas: &Schemas,
    diagnostics: &mut Diagnostics,
) -> Vec<SchemaFile> {
    let mut told: Vec<SchemaFile> = Vec::new();
    for reference in
        dataflow.connections.iter().filter(|it| it.to == node).filter_map(|it| it.schema.as_ref())
    {
        let (id, version) = parse_reference(&reference.text).expect("checked when it was read");
        match schemas.find(id, version) {
            Ok(schema) if told.iter().all(|it| it.name != schema.name || it.content != schema.content) => {
                told.push(SchemaFile { name: schema.name.clone(), content: schema.content.clone() });
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("the schema `{}` cannot be found", reference.text);
                let place = reference.place.clone();
                diagnostics.error("dataflow/unknown-schema", place, message, error.to_string());
            }
        }
    }
    told
}

/// Gives operations the providers that the dataflow names for them.
fn bind_providers(
    graphs: &mut BTreeMap<usize, GraphSite>,
    providers: &[Provider],
    artifacts: &Folder<'_>,
    diagnostics: &mut Diagnostics,
) {
    for Provider { operation, artifact } in providers {
        let found: Vec<&mut ModuleSite> = graphs
            .values_mut()
            .flat_map(|GraphSite { graph, modules }| {
                modules.iter_mut().map(|(index, module)| (&graph.operations[*index].name.text, module))
            })
            .filter(|(name, _)| **name == operation.text || name.replace('/', ".") == operation.text)
            .map(|(_, module)| module)
            .collect();
        if found.is_empty() {
            let operations =
                graphs.values().flat_map(|it| it.modules.keys().map(|at| &it.graph.operations[*at]));
            let names: Vec<String> = operations.map(|it| it.name.text.replace('/', ".")).collect();
            let message = format!("no operation `{}` could have a provider", operation.text);
            let label = nearest(&operation.text, names.iter().map(String::as_str));
            let label = label.map_or("no operation of its graphs has this name".to_owned(), |it| {
                format!("no operation has this name; `{it}` does")
            });
            diagnostics.error("dataflow/provider", operation.place.clone(), message, label);
            continue;
        }
        let Some(path) = artifacts.find(artifact, &["wasm"], diagnostics) else { continue };
        for module in found {
            module.provider = Some(ProviderSite { path: path.clone(), reference: artifact.clone() });
        }
    }
}

fn read_graph(file: &Arc<SourceFile>, diagnostics: &mut Diagnostics) -> Option<Arc<Graph>> {
    match yaml::parse(file, diagnostics).as_slice() {
        [node] => Graph::read(node, diagnostics),
        [] if diagnostics.has_errors() => None,
        _ => {
            let message = format!("{} must hold one graph definition", file.path);
            diagnostics.error("graph/documents", None, message, "");
            None
        }
    }
}

/// A connection `node.sink` must name a sink of the node's graph.
fn check_outputs(dataflow: &Dataflow, index: usize, graph: &Graph, diagnostics: &mut Diagnostics) {
    for output in
        dataflow.connections.iter().filter(|it| it.from == index).filter_map(|it| it.output.as_ref())
    {
        let sinks = graph.operations.iter().filter(|it| it.kind == OperationKind::Sink);
        let names: Vec<_> = sinks.map(|it| it.name.text.as_str()).collect();
        if !names.contains(&output.text.as_str()) {
            let message = format!("the graph has no sink `{}`", output.text);
            let label = format!("its sinks: {}", names.join(", "));
            diagnostics.error("dataflow/unknown-output", output.place.clone(), message, label);
        }
    }
}

fn resolve_modules(
    graph: &Graph,
    settings: &[Setting],
    artifact: &Text,
    artifacts: &Folder<'_>,
    diagnostics: &mut Diagnostics,
) -> BTreeMap<usize, ModuleSite> {
    let mut modules = BTreeMap::new();
    let declared = |key: &str| {
        graph.operations.iter().flat_map(|it| &it.parameters).any(|it| it.key == key || it.name == key)
    };
    for Setting { key, .. } in settings.iter().filter(|it| !declared(&it.key)) {
        let message = format!("no operation of `{}` takes a parameter `{key}`", artifact.text);
        diagnostics.warning("dataflow/unused-parameter", artifact.place.clone(), message, "");
    }
    for (index, operation) in graph.operations.iter().enumerate() {
        let Some(reference) = &operation.module else { continue };
        let configuration = match operation.configuration(settings) {
            Ok(configuration) => configuration,
            Err(errors) => {
                errors.iter().for_each(|error| say_misconfigured(operation, artifact, error, diagnostics));
                continue;
            }
        };
        if let Some(path) = artifacts.find(reference, &["wasm"], diagnostics) {
            let module = ModuleSite {
                path,
                reference: reference.clone(),
                configuration,
                provider: None,
                schemas: Vec::new(),
            };
            modules.insert(index, module);
        }
    }
    modules
}

fn say_misconfigured(
    operation: &Operation,
    artifact: &Text,
    error: &ConfigurationError<'_>,
    diagnostics: &mut Diagnostics,
) {
    let whose = format!("`{}` of `{}`", operation.name.text, artifact.text);
    match error {
        ConfigurationError::Missing(parameter) => {
            let message = format!("{whose} needs the parameter `{}`", parameter.key);
            let label = "add it to `configuration`";
            diagnostics.error("dataflow/required-parameter", artifact.place.clone(), message, label);
        }
        ConfigurationError::Unfit { setting, schema, violation } => {
            let message = format!("the value of `{}` does not fit what {whose} takes", setting.key);
            // From a command line there is only what is asked for.
            let place = setting.place.as_ref().unwrap_or(&schema.place).clone();
            diagnostics.error("dataflow/parameter-value", place, message, violation.as_str());
        }
    }
}

/// One graph with the components of a folder, without a site: for `tidegate run` and
/// `tidegate test`. `providers` are operations, each with the artifact of its provider.
pub fn load_graph(
    path: &Path,
    artifacts: &Path,
    settings: &[Setting],
    providers: &[(String, String)],
) -> (Option<GraphSite>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let files = Files::new(Path::new(""));
    let graph = files.read(path, &mut diagnostics).and_then(|file| {
        let graph = read_graph(&file, &mut diagnostics)?;
        let place = yaml::parse(&file, &mut diagnostics).first().map(|node| node.place.clone())?;
        let text = Text { text: graph.name.clone(), place };
        let artifacts = Folder::as_built(&files, artifacts.to_owned());
        let modules = resolve_modules(&graph, settings, &text, &artifacts, &mut diagnostics);
        let at = |text: &String| Text { text: text.clone(), place: graph.operations[0].name.place.clone() };
        let providers: Vec<_> = providers
            .iter()
            .map(|(operation, artifact)| Provider { operation: at(operation), artifact: at(artifact) })
            .collect();
        let mut graphs = BTreeMap::from([(0, GraphSite { graph, modules })]);
        bind_providers(&mut graphs, &providers, &artifacts, &mut diagnostics);
        graphs.remove(&0)
    });
    let graph = if diagnostics.has_errors() { None } else { graph };
    (graph, diagnostics)
}

#[cfg(test)]
mod tests;
