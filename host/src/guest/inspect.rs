//! `Inspection`: all that can be said of a component from its bytes, for
//! `tidegate inspect`. Beside the path; it compiles and runs nothing.

use std::fmt;

use serde_json::{Value, json};

use crate::guest::{
    Contract,
    component::Digest,
    compose::{self, Inner},
    imports::{ComponentError, ComponentShape, Import, Refusal, Resources},
    world::{Grant, InterfaceName, PolicyWorld},
};

/// What a component is, asks for and would get.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub digest: Digest,
    pub bytes: usize,
    pub shape: ComponentShape,
    /// What it was fused from; empty if it was not.
    pub inside: Vec<Inner>,
    /// For each shipped world, smallest first, what stands in the way.
    pub worlds: Vec<Fit>,
    /// The policy world that was asked about.
    pub world: &'static PolicyWorld,
}

/// How a component and a world go together.
#[derive(Clone, Debug)]
pub struct Fit {
    pub world: &'static PolicyWorld,
    pub refusals: Vec<Refusal>,
}

impl Fit {
    fn of(shape: &ComponentShape, world: &'static PolicyWorld) -> Self {
        Fit { world, refusals: shape.fits(world).err().unwrap_or_default() }
    }

    pub fn fits(&self) -> bool {
        self.refusals.is_empty()
    }
}

impl Inspection {
    /// Reads a component, and looks at it under the policy world `world`.
    pub fn of(bytes: &[u8], world: &'static PolicyWorld) -> Result<Self, ComponentError> {
        let shape = ComponentShape::read(bytes)?;
        let worlds = PolicyWorld::shipped().iter().map(|world| Fit::of(&shape, world)).collect();
        let inside = compose::inside(bytes);
        Ok(Inspection { digest: Digest::of(bytes), bytes: bytes.len(), shape, inside, worlds, world })
    }

    /// What the component asks for beyond the policy world.
    pub fn beyond(&self) -> Vec<Refusal> {
        Fit::of(&self.shape, self.world).refusals
    }

    /// The smallest shipped world that it fits.
    pub fn smallest_fit(&self) -> Option<&'static PolicyWorld> {
        self.worlds.iter().find(|fit| fit.fits()).map(|fit| fit.world)
    }

    /// What a world would have to be for the component to fit, if no shipped one is:
    /// the shipped one that lacks least, and what it lacks.
    pub fn would_fit(&self) -> Option<(&'static PolicyWorld, Vec<&str>)> {
        if self.smallest_fit().is_some() {
            return None;
        }
        let nearest = self.worlds.iter().min_by_key(|fit| fit.refusals.len())?;
        Some((nearest.world, nearest.refusals.iter().map(|refusal| refusal.import.as_str()).collect()))
    }

    /// One document with a stable schema.
    pub fn to_json(&self) -> Value {
        let Resources { core_modules, memories, tables, memory_bytes_min, .. } = self.shape.resources;
        let import = |import: &Import| {
            let granted: serde_json::Map<_, _> = PolicyWorld::shipped()
                .iter()
                .map(|world| (world.name.clone(), json!(Class::of(import, world).as_str())))
                .collect();
            json!({
                "name": import.name,
                "typesOnly": import.types_only,
                "functions": import.functions,
                "worlds": granted,
            })
        };
        json!({
            "digest": format!("sha256:{}", self.digest),
            "bytes": self.bytes,
            "operators": self.shape.operators.iter().map(|operator| json!({
                "kind": operator.kind.name(),
                "contract": format!("{}@{}", operator.contract.package(), operator.contract.version()),
            })).collect::<Vec<_>>(),
            "otherExports": self.shape.other_exports,
            "fused": self.inside.iter().map(|inner| json!({
                "name": inner.name, "digest": format!("sha256:{}", inner.digest),
            })).collect::<Vec<_>>(),
            "imports": self.shape.imports.iter().map(import).collect::<Vec<_>>(),
            "resources": {
                "coreModules": core_modules,
                "memories": memories,
                "tables": tables,
                "memoryBytesMin": memory_bytes_min,
            },
            "worlds": self.worlds.iter().map(|fit| json!({
                "name": fit.world.name,
                "fits": fit.fits(),
                "refusals": fit.refusals.iter().map(Refusal::to_string).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "smallestWorld": self.smallest_fit().map(|world| &world.name),
            "wouldFit": self.would_fit().map(|(world, imports)| json!({ "include": world.name, "import": imports })),
            "policyWorld": self.world.name,
            "beyondPolicy": self.beyond().iter().map(Refusal::to_string).collect::<Vec<_>>(),
        })
    }
}

/// What a world makes of one import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Types alone; nothing is needed.
    Types,
    Granted(Grant),
    Refused,
}

impl Class {
    fn of(import: &Import, world: &PolicyWorld) -> Self {
        if import.types_only {
            return Class::Types;
        }
        match InterfaceName::parse(&import.name).and_then(|name| world.grant(&name)) {
            Some(granted) if import.functions.is_subset(&granted.items) => Class::Granted(granted.grant),
            _ => Class::Refused,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Class::Types => "types",
            Class::Granted(Grant::Real) => "real",
            Class::Granted(Grant::Inert) => "inert",
            Class::Refused => "refused",
        }
    }
}

/// The text for people, in lines of at most 100 columns where names allow.
impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resources { core_modules, memories, tables, memory_bytes_min, .. } = self.shape.resources;
        writeln!(f, "digest     sha256:{}", self.digest)?;
        writeln!(f, "size       {}", Size(self.bytes as u64))?;
        writeln!(
            f,
            "inside     {core_modules} core modules, {memories} memories of {} at the start, {tables} tables",
            Size(memory_bytes_min)
        )?;
        for (place, inner) in self.inside.iter().enumerate() {
            let title = if place == 0 { "fused of" } else { "" };
            let name = if inner.name.is_empty() { "(no name)" } else { &inner.name };
            writeln!(f, "{title:<10} {name:<20} sha256:{}", inner.digest)?;
        }
        for (place, operator) in self.shape.operators.iter().enumerate() {
            let title = if place == 0 { "operators" } else { "" };
            let how = match operator.contract {
                Contract::Packed => "a batch a call",
                Contract::Aio | Contract::Preview => "a message a call",
            };
            let (package, version) = (operator.contract.package(), operator.contract.version());
            writeln!(f, "{title:<10} {:<10} {package}@{version}, {how}", operator.kind.name())?;
        }
        for (place, export) in self.shape.other_exports.iter().enumerate() {
            let title = if place == 0 { "also" } else { "" };
            writeln!(f, "{title:<10} {export}")?;
        }
        self.write_imports(f)?;
        self.write_worlds(f)
    }
}

impl Inspection {
    fn write_imports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shape.imports.is_empty() {
            return writeln!(f, "imports    none");
        }
        let width =
            self.shape.imports.iter().map(|import| import.name.len()).max().unwrap_or(0).max("imports".len());
        write!(f, "\n{:width$}", "imports")?;
        for world in PolicyWorld::shipped() {
            write!(f, "  {:>1$}", short(&world.name), width_of(world))?;
        }
        writeln!(f)?;
        for import in &self.shape.imports {
            write!(f, "{:width$}", import.name)?;
            for world in PolicyWorld::shipped() {
                write!(f, "  {:>1$}", Class::of(import, world).as_str(), width_of(world))?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    fn write_would_fit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "fits       no shipped world")?;
        let Some((world, imports)) = self.would_fit() else { return Ok(()) };
        writeln!(f, "would fit  a world that includes {} and imports", world.name)?;
        imports.iter().try_for_each(|import| writeln!(f, "  {import}"))
    }

    fn write_worlds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting: Vec<_> =
            self.worlds.iter().filter(|fit| fit.fits()).map(|fit| fit.world.name.as_str()).collect();
        match fitting.as_slice() {
            [] => self.write_would_fit(f)?,
            fitting => writeln!(f, "fits       {}", fitting.join(", "))?,
        }
        let beyond = self.beyond();
        if beyond.is_empty() {
            return writeln!(f, "policy     nothing beyond {}", self.world.name);
        }
        writeln!(f, "policy     {} imports beyond {}:", beyond.len(), self.world.name)?;
        beyond.iter().try_for_each(|refusal| writeln!(f, "  {}: {}", refusal.import, refusal.reason))
    }
}

/// Of a world's column.
fn width_of(world: &PolicyWorld) -> usize {
    short(&world.name).len().max("standard".len())
}

/// The world's name in its package.
fn short(world: &str) -> &str {
    let name = world.rsplit('/').next().unwrap_or(world);
    name.split('@').next().unwrap_or(name)
}

/// Bytes as people read them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 10 << 10 => write!(f, "{bytes} bytes"),
            bytes if bytes < 10 << 20 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

#[cfg(test)]
mod tests;
