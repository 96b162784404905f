//! `PolicyWorld`: what a policy grants, read from the WIT worlds of `wit/`. Serves
//! the check of a component before it may run and the linker of each policy class;
//! knows neither components nor wasmtime.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::LazyLock,
};

use semver::Version;
use wit_parser::{Interface, PackageId, Resolve, SourceMap, UnresolvedPackage, WorldItem};

use crate::inference;

/// Each package of `wit/` as files, dependencies first; the policy worlds last.
const PACKAGES: [&[(&str, &str)]; 11] = [
    &[("deps/io.wit", include_str!("../../../wit/deps/io.wit"))],
    &[("deps/clocks.wit", include_str!("../../../wit/deps/clocks.wit"))],
    &[("deps/random.wit", include_str!("../../../wit/deps/random.wit"))],
    &[("deps/filesystem.wit", include_str!("../../../wit/deps/filesystem.wit"))],
    &[("deps/sockets.wit", include_str!("../../../wit/deps/sockets.wit"))],
    &[("deps/cli.wit", include_str!("../../../wit/deps/cli.wit"))],
    &[("deps/nn.wit", include_str!("../../../wit/deps/nn.wit"))],
    &[("tidegate-operator/operator.wit", include_str!("../../../wit/tidegate-operator/operator.wit"))],
    &[
        ("processor.wit", include_str!("../../../wit/wasm-graph-processor/processor.wit")),
        (
            "hybrid-logical-clock.wit",
            include_str!("../../../wit/wasm-graph-processor/hybrid-logical-clock.wit"),
        ),
        ("types.wit", include_str!("../../../wit/wasm-graph-processor/types.wit")),
        ("operators.wit", include_str!("../../../wit/wasm-graph-processor/operators.wit")),
        ("logger.wit", include_str!("../../../wit/wasm-graph-processor/logger.wit")),
        ("metrics.wit", include_str!("../../../wit/wasm-graph-processor/metrics.wit")),
        ("state-store.wit", include_str!("../../../wit/wasm-graph-processor/state-store.wit")),
        ("schema-registry.wit", include_str!("../../../wit/wasm-graph-processor/schema-registry.wit")),
        ("command-invoker.wit", include_str!("../../../wit/wasm-graph-processor/command-invoker.wit")),
        ("worlds.wit", include_str!("../../../wit/wasm-graph-processor/worlds.wit")),
    ],
    &[
        ("processor.wit", include_str!("../../../wit/tinykube-graph-processor/processor.wit")),
        (
            "hybrid-logical-clock.wit",
            include_str!("../../../wit/tinykube-graph-processor/hybrid-logical-clock.wit"),
        ),
        ("types.wit", include_str!("../../../wit/tinykube-graph-processor/types.wit")),
        ("operators.wit", include_str!("../../../wit/tinykube-graph-processor/operators.wit")),
        ("logger.wit", include_str!("../../../wit/tinykube-graph-processor/logger.wit")),
        ("metrics.wit", include_str!("../../../wit/tinykube-graph-processor/metrics.wit")),
        ("state-store.wit", include_str!("../../../wit/tinykube-graph-processor/state-store.wit")),
        ("command-invoker.wit", include_str!("../../../wit/tinykube-graph-processor/command-invoker.wit")),
        ("worlds.wit", include_str!("../../../wit/tinykube-graph-processor/worlds.wit")),
    ],
    &[("tidegate-policy/policy.wit", include_str!("../../../wit/tidegate-policy/policy.wit"))],
];

/// Worlds with this prefix are building blocks, and what comes from them is inert.
const INERT_PREFIX: &str = "inert-";

/// Interfaces below this path need [`inference::FEATURE`].
const MODELS_PREFIX: &str = "wasi:nn/";

/// The full name of an interface, `namespace:package/interface@version`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName {
    /// Without the version.
    pub path: String,
    pub version: Option<Version>,
}

impl InterfaceName {
    /// Reads a name as components carry it. `None` if it names no interface.
    pub fn parse(name: &str) -> Option<Self> {
        let (path, version) = match name.split_once('@') {
            Some((path, version)) => (path, Some(Version::parse(version).ok()?)),
            None => (name, None),
        };
        let (package, interface) = path.split_once('/')?;
        let whole = package.contains(':') && !interface.is_empty();
        whole.then(|| InterfaceName { path: path.to_owned(), version })
    }

    /// Whether the one can stand in for the other: the same interface at versions
    /// that semver calls compatible. The linker matches names in the same way.
    pub fn is_compatible_with(&self, other: &InterfaceName) -> bool {
        self.path == other.path
            && match (&self.version, &other.version) {
                (Some(own), Some(other)) => {
                    own == other || track(own).is_some_and(|own| Some(own) == track(other))
                }
                (None, None) => true,
                _ => false,
            }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// What compatible versions have in common. `None` if only the same version is
/// compatible.
fn track(version: &Version) -> Option<(u64, u64)> {
    match (version.major, version.minor) {
        _ if !version.pre.is_empty() => None,
        (0, 0) => None,
        (0, minor) => Some((0, minor)),
        (major, _) => Some((major, 0)),
    }
}

/// How an interface is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// With the effect it is made for.
    Real,
    /// There to be imported; reaches nothing outside the instance but the log.
    Inert,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grant::Real => "real",
            Grant::Inert => "inert",
        })
    }
}

/// One interface of a world.
#[derive(Clone, Debug)]
pub struct Granted {
    pub interface: InterfaceName,
    pub grant: Grant,
    /// Names of its functions, methods and resources; empty if it holds types alone.
    pub items: BTreeSet<String>,
}

/// A world that a policy may name.
#[derive(Clone, Debug)]
pub struct PolicyWorld {
    /// `tidegate:policy/standard@0.1.0`
    pub name: String,
    /// By path, so that finding one does not depend on the order in the WIT.
    granted: BTreeMap<String, Granted>,
}

/// Why a world cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    #[error("no policy world is named `{name}`; there are {}", list(.shipped))]
    Unknown { name: String, shipped: Vec<String> },
    #[error("the policy world `{name}` needs a build of this host with the cargo feature `{feature}`")]
    NotBuilt { name: String, feature: &'static str },
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl PolicyWorld {
    /// The shipped world with this full name.
    pub fn named(name: &str) -> Result<&'static PolicyWorld, WorldError> {
        let is_it = |world: &&PolicyWorld| world.name == name;
        if let Some(world) = Self::shipped().iter().find(is_it) {
            return Ok(world);
        }
        let name = name.to_owned();
        if WIT.not_built.iter().any(|world| world.name == name) {
            return Err(WorldError::NotBuilt { name, feature: inference::FEATURE });
        }
        let shipped = Self::shipped().iter().map(|world| world.name.clone()).collect();
        Err(WorldError::Unknown { name, shipped })
    }

    /// All worlds that a policy may name, smallest first.
    pub fn shipped() -> &'static [PolicyWorld] {
        &WIT.worlds
    }

    /// The smallest shipped world that grants this import.
    pub fn smallest_with(import: &InterfaceName) -> Option<&'static PolicyWorld> {
        Self::shipped().iter().find(|world| world.grant(import).is_some())
    }

    /// The smallest world with this import that another build of this host has, and the
    /// cargo feature that it needs.
    pub fn smallest_not_built(import: &InterfaceName) -> Option<(&'static PolicyWorld, &'static str)> {
        let world = WIT.not_built.iter().find(|world| world.grant(import).is_some())?;
        Some((world, inference::FEATURE))
    }

    /// Whether a component may load models under it.
    pub fn grants_models(&self) -> bool {
        self.granted.keys().any(|path| path.starts_with(MODELS_PREFIX))
    }

    /// How this world provides an import, if it does.
    pub fn grant(&self, import: &InterfaceName) -> Option<&Granted> {
        self.granted_at_any_version(import).filter(|granted| granted.interface.is_compatible_with(import))
    }

    /// The grant of the same interface, whichever its version.
    pub fn granted_at_any_version(&self, import: &InterfaceName) -> Option<&Granted> {
        self.granted.get(&import.path)
    }

    /// Every interface of the world, by name.
    pub fn granted(&self) -> impl Iterator<Item = &Granted> {
        self.granted.values()
    }

    fn read(resolve: &Resolve, package: PackageId, name: &str, inert: &BTreeSet<String>) -> Self {
        let full = resolve.id_of_name(package, name);
        let granted = interfaces(resolve, package, name)
            .map(|(interface, items)| {
                let grant = if inert.contains(&interface.path) { Grant::Inert } else { Grant::Real };
                (interface.path.clone(), Granted { interface, grant, items })
            })
            .collect();
        PolicyWorld { name: full, granted }
    }
}

/// Interfaces that a world imports, with what each holds.
fn interfaces<'a>(
    resolve: &'a Resolve,
    package: PackageId,
    world: &str,
) -> impl Iterator<Item = (InterfaceName, BTreeSet<String>)> + 'a {
    let world = &resolve.worlds[resolve.packages[package].worlds[world]];
    world.imports.iter().filter_map(|(key, item)| {
        let WorldItem::Interface { id, .. } = item else { return None };
        let name = InterfaceName::parse(&resolve.name_world_key(key))?;
        Some((name, resolve.interfaces[*id].functions.keys().cloned().collect()))
    })
}

/// All of `wit/`, resolved once.
pub(super) struct Wit {
    pub resolve: Resolve,
    worlds: Vec<PolicyWorld>,
    /// Worlds that another build has.
    not_built: Vec<PolicyWorld>,
}

impl Wit {
    /// The interface with this full name, at exactly this version.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        let name = InterfaceName::parse(name)?;
        self.resolve.packages.iter().find_map(|(_, package)| {
            let (path, interface) = name.path.split_once('/')?;
            let same = path == format!("{}:{}", package.name.namespace, package.name.name)
                && package.name.version == name.version;
            if same { Some(&self.resolve.interfaces[*package.interfaces.get(interface)?]) } else { None }
        })
    }
}

pub(super) static WIT: LazyLock<Wit> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let mut last = None;
    for files in PACKAGES {
        let mut sources = SourceMap::default();
        files.iter().for_each(|(path, text)| sources.push_str(path, *text));
        let group = sources.parse().map_err(|(_, error)| error).expect("what is compiled in is WIT");
        // Resolving flattens worlds, and with it who included whom is lost.
        let included = inclusions(&group.main);
        let package = resolve.push_group(group).expect("packages stand in order of their dependencies");
        last = Some((package, included));
    }
    let (package, included) = last.expect("there are packages");
    let mut worlds: Vec<PolicyWorld> = included
        .keys()
        .filter(|name| !name.starts_with(INERT_PREFIX))
        .map(|name| {
            let inert = closure(&included, name)
                .into_iter()
                .filter(|name| name.starts_with(INERT_PREFIX))
                .flat_map(|inert| interfaces(&resolve, package, inert))
                .map(|(interface, _)| interface.path)
                .collect();
            PolicyWorld::read(&resolve, package, name, &inert)
        })
        .collect();
    worlds.sort_by_key(|world| world.granted.len());
    let is_built = |world: &PolicyWorld| inference::IS_BUILT || !world.grants_models();
    let (worlds, not_built) = worlds.into_iter().partition(is_built);
    Wit { resolve, worlds, not_built }
});

/// Worlds of a package, each with those that it includes by name.
fn inclusions(package: &UnresolvedPackage) -> BTreeMap<String, Vec<String>> {
    let named = |world: &wit_parser::World| {
        world.includes.iter().map(|include| package.worlds[include.id].name.clone()).collect()
    };
    package.worlds.iter().map(|(_, world)| (world.name.clone(), named(world))).collect()
}

/// All that a world includes, directly or not.
fn closure<'a>(included: &'a BTreeMap<String, Vec<String>>, world: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = included[world].iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if found.insert(name) {
            // A world of another package has no entry here.
            open.extend(included.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    found
}

#[cfg(test)]
mod tests;
