use super::*;
use crate::guest::tests::{PYTHON, STANDARD, dummy, dummy_with};

fn read(bytes: &[u8]) -> Result<ComponentShape, ComponentError> {
    ComponentShape::read(bytes)
}

fn refusals(wit: &str, world: &str) -> Vec<String> {
    let shape = read(&dummy(wit)).unwrap();
    let refusals = shape.fits(PolicyWorld::named(world).unwrap()).err().unwrap_or_default();
    refusals.iter().map(Refusal::to_string).collect()
}

#[test]
fn bytes_that_are_no_component_are_told_apart() {
    let cut = dummy("export wasm-graph:processor/%map@1.1.0;");
    let garbled = [&cut[..8], b"\xff\xff\xff\xff\xff"].concat();
    for (bytes, expected) in [
        (&b""[..], "it has 0 bytes, too few for WebAssembly"),
        (b"\0as", "it has 3 bytes, too few for WebAssembly"),
        (b"\0asm\x01\0", "it has 6 bytes, too few for WebAssembly"),
        (b"PK\x03\x04 a zip file", "it is not WebAssembly"),
        (b"#!/bin/sh", "it is not WebAssembly"),
        (b"\0asm\x01\0\0\0", "it is a core module, not a component"),
        (b"\0asm\x0d\0\x01\0", "it exports no operator"),
        (b"\0asm\x0e\0\x01\0", "it is not a sound component"),
        (&cut[..cut.len() / 2], "it is not a sound component"),
        (&garbled, "it is not a sound component"),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{:?}: {error}", &bytes[..bytes.len().min(12)]);
    }
    let resolve = &WIT.resolve;
    let package = resolve.package_names.values().next().copied().unwrap();
    let encoded = wit_component::encode(resolve, package, false).unwrap();
    assert!(matches!(read(&encoded), Err(ComponentError::WitPackage)));
}

#[test]
fn no_prefix_or_flipped_byte_panics() {
    let sound = dummy("import wasi:io/poll@0.2.12; export tidegate:operator/filter@0.1.0;");
    for len in 0..sound.len() {
        let _ = read(&sound[..len]);
    }
    for place in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[place] ^= 0x55;
        let _ = read(&bytes);
    }
}

#[test]
fn operators_and_imports_are_listed() {
    let shape = read(&dummy(
        "import wasm-graph:processor/logger@1.1.0;
         import wasm-graph:processor/hybrid-logical-clock@1.1.0;
         import wasi:cli/stdin@0.2.12;
         import host-says: func() -> string;
         export wasm-graph:processor/delay@1.1.0;
         export tidegate:operator/branch@0.1.0;
         export wasm-graph:processor/branch@1.1.0;
         export tinykube-graph:processor/delay@1.0.0;
         export tinykube-graph:processor/filter@1.0.0;
         export hello: func();",
    ))
    .unwrap();
    use {Contract::*, OperatorKind::*};
    for (contract, kind, served) in [
        (Aio, Delay, true),
        (Packed, Branch, true),
        (Aio, Branch, true),
        (Packed, Delay, false),
        (Aio, Map, false),
        (Preview, Filter, true),
        (Preview, Delay, true),
        (Preview, Branch, false),
    ] {
        assert_eq!(shape.serves(contract, kind), served, "{contract:?} {kind}");
    }
    assert_eq!(shape.contract_for(Branch), Some(Packed));
    assert_eq!(shape.contract_for(Delay), Some(Aio));
    assert_eq!(shape.contract_for(Filter), Some(Preview));
    assert_eq!(shape.contract_for(Map), None);
    assert_eq!(shape.other_exports, ["hello"]);
    let imports: Vec<_> = shape
        .imports
        .iter()
        .map(|import| (import.name.as_str(), import.types_only, import.functions.len()))
        .collect();
    for expected in [
        ("wasm-graph:processor/logger@1.1.0", false, 1),
        ("wasm-graph:processor/hybrid-logical-clock@1.1.0", true, 0),
        ("wasm-graph:processor/types@1.1.0", false, 1),
        ("wasi:cli/stdin@0.2.12", false, 1),
        ("host-says", false, 1),
    ] {
        assert!(imports.contains(&expected), "{expected:?} in {imports:?}");
    }
    assert!(shape.resources.core_modules > 0);
}

#[test]
fn without_an_operator_the_exports_are_named() {
    let error = read(&dummy("export run: func(); export wasi:random/random@0.2.12;")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it exports no operator: none of `tidegate:operator@0.1.0`, `wasm-graph:processor@1.1.0`, \
         `tinykube-graph:processor@1.0.0`; its exports are `run`, `wasi:random/random@0.2.12`"
    );
}

#[test]
fn imports_beyond_the_world_are_refused_by_full_name() {
    const FILTER: &str = "export tidegate:operator/filter@0.1.0;";
    let pure = "tidegate:policy/pure@0.1.0";
    for (imports, world, expected) in [
        ("", pure, vec![]),
        ("import wasm-graph:processor/types@1.1.0;", pure, vec![]),
        ("import wasm-graph:processor/state-store-types@1.1.0;", pure, vec![]),
        ("import wasi:cli/environment@0.2.12;", STANDARD, vec![]),
        (
            "import wasi:cli/environment@0.2.12;",
            pure,
            vec![
                "imports `wasi:cli/environment@0.2.12`, which `tidegate:policy/pure@0.1.0` does not grant; the \
                 smallest world that does is `tidegate:policy/standard@0.1.0`",
            ],
        ),
        (
            "import wasi:sockets/instance-network@0.2.12;",
            STANDARD,
            vec![
                "imports `wasi:sockets/network@0.2.12`, which `tidegate:policy/standard@0.1.0` does not grant; the \
                 smallest world that does is `tidegate:policy/python@0.1.0`",
                "imports `wasi:sockets/instance-network@0.2.12`, which `tidegate:policy/standard@0.1.0` does not \
                 grant; the smallest world that does is `tidegate:policy/python@0.1.0`",
            ],
        ),
        ("import wasi:sockets/instance-network@0.2.12;", PYTHON, vec![]),
        (
            "import wasm-graph:processor/state-store@1.1.0;",
            pure,
            vec![
                "imports `wasm-graph:processor/state-store@1.1.0`, which `tidegate:policy/pure@0.1.0` does not \
                 grant; the smallest world that does is `tidegate:policy/standard@0.1.0`",
            ],
        ),
        (
            "import wasm-graph:processor/schema-registry@1.1.0;",
            pure,
            vec![
                "imports `wasm-graph:processor/schema-registry@1.1.0`, which `tidegate:policy/pure@0.1.0` does not \
                 grant; the smallest world that does is `tidegate:policy/standard@0.1.0`",
            ],
        ),
        ("import wasm-graph:processor/schema-registry@1.1.0;", STANDARD, vec![]),
        (
            "import wasm-graph:processor/command-invoker@1.1.0;",
            pure,
            vec![
                "imports `wasm-graph:processor/command-invoker@1.1.0`, which `tidegate:policy/pure@0.1.0` does not \
                 grant; the smallest world that does is `tidegate:policy/standard@0.1.0`",
            ],
        ),
        ("import tinykube-graph:processor/types@1.0.0;", pure, vec![]),
        ("import tinykube-graph:processor/state-store@1.0.0;", STANDARD, vec![]),
        (
            "import tinykube-graph:processor/logger@1.0.0;",
            pure,
            vec![
                "imports `tinykube-graph:processor/logger@1.0.0`, which `tidegate:policy/pure@0.1.0` does not \
                 grant; the smallest world that does is `tidegate:policy/standard@0.1.0`",
            ],
        ),
        ("import tinykube-graph:processor/command-invoker@1.0.0;", STANDARD, vec![]),
        ("import wasm-graph:processor/command-invoker@1.1.0;", STANDARD, vec![]),
        (
            "import read-disk: func();",
            PYTHON,
            vec![
                "imports `read-disk`, which neither `tidegate:policy/python@0.1.0` nor any other shipped world grants",
            ],
        ),
    ] {
        assert_eq!(refusals(&format!("{imports}{FILTER}"), world), expected, "{imports} under {world}");
    }
}

#[test]
fn models_are_refused_with_the_world_or_the_build_that_has_them() {
    let import = "wasi:nn/tensor@0.2.0-rc-2024-10-28";
    let expected = if crate::inference::IS_BUILT {
        format!(
            "imports `{import}`, which `{STANDARD}` does not grant; the smallest world that does is \
             `tidegate:policy/inference@0.1.0`"
        )
    } else {
        format!(
            "imports `{import}`, which `tidegate:policy/inference@0.1.0` grants in a build of this host with the \
             cargo feature `wasi-nn`"
        )
    };
    let wit = format!("import {import}; export tidegate:operator/filter@0.1.0;");
    assert_eq!(refusals(&wit, STANDARD), [expected]);
}

#[test]
fn every_minor_of_wasi_fits_and_what_is_not_wasi_as_we_know_it_does_not() {
    let check = |package: &str, import: &str, expected: &[&str]| {
        let wit = format!("import {import}; export tidegate:operator/filter@0.1.0;");
        let shape = read(&dummy_with(package, &wit)).unwrap();
        let refusals = shape.fits(PolicyWorld::named(STANDARD).unwrap()).err().unwrap_or_default();
        assert_eq!(refusals.iter().map(Refusal::to_string).collect::<Vec<_>>(), expected, "{import}");
    };
    check(
        "package wasi:random@0.2.0 { interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; } }",
        "wasi:random/insecure-seed@0.2.0",
        &[],
    );
    check(
        "package wasi:random@0.3.0 { interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; } }",
        "wasi:random/insecure-seed@0.3.0",
        &["imports `wasi:random/insecure-seed@0.3.0`, and `tidegate:policy/standard@0.1.0` has it only as \
           `wasi:random/insecure-seed@0.2.12`"],
    );
    check(
        "package wasi:random@0.2.99 { interface insecure-seed { reseed: func(); } }",
        "wasi:random/insecure-seed@0.2.99",
        &[
            "imports `reseed` of `wasi:random/insecure-seed@0.2.99`, which `wasi:random/insecure-seed@0.2.12` in \
           `tidegate:policy/standard@0.1.0` does not have",
        ],
    );
    check(
        "package wasi:http@0.2.0 { interface outgoing-handler { handle: func(); } }",
        "wasi:http/outgoing-handler@0.2.0",
        &[
            "imports `wasi:http/outgoing-handler@0.2.0`, which neither `tidegate:policy/standard@0.1.0` nor any other \
           shipped world grants",
        ],
    );
}

#[test]
fn the_preview_has_no_schemas_to_look_up_and_no_errors_to_return() {
    let named = "package tinykube-graph:processor@1.0.3 {
        interface schema-registry { get: func(id: string) -> string; }
        interface filter {
            record module-configuration {
                properties: list<tuple<string, string>>,
                module-schemas: list<tuple<string, string, string>>,
            }
            process: func(message: string) -> result<bool, string>;
            init: func(configuration: module-configuration) -> bool;
        }
    }";
    let wit = "import tinykube-graph:processor/schema-registry@1.0.3; export tidegate:operator/filter@0.1.0;";
    let shape = read(&dummy_with(named, wit)).unwrap();
    let refused = shape.fits(PolicyWorld::named(PYTHON).unwrap()).unwrap_err();
    assert_eq!(
        refused.iter().map(Refusal::to_string).collect::<Vec<_>>(),
        ["imports `tinykube-graph:processor/schema-registry@1.0.3`, which neither \
          `tidegate:policy/python@0.1.0` nor any other shipped world grants"]
    );
    let error = read(&dummy_with(named, "export tinykube-graph:processor/filter@1.0.3;")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "its export `tinykube-graph:processor/filter@1.0.0` differs from that contract: \
         `process.message` has `string`, expected variant `data-model`"
    );
}

#[test]
fn operators_with_other_types_are_refused_with_the_difference() {
    const INIT: &str = "init: func(configuration: configuration) -> result<_, string>;";
    let types = "type entries = list<u64>;
        record judged { verdicts: list<u8>, faults: list<u64>, arena: list<u8> }
        record configuration { properties: list<tuple<string, string>>,
            schemas: list<tuple<string, string, string>> }";
    let process = "process: func(entries: entries, arena: list<u8>) -> judged;";
    for (types, functions, expected) in [
        (types.to_owned(), format!("{INIT} {process}"), None),
        (types.to_owned(), INIT.to_owned(), Some("`process` has nothing, expected a function")),
        (
            types.to_owned(),
            format!("{INIT} process: func(entries: entries) -> judged;"),
            Some("`process` has 1 parameters, expected 2 parameters"),
        ),
        (
            types.to_owned(),
            format!("{INIT} process: func(entries: entries, arena: string) -> judged;"),
            Some("`process.arena` has `string`, expected `list<u8>`"),
        ),
        (
            types.to_owned(),
            format!("{INIT} process: func(entries: entries, arena: list<u8>);"),
            Some("`process.result` has nothing, expected record `judged`"),
        ),
        (
            types.replace("entries = list<u64>", "entries = list<u32>"),
            format!("{INIT} {process}"),
            Some("`process.entries` has `u32`, expected `u64`"),
        ),
        (
            types.replace("faults: list<u64>", "mistakes: list<u64>"),
            format!("{INIT} {process}"),
            Some("`process.result` has field `mistakes`, expected field `faults`"),
        ),
        (
            types.replace("list<u64>, arena: list<u8>", "list<u64>"),
            format!("{INIT} {process}"),
            Some("`process.result` has no further field, expected field `arena`"),
        ),
        (
            types.to_owned(),
            format!("init: func(configuration: configuration) -> bool; {process}"),
            Some("`init.result` has `bool`, expected a result"),
        ),
    ] {
        let package =
            format!("package tidegate:operator@0.1.7 {{ interface filter {{ {types} {functions} }} }}");
        let bytes = dummy_with(&package, "export tidegate:operator/filter@0.1.7;");
        let found = read(&bytes).err().map(|error| error.to_string());
        let expected = expected.map(|text| {
            format!("its export `tidegate:operator/filter@0.1.0` differs from that contract: {text}")
        });
        assert_eq!(found, expected);
    }
}
