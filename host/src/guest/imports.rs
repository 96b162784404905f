//! `ComponentShape`: what a component imports and exports, read from its bytes
//! before anything is compiled. Serves deploys and `inspect`; the bytes are a
//! stranger's, so nothing here trusts them, and wasmtime is not asked.

use std::{collections::BTreeSet, fmt, panic};

use wasmparser::{Encoding, Parser, Payload};
use wit_parser::{Interface, Resolve, WorldId, WorldItem, WorldKey, decoding::DecodedWasm};

use crate::guest::{
    Contract, OperatorKind,
    signature::{self, Mismatch},
    world::{InterfaceName, PolicyWorld, WIT},
};

/// Why bytes are not a component that this host can serve.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("it has {bytes} bytes, too few for WebAssembly")]
    TooShort { bytes: usize },
    #[error("it is not WebAssembly")]
    NotWasm,
    #[error(
        "it is a core module, not a component: build it for `wasm32-wasip2`, or make it one with `wasm-tools component new`"
    )]
    CoreModule,
    #[error("it is WIT encoded as WebAssembly and holds no code")]
    WitPackage,
    #[error("it is not a sound component: {cause}")]
    Malformed { cause: String },
    #[error(
        "it exports no operator: none of {}{}",
        contracts(), but(.exports)
    )]
    NoOperator { exports: Vec<String> },
    #[error("its export `{interface}` differs from that contract: {mismatch}")]
    Signature { interface: String, mismatch: Mismatch },
}

/// Those that an operator can be of.
fn contracts() -> String {
    let name = |contract: Contract| format!("`{}@{}`", contract.package(), contract.version());
    let [first, others @ ..] = Contract::ALL.map(name);
    others.iter().fold(first, |all, name| format!("{all}, {name}"))
}

fn but(exports: &[String]) -> String {
    match exports {
        [] => String::new(),
        exports => format!("; its exports are `{}`", exports.join("`, `")),
    }
}

/// What stands in a component's own description of itself.
#[derive(Clone, Debug)]
pub struct ComponentShape {
    pub imports: Vec<Import>,
    /// Operators that it can serve, in the order of its exports. At least one.
    pub operators: Vec<OperatorExport>,
    /// Names of all else that it exports.
    pub other_exports: Vec<String>,
    pub resources: Resources,
}

/// One import of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// As the component has it, with the version.
    pub name: String,
    /// Functions, methods and destructors that it names. Without any the import
    /// needs nothing from the host.
    pub functions: BTreeSet<String>,
    /// It brings nothing but types.
    pub types_only: bool,
}

/// One operator of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperatorExport {
    pub contract: Contract,
    pub kind: OperatorKind,
}

impl Contract {
    /// By which of them an operator is called is decided in this order.
    pub const ALL: [Contract; 3] = [Contract::Packed, Contract::Aio, Contract::Preview];

    /// The package of its operators' interfaces.
    pub fn package(self) -> &'static str {
        match self {
            Contract::Packed => "tidegate:operator",
            Contract::Aio => "wasm-graph:processor",
            Contract::Preview => "tinykube-graph:processor",
        }
    }

    pub fn version(self) -> &'static str {
        match self {
            Contract::Packed => "0.1.0",
            Contract::Aio => "1.1.0",
            Contract::Preview => "1.0.0",
        }
    }

    /// The full name of the interface for a kind of operator.
    pub fn interface(self, kind: OperatorKind) -> String {
        format!("{}/{kind}@{}", self.package(), self.version())
    }
}

/// What an instance needs of the pool, counted over all core modules inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub core_modules: u32,
    pub memories: u32,
    pub tables: u32,
    /// Bytes that its memories start with.
    pub memory_bytes_min: u64,
    /// Bytes of the component itself.
    pub component_bytes: u64,
}

/// Why an import refuses a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The import's full name.
    pub import: String,
    /// The world that lacks it.
    pub world: String,
    pub reason: RefusalReason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The world does not have it; another may.
    NotGranted { smallest_with: Option<String> },
    /// A world of another build of this host has it.
    NotBuilt { smallest_with: String, feature: &'static str },
    /// The world has it at a version that does not fit.
    Version { granted: String },
    /// The granted version lacks functions that the component names.
    Functions { granted: String, missing: Vec<String> },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { import, world, reason } = self;
        match reason {
            RefusalReason::NotGranted { smallest_with: Some(smallest) } => {
                write!(
                    f,
                    "imports `{import}`, which `{world}` does not grant; the smallest world that does is `{smallest}`"
                )
            }
            RefusalReason::NotGranted { smallest_with: None } => {
                write!(f, "imports `{import}`, which neither `{world}` nor any other shipped world grants")
            }
            RefusalReason::NotBuilt { smallest_with, feature } => {
                write!(
                    f,
                    "imports `{import}`, which `{smallest_with}` grants in a build of this host with the cargo feature `{feature}`"
                )
            }
            RefusalReason::Version { granted } => {
                write!(f, "imports `{import}`, and `{world}` has it only as `{granted}`")
            }
            RefusalReason::Functions { granted, missing } => {
                let missing = missing.join("`, `");
                write!(f, "imports `{missing}` of `{import}`, which `{granted}` in `{world}` does not have")
            }
        }
    }
}

/// The reason alone, for where import and world stand beside it.
impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusalReason::NotGranted { smallest_with: Some(smallest) } => {
                write!(f, "the smallest world that grants it is {smallest}")
            }
            RefusalReason::NotGranted { smallest_with: None } => f.write_str("no shipped world grants it"),
            RefusalReason::NotBuilt { smallest_with, feature } => {
                write!(f, "{smallest_with} grants it in a build with the cargo feature {feature}")
            }
            RefusalReason::Version { granted } => write!(f, "the world has it only as {granted}"),
            RefusalReason::Functions { granted, missing } => {
                write!(f, "{granted} has no {}", missing.join(", "))
            }
        }
    }
}

/// A component's description of itself, whatever it is for.
pub(super) struct Described {
    pub resolve: Resolve,
    world: WorldId,
    pub resources: Resources,
}

impl Described {
    pub fn read(bytes: &[u8]) -> Result<Self, ComponentError> {
        check_preamble(bytes)?;
        let resources = Resources::read(bytes)?;
        // The decoder asserts what a sound component keeps to; this one is anyone's.
        let decoded = panic::catch_unwind(|| wit_parser::decoding::decode(bytes))
            .map_err(|_| ComponentError::Malformed { cause: "its types cannot be followed".into() })?
            .map_err(|error| ComponentError::Malformed { cause: format!("{error:#}") })?;
        match decoded {
            DecodedWasm::WitPackage(..) => Err(ComponentError::WitPackage),
            DecodedWasm::Component(resolve, world) => Ok(Described { resolve, world, resources }),
        }
    }

    pub fn imports(&self) -> impl Iterator<Item = Import> {
        let world = &self.resolve.worlds[self.world];
        world.imports.iter().map(|(key, item)| Import::read(&self.resolve, key, item))
    }

    /// The name of everything that it exports.
    pub fn exports(&self) -> Vec<String> {
        self.resolve.worlds[self.world].exports.keys().map(|key| key_name(&self.resolve, key)).collect()
    }

    pub fn imported(&self, name: &str) -> Option<&Interface> {
        self.interface(name, &self.resolve.worlds[self.world].imports)
    }

    pub fn exported(&self, name: &str) -> Option<&Interface> {
        self.interface(name, &self.resolve.worlds[self.world].exports)
    }

    fn interface<'a>(
        &'a self,
        name: &str,
        items: impl IntoIterator<Item = (&'a WorldKey, &'a WorldItem)>,
    ) -> Option<&'a Interface> {
        let (_, item) = items.into_iter().find(|(key, _)| key_name(&self.resolve, key) == name)?;
        match item {
            WorldItem::Interface { id, .. } => Some(&self.resolve.interfaces[*id]),
            WorldItem::Function(_) | WorldItem::Type { .. } => None,
        }
    }
}

impl ComponentShape {
    /// Reads a component's description of itself and checks its operators against
    /// their contracts.
    pub fn read(bytes: &[u8]) -> Result<Self, ComponentError> {
        Self::of(&Described::read(bytes)?)
    }

    pub(super) fn of(described: &Described) -> Result<Self, ComponentError> {
        let Described { resolve, world, resources } = described;
        let world = &resolve.worlds[*world];
        let (mut operators, mut other_exports) = (Vec::new(), Vec::new());
        for (key, item) in &world.exports {
            let name = key_name(resolve, key);
            match (operator_named(&name), item) {
                (Some(operator), WorldItem::Interface { id, .. }) => {
                    check_operator(operator, resolve, &resolve.interfaces[*id])?;
                    operators.push(operator);
                }
                _ => other_exports.push(name),
            }
        }
        if operators.is_empty() {
            return Err(ComponentError::NoOperator { exports: other_exports });
        }
        let imports = described.imports().collect();
        Ok(ComponentShape { imports, operators, other_exports, resources: *resources })
    }

    /// Whether it has an operator of this contract and kind.
    pub fn serves(&self, contract: Contract, kind: OperatorKind) -> bool {
        self.operators.contains(&OperatorExport { contract, kind })
    }

    /// The contract by which a kind is served; ours, or AIO's newest, if several are.
    pub fn contract_for(&self, kind: OperatorKind) -> Option<Contract> {
        Contract::ALL.into_iter().find(|contract| self.serves(*contract, kind))
    }

    /// Whether it can ask other programs, through AIO's `command-invoker`.
    pub fn asks(&self) -> bool {
        let mut needed = self.imports.iter().filter(|import| !import.types_only);
        needed.any(|import| {
            let path = import.name.split('@').next().and_then(|path| path.strip_suffix("/command-invoker"));
            path == Some(Contract::Aio.package()) || path == Some(Contract::Preview.package())
        })
    }

    /// Whether all that it imports is granted by a world; if not, all that is not.
    pub fn fits(&self, world: &PolicyWorld) -> Result<(), Vec<Refusal>> {
        let refusals: Vec<_> = self.imports.iter().filter_map(|import| import.refusal(world)).collect();
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }
}

impl Import {
    fn read(resolve: &Resolve, key: &WorldKey, item: &WorldItem) -> Self {
        let name = key_name(resolve, key);
        let (functions, types_only) = match item {
            WorldItem::Interface { id, .. } => {
                let interface = &resolve.interfaces[*id];
                let functions: BTreeSet<_> = interface.functions.keys().cloned().collect();
                let types_only = functions.is_empty() && !has_resource(resolve, interface);
                (functions, types_only)
            }
            WorldItem::Function(function) => (BTreeSet::from([function.name.clone()]), false),
            WorldItem::Type { .. } => (BTreeSet::new(), true),
        };
        Import { name, functions, types_only }
    }

    fn refusal(&self, world: &PolicyWorld) -> Option<Refusal> {
        if self.types_only {
            return None;
        }
        let reason = match InterfaceName::parse(&self.name) {
            Some(name) => self.interface_refusal(&name, world)?,
            // A function at the root of the component: no world has one.
            None => RefusalReason::NotGranted { smallest_with: None },
        };
        Some(Refusal { import: self.name.clone(), world: world.name.clone(), reason })
    }

    fn interface_refusal(&self, name: &InterfaceName, world: &PolicyWorld) -> Option<RefusalReason> {
        if let Some(granted) = world.grant(name) {
            let missing: Vec<_> = self.functions.difference(&granted.items).cloned().collect();
            let granted = granted.interface.to_string();
            return (!missing.is_empty()).then_some(RefusalReason::Functions { granted, missing });
        }
        if let Some(granted) = world.granted_at_any_version(name) {
            return Some(RefusalReason::Version { granted: granted.interface.to_string() });
        }
        let smallest_with = PolicyWorld::smallest_with(name).map(|world| world.name.clone());
        match PolicyWorld::smallest_not_built(name) {
            Some((world, feature)) if smallest_with.is_none() => {
                Some(RefusalReason::NotBuilt { smallest_with: world.name.clone(), feature })
            }
            _ => Some(RefusalReason::NotGranted { smallest_with }),
        }
    }
}

impl Resources {
    /// What two components need in one.
    pub(super) fn plus(self, other: Resources) -> Resources {
        let Resources { core_modules, memories, tables, memory_bytes_min, component_bytes } = self;
        Resources {
            core_modules: core_modules.saturating_add(other.core_modules),
            memories: memories.saturating_add(other.memories),
            tables: tables.saturating_add(other.tables),
            memory_bytes_min: memory_bytes_min.saturating_add(other.memory_bytes_min),
            component_bytes: component_bytes.saturating_add(other.component_bytes),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, ComponentError> {
        let malformed =
            |error: wasmparser::BinaryReaderError| ComponentError::Malformed { cause: error.to_string() };
        let mut found = Resources { component_bytes: bytes.len() as u64, ..Resources::default() };
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(malformed)? {
                Payload::Version { encoding: Encoding::Module, .. } => found.core_modules += 1,
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory.map_err(malformed)?;
                        found.memories += 1;
                        let page_bytes =
                            1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
                        let bytes = memory.initial.saturating_mul(page_bytes);
                        found.memory_bytes_min = found.memory_bytes_min.saturating_add(bytes);
                    }
                }
                Payload::TableSection(section) => found.tables += section.count(),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// What every WebAssembly file starts with.
const MAGIC: &[u8] = b"\0asm";

fn check_preamble(bytes: &[u8]) -> Result<(), ComponentError> {
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(ComponentError::NotWasm);
    }
    match bytes.get(4..8) {
        None => Err(ComponentError::TooShort { bytes: bytes.len() }),
        Some([_, _, 0, 0]) => Err(ComponentError::CoreModule),
        Some(_) => Ok(()),
    }
}

/// The name of an import or export. Unlike wit-parser's own, it never panics: a
/// component may hold an interface without a name.
fn key_name(resolve: &Resolve, key: &WorldKey) -> String {
    match key {
        WorldKey::Name(name) => name.clone(),
        WorldKey::Interface(id) => resolve.id_of(*id).unwrap_or_else(|| "(unnamed interface)".to_owned()),
    }
}

fn has_resource(resolve: &Resolve, interface: &Interface) -> bool {
    interface.types.values().any(|id| matches!(resolve.types[*id].kind, wit_parser::TypeDefKind::Resource))
}

fn operator_named(name: &str) -> Option<OperatorExport> {
    let name = InterfaceName::parse(name)?;
    Contract::ALL
        .into_iter()
        .flat_map(|contract| OperatorKind::ALL.map(|kind| OperatorExport { contract, kind }))
        .find(|operator| {
            InterfaceName::parse(&operator.contract.interface(operator.kind))
                .is_some_and(|contract| contract.is_compatible_with(&name))
        })
}

/// Compares the functions of an exported operator with those of its contract.
fn check_operator(
    operator: OperatorExport,
    resolve: &Resolve,
    found: &Interface,
) -> Result<(), ComponentError> {
    let name = operator.contract.interface(operator.kind);
    let expected = &WIT.interface(&name).expect("contracts are compiled in");
    let error = |mismatch| ComponentError::Signature { interface: name.clone(), mismatch };
    for (function, signature) in &expected.functions {
        let Some(found) = found.functions.get(function) else {
            return Err(error(Mismatch::absent(function)));
        };
        signature::check(&WIT.resolve, signature, resolve, found).map_err(error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
