use super::*;
use crate::guest::{
    imports::ComponentShape,
    tests::{Rig, STANDARD, dummy},
};

const FILTER: &str = "export tidegate:operator/filter@0.1.0;";

/// Every interface that a world grants, as imports.
fn all_of(world: &str) -> String {
    let world = PolicyWorld::named(world).unwrap();
    world.granted().map(|granted| format!("import {};", granted.interface)).collect()
}

#[test]
fn each_world_links_and_starts_all_that_it_grants() {
    for world in PolicyWorld::shipped() {
        let bytes = dummy(&(all_of(&world.name) + FILTER));
        ComponentShape::read(&bytes).unwrap().fits(world).unwrap();
        Rig::start(&bytes, &world.name, 1).unwrap_or_else(|error| panic!("{}: {error}", world.name));
    }
}

#[test]
fn a_linker_holds_nothing_that_its_world_does_not_grant() {
    for (world, import) in [
        ("tidegate:policy/pure@0.1.0", "wasm-graph:processor/logger@1.1.0"),
        ("tidegate:policy/pure@0.1.0", "wasi:io/poll@0.2.12"),
        (STANDARD, "wasi:filesystem/preopens@0.2.12"),
        (STANDARD, "wasi:sockets/tcp-create-socket@0.2.12"),
        (STANDARD, "wasi:nn/graph@0.2.0-rc-2024-10-28"),
        ("tidegate:policy/python@0.1.0", "wasi:nn/tensor@0.2.0-rc-2024-10-28"),
        ("tidegate:policy/pure@0.1.0", "wasm-graph:processor/state-store@1.1.0"),
        ("tidegate:policy/pure@0.1.0", "wasm-graph:processor/schema-registry@1.1.0"),
        ("tidegate:policy/pure@0.1.0", "wasm-graph:processor/command-invoker@1.1.0"),
        ("tidegate:policy/pure@0.1.0", "tinykube-graph:processor/logger@1.0.0"),
        ("tidegate:policy/pure@0.1.0", "tinykube-graph:processor/state-store@1.0.0"),
        ("tidegate:policy/pure@0.1.0", "tinykube-graph:processor/command-invoker@1.0.0"),
    ] {
        let error = Rig::start(&dummy(&format!("import {import};{FILTER}")), world, 1).err();
        let error = error.unwrap_or_else(|| panic!("{world} linked {import}"));
        assert!(error.contains("was not found in the linker"), "{import}: {error}");
    }
    let error = Rig::start(&dummy(FILTER), "tidegate:policy/generous@0.1.0", 1).err().unwrap();
    assert_eq!(error, "no policy world is named `tidegate:policy/generous@0.1.0`");
}
