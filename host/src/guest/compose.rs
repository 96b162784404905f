//! Composing: a map that imports a contract and a provider that exports it become one
//! component. Serves deploys, before compiling, and `tidegate compose`. Both sides are
//! strangers' bytes: what is told apart is told from their descriptions, and wac is
//! asked only then, by deploys in the compile process.

use std::panic;

use serde::{Deserialize, Serialize};
use wac_graph::{CompositionGraph, EncodeOptions, types::Package};
use wasmparser::{Parser, Payload};

use crate::{
    guest::{
        component::Digest,
        imports::{ComponentError, ComponentShape, Described, Import},
        signature::{self, Mismatch},
        world::InterfaceName,
    },
    leb128,
};

/// Packages with these namespaces are the host's to give, not a provider's.
const HOST_NAMESPACES: [&str; 4] = ["wasi", "wasm-graph", "tinykube-graph", "tidegate"];

/// The custom section that names what was fused.
const SECTION: &str = "tidegate:fused";

/// Why two components are not fused.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    #[error("the map cannot be composed: {0}")]
    Map(#[source] ComponentError),
    #[error("the provider cannot be composed: {0}")]
    Provider(#[source] ComponentError),
    #[error("there is nothing to fuse: all that the map imports is the host's to give")]
    NothingToFuse,
    #[error("the map imports {}, and the provider exports {}", list(.imports), list(.exports))]
    NotProvided { imports: Vec<String>, exports: Vec<String> },
    #[error("{} would still be open, which no host gives", list(.imports))]
    LeftOver { imports: Vec<String> },
    #[error("`{interface}` of the provider is not what the map imports: {mismatch}")]
    Mismatch { interface: String, mismatch: Mismatch },
    #[error("the two do not fit together: {cause}")]
    Encode { cause: String },
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// The two components that one was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub map: Digest,
    pub provider: Digest,
}

impl Parts {
    /// What the fused component is kept under: the same for the same two.
    pub fn digest(self) -> Digest {
        Digest::of(format!("tidegate:fused {} {}", self.map, self.provider).as_bytes())
    }
}

/// Two components that fit together.
#[derive(Clone, Debug)]
pub struct Fusion {
    /// What the provider gives: the map's import and the provider's export, whose
    /// versions may differ.
    filled: Vec<(String, String)>,
    /// What the fused component will import and export.
    pub shape: ComponentShape,
}

impl Fusion {
    /// Reads both descriptions and finds out whether they fit.
    pub fn check(map: &[u8], provider: &[u8]) -> Result<Self, ComposeError> {
        let map_is = Described::read(map).map_err(ComposeError::Map)?;
        let provider_is = Described::read(provider).map_err(ComposeError::Provider)?;
        let shape = ComponentShape::of(&map_is).map_err(ComposeError::Map)?;
        let open: Vec<&Import> = shape.imports.iter().filter(|import| is_open(import)).collect();
        if open.is_empty() {
            return Err(ComposeError::NothingToFuse);
        }
        let exports = provider_is.exports();
        let filled: Vec<(String, String)> = open
            .iter()
            .filter_map(|import| {
                let export = exports.iter().find(|name| is_same(&import.name, name))?;
                Some((import.name.clone(), export.clone()))
            })
            .collect();
        if filled.is_empty() {
            return Err(ComposeError::NotProvided {
                imports: open.iter().map(|import| import.name.clone()).collect(),
                exports,
            });
        }
        for (import, export) in &filled {
            check_types(import, &map_is, export, &provider_is)?;
        }
        let shape = fused_shape(shape, &filled, &provider_is);
        let left: Vec<_> = shape.imports.iter().filter(|import| is_open(import)).collect();
        if !left.is_empty() {
            let imports = left.into_iter().map(|import| import.name.clone()).collect();
            return Err(ComposeError::LeftOver { imports });
        }
        Ok(Fusion { filled, shape })
    }

    /// The map's imports that the provider gives.
    pub fn filled(&self) -> impl Iterator<Item = &str> {
        self.filled.iter().map(|(import, _)| import.as_str())
    }

    /// Fuses the two that were checked.
    pub fn encode(&self, map: &[u8], provider: &[u8]) -> Result<Vec<u8>, ComposeError> {
        // wac asserts what sound components keep to; these are anyone's.
        panic::catch_unwind(|| self.plug(map, provider))
            .unwrap_or_else(|_| Err("their types cannot be followed".to_owned()))
            .map_err(|cause| ComposeError::Encode { cause })
    }

    fn plug(&self, map: &[u8], provider: &[u8]) -> Result<Vec<u8>, String> {
        let mut graph = CompositionGraph::new();
        let instance = |name: &str, bytes: &[u8], graph: &mut CompositionGraph| {
            let package = Package::from_bytes(name, None, bytes.to_vec(), graph.types_mut());
            let package = package.map_err(|error| format!("{error:#}"))?;
            let package = graph.register_package(package).map_err(|error| error.to_string())?;
            let node = graph.instantiate(package);
            graph.set_node_name(node, name);
            Ok::<_, String>(node)
        };
        let provider = instance("provider", provider, &mut graph)?;
        let map = instance("map", map, &mut graph)?;
        for (import, export) in &self.filled {
            let given = graph.alias_instance_export(provider, export).map_err(|error| error.to_string())?;
            graph.set_instantiation_argument(map, import, given).map_err(|error| format!("{error:?}"))?;
        }
        let exports = self.shape.operators.iter().map(|it| it.contract.interface(it.kind));
        for name in exports.chain(self.shape.other_exports.iter().cloned()) {
            let given = graph.alias_instance_export(map, &name).map_err(|error| error.to_string())?;
            graph.export(given, &name).map_err(|error| error.to_string())?;
        }
        graph.encode(EncodeOptions::default()).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }
}

/// Whether a provider could give it, and has to.
fn is_open(import: &Import) -> bool {
    let namespace = import.name.split_once(':').map_or("", |(namespace, _)| namespace);
    !import.types_only && !HOST_NAMESPACES.contains(&namespace)
}

fn is_same(import: &str, export: &str) -> bool {
    match (InterfaceName::parse(import), InterfaceName::parse(export)) {
        (Some(import), Some(export)) => import.is_compatible_with(&export),
        _ => false,
    }
}

fn check_types(
    import: &str,
    map: &Described,
    export: &str,
    provider: &Described,
) -> Result<(), ComposeError> {
    // A name that is no interface's has nothing to compare.
    let (Some(expected), Some(found)) = (map.imported(import), provider.exported(export)) else {
        return Ok(());
    };
    let error = |mismatch| ComposeError::Mismatch { interface: export.to_owned(), mismatch };
    for (name, function) in &expected.functions {
        let given = found.functions.get(name).ok_or_else(|| error(Mismatch::absent(name)))?;
        signature::check(&map.resolve, function, &provider.resolve, given).map_err(error)?;
    }
    Ok(())
}

/// The map's shape, without what is filled and with all that the provider asks for.
fn fused_shape(map: ComponentShape, filled: &[(String, String)], provider: &Described) -> ComponentShape {
    let mut shape = map;
    shape.imports.retain(|import| filled.iter().all(|(name, _)| *name != import.name));
    for import in provider.imports() {
        match shape.imports.iter_mut().find(|own| own.name == import.name) {
            Some(own) => {
                own.functions.extend(import.functions);
                own.types_only &= import.types_only;
            }
            None => shape.imports.push(import),
        }
    }
    shape.resources = shape.resources.plus(provider.resources);
    shape
}

/// One of the components inside a fused one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// What it was called when it was fused. Anyone can write this.
    pub name: String,
    /// SHA-256 of the bytes inside, in hexadecimal digits: those of its own file.
    pub digest: String,
}

/// Fuses two components, named for `inspect`.
pub fn compose(map: (&str, &[u8]), provider: (&str, &[u8])) -> Result<(Fusion, Vec<u8>), ComposeError> {
    let fusion = Fusion::check(map.1, provider.1)?;
    let mut bytes = fusion.encode(map.1, provider.1)?;
    let inner = [provider, map]
        .map(|(name, bytes)| Inner { name: name.to_owned(), digest: Digest::of(bytes).to_string() });
    let data = serde_json::to_vec(&inner).expect("text has a form in JSON");
    push_section(&mut bytes, &data);
    Ok((fusion, bytes))
}

/// Adds our custom section to a component: its id, its size, its name's size, both.
fn push_section(bytes: &mut Vec<u8>, data: &[u8]) {
    let mut content = Vec::with_capacity(SECTION.len() + data.len() + 1);
    leb128::push(&mut content, SECTION.len() as u64);
    content.extend_from_slice(SECTION.as_bytes());
    content.extend_from_slice(data);
    bytes.push(0);
    leb128::push(bytes, content.len() as u64);
    bytes.extend_from_slice(&content);
}

/// The components that were fused into this one, whoever did it: those directly inside
/// that bring code of their own. Digests are counted from what is there, names are only
/// told. Empty if the bytes are no sound component.
pub fn inside(bytes: &[u8]) -> Vec<Inner> {
    let mut depth = 0_u32;
    let mut named: Vec<Inner> = Vec::new();
    let mut found: Vec<(std::ops::Range<u64>, bool)> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::ComponentSection { unchecked_range, .. }) => {
                if depth == 0 {
                    found.push((unchecked_range, false));
                }
                depth += 1;
            }
            Ok(Payload::ModuleSection { .. }) => {
                if let Some((_, has_code)) = found.last_mut().filter(|_| depth > 0) {
                    *has_code = true;
                }
                depth += 1;
            }
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::CustomSection(section)) if depth == 0 && section.name() == SECTION => {
                named = serde_json::from_slice(section.data()).unwrap_or_default();
            }
            Ok(_) => {}
            Err(_) => return Vec::new(),
        }
    }
    found
        .into_iter()
        .filter(|(_, has_code)| *has_code)
        .map(|(range, _)| {
            let inner = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
            let digest = Digest::of(inner).to_string();
            let name = named.iter().find(|it| it.digest == digest).map(|it| it.name.clone());
            Inner { name: name.unwrap_or_default(), digest }
        })
        .collect()
}

#[cfg(test)]
mod tests;
