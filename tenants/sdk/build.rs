//! Encodes each operator world of `wit/tidegate-operator` as the custom section in
//! which a core module tells the linker what component to make of it. `wit-bindgen`
//! writes the same section; the SDK needs only the section, because its own exports
//! read the packed layout in place.

use std::path::{Path, PathBuf};
use std::{env, fs};

use wit_component::StringEncoding;
use wit_parser::Resolve;

const WORLDS: [&str; 5] =
    ["map-operator", "filter-operator", "branch-operator", "accumulate-operator", "delay-operator"];

fn main() {
    let wit = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../wit/tidegate-operator/operator.wit");
    println!("cargo::rerun-if-changed={}", wit.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));

    let mut resolve = Resolve::default();
    let package = resolve.push_file(&wit).expect("the operator contract parses");
    for name in WORLDS {
        let world = resolve.select_world(&[package], Some(name)).expect("the contract has this world");
        let section = wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None)
            .expect("a world that parses can be encoded");
        fs::write(out.join(name), section).expect("the build directory is writable");
    }
}
