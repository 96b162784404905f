//! Bindings for guests in C and Go, and components out of what their compilers make: what
//! `wit-bindgen` and `wasm-tools component` do, from the same crates. A program of its
//! own, so that nothing else of the project waits for it to be compiled.

use std::{env, fs, path::Path};

use anyhow::{Context, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::{
    Files, WorldGenerator,
    wit_parser::{Resolve, WorldId},
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

const USAGE: &str = "usage: bindings WORLD WIT... c|go FOLDER
       bindings WORLD WIT... component MODULE COMPONENT

WORLD is NAMESPACE:PACKAGE/NAME, or the name alone if one package has it; WIT are
packages, each after those that it needs.";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [world, wit @ .., "c", folder] => {
            let (resolve, world) = read(world, wit)?;
            write(wit_bindgen_c::Opts::default().build().as_mut(), resolve, world, Path::new(folder))
        }
        [world, wit @ .., "go", folder] => {
            let (resolve, world) = read(world, wit)?;
            write(wit_bindgen_go::Opts::default().build().as_mut(), resolve, world, Path::new(folder))
        }
        [world, wit @ .., "component", module, component] => {
            let (resolve, world) = read(world, wit)?;
            let bytes = encode(module, &resolve, world).with_context(|| (*module).to_owned())?;
            fs::write(component, bytes).with_context(|| (*component).to_owned())
        }
        _ => bail!(USAGE),
    }
}

fn read(world: &str, wit: &[&str]) -> anyhow::Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let mut packages = Vec::new();
    for path in wit {
        packages.push(resolve.push_path(path)?.0);
    }
    let world = resolve.select_world(&packages, Some(world))?;
    Ok((resolve, world))
}

fn write(
    generator: &mut dyn WorldGenerator,
    mut resolve: Resolve,
    world: WorldId,
    folder: &Path,
) -> anyhow::Result<()> {
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().context("below the folder")?)?;
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn encode(module: &str, resolve: &Resolve, world: WorldId) -> anyhow::Result<Vec<u8>> {
    let mut bytes = fs::read(module)?;
    embed_component_metadata(&mut bytes, resolve, world, StringEncoding::UTF8, false)?;
    ComponentEncoder::default()
        .validate(true)
        .module(&bytes)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .encode()
}
