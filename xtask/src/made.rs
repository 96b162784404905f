//! Hostile components that no compiler would make: written as text or bytes, and put where
//! those of `tenants/` lie, as `hostile_NAME.wasm`. `tenants/hostile/attacks.yaml` says what
//! each is for. The same bytes on every run.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::{guests::component, root};

/// Makes all of them.
pub fn build() -> anyhow::Result<()> {
    let painter = root().join("tenants/hostile/painter.wat");
    let painter = fs::read_to_string(&painter).with_context(|| painter.display().to_string())?;
    let pass = || operator(&map(&Parts::default()), "");
    let made = [
        ("painter", operator(&painter, "")?),
        // The same to whoever runs it, and another to who keeps images of components.
        ("looker", with_section(operator(&painter, "")?, 8)),
        ("table", operator(&map(&growing_table()), "")?),
        ("imports", many_imports(10_000)?),
        ("functions", operator(&map(&many_functions(10_000)), "")?),
        ("data", operator(&map(&huge_data(7 << 20)), "")?),
        ("bomb", operator(&map(&bomb(1_000, 1_000)), "")?),
        ("nest", operator(&map(&deep_nest(100_000)), "")?),
        ("big", with_section(pass()?, 50 << 20)),
        ("noise", noise(1 << 20)),
        ("header", [b"\0asm\x0d\0\x01\0".to_vec(), noise(1 << 20)].concat()),
    ];
    for (name, bytes) in made {
        write(&component(&format!("hostile-{name}")), &bytes)?;
    }
    Ok(())
}

/// Only what differs, so that its time says when it changed.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// What is hostile about a map that otherwise passes all messages on.
struct Parts {
    /// Pages of memory at the start.
    pages: u32,
    imports: String,
    /// Tables, functions and data.
    fields: String,
    /// Instructions at the start of each call.
    each_call: String,
}

impl Default for Parts {
    fn default() -> Self {
        Parts { pages: 16, imports: String::new(), fields: String::new(), each_call: String::new() }
    }
}

/// A core module that exports the packed contract's map. Arguments lie from 64 KiB on,
/// and are given back as they are.
fn map(Parts { pages, imports, fields, each_call }: &Parts) -> String {
    format!(
        r#"(module
  {imports}
  (memory (export "memory") {pages})
  (global $next (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (local.get $at))
  (func (export "tidegate:operator/map@0.1.0#init") (param i32 i32 i32 i32) (result i32)
    (i32.const 64))
  (func (export "tidegate:operator/map@0.1.0#process")
    (param $entries i32) (param $entries_len i32) (param $arena i32) (param $arena_len i32) (result i32)
    {each_call}
    (i32.store (i32.const 16) (local.get $entries))
    (i32.store (i32.const 20) (local.get $entries_len))
    (i32.store (i32.const 24) (i32.const 64))
    (i32.store (i32.const 28) (i32.const 0))
    (i32.store (i32.const 32) (local.get $arena))
    (i32.store (i32.const 36) (local.get $arena_len))
    (global.set $next (i32.const 65536))
    (i32.const 16))
  {fields})"#
    )
}

/// Makes a core module a component that exports a map and imports `imports`, lines of a
/// world.
fn operator(module: &str, imports: &str) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_path(root().join("wit/tidegate-operator"))?;
    let text =
        format!("package hostile:made; world made {{ {imports} export tidegate:operator/%map@0.1.0; }}");
    let package = resolve.push_source("made.wit", &text)?;
    let world = resolve.select_world(&[package], Some("made"))?;
    let mut module = wat::parse_str(module)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    ComponentEncoder::default().module(&module)?.validate(true).encode()
}

/// Each call grows a table until that is refused.
fn growing_table() -> Parts {
    Parts {
        fields: "(table $table 1 funcref)".into(),
        each_call: "(loop $more
            (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 1)) (i32.const -1))))"
            .into(),
        ..Parts::default()
    }
}

fn many_imports(count: u32) -> anyhow::Result<Vec<u8>> {
    let (mut imports, mut world) = (String::new(), String::new());
    for number in 0..count {
        writeln!(imports, "(import \"$root\" \"imported-{number}\" (func))")?;
        writeln!(world, "import imported-{number}: func();")?;
    }
    operator(&map(&Parts { imports, ..Parts::default() }), &world)
}

fn many_functions(count: u32) -> Parts {
    let mut fields = String::new();
    for number in 0..count {
        let body = format!("(i32.add (local.get 0) (i32.const {number}))");
        writeln!(fields, "(func (param i32) (result i32) {body})").expect("a string takes all");
    }
    Parts { fields, ..Parts::default() }
}

/// One segment that fills memory at the start.
fn huge_data(bytes: usize) -> Parts {
    let fields = format!("(data (i32.const 131072) \"{}\")", "d".repeat(bytes));
    Parts { pages: (bytes >> 16) as u32 + 2, fields, ..Parts::default() }
}

/// A function of a few kilobytes that takes very long to compile: loops in each other, at
/// the head of each of which every local has a value of its own.
fn bomb(loops: usize, locals: usize) -> Parts {
    let mut fields = format!("(func (param i32) (local {})", "i64 ".repeat(locals));
    fields += &"loop ".repeat(loops);
    for local in 1..=locals {
        write!(fields, "local.get {local} i64.const {local} i64.add local.set {local} ")
            .expect("a string takes all");
    }
    fields += &"local.get 0 br_if 0 end ".repeat(loops);
    fields += ")";
    Parts { fields, ..Parts::default() }
}

fn deep_nest(depth: usize) -> Parts {
    let fields = format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth));
    Parts { fields, ..Parts::default() }
}

/// Adds a custom section of zeros.
fn with_section(mut component: Vec<u8>, bytes: usize) -> Vec<u8> {
    let name = b"\x04none";
    component.push(0);
    leb128((name.len() + bytes) as u32, &mut component);
    component.extend_from_slice(name);
    component.resize(component.len() + bytes, 0);
    component
}

fn leb128(mut number: u32, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that mean nothing: Marsaglia's xorshift.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(|_| next()).collect()
}
