use super::*;
use crate::{
    guest::tests::{STANDARD, dummy},
    inference,
};

fn inspect(wit: &str) -> Inspection {
    Inspection::of(&dummy(wit), PolicyWorld::named(STANDARD).unwrap()).unwrap()
}

const MIXED: &str = "import wasm-graph:processor/logger@1.1.0;
    import wasm-graph:processor/hybrid-logical-clock@1.1.0;
    import wasi:random/insecure-seed@0.2.12;
    import wasi:sockets/instance-network@0.2.12;
    import call-home: func();
    export tidegate:operator/filter@0.1.0;
    export wasm-graph:processor/branch@1.1.0;
    export tinykube-graph:processor/delay@1.0.0;
    export hello: func();";

/// The text without what changes with the toolchain: digest and size.
fn text(inspection: &Inspection) -> String {
    let text = inspection.to_string();
    text.lines().skip(3).map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn people_read_what_it_asks_for_and_what_stands_in_the_way() {
    let expected = "\
operators  filter     tidegate:operator@0.1.0, a batch a call
           branch     wasm-graph:processor@1.1.0, a message a call
           delay      tinykube-graph:processor@1.0.0, a message a call
also       hello

imports                                                  pure  standard<inference>    python
wasm-graph:processor/logger@1.1.0                     refused      real<real>      real
wasm-graph:processor/hybrid-logical-clock@1.1.0         types     types<types>     types
wasi:random/insecure-seed@0.2.12                      refused     inert<inert>     inert
wasi:sockets/network@0.2.12                           refused   refused<refused>     inert
wasi:sockets/instance-network@0.2.12                  refused   refused<refused>     inert
tidegate:operator/types@0.1.0                           types     types<types>     types
wasm-graph:processor/types@1.1.0                         real      real<real>      real
tinykube-graph:processor/hybrid-logical-clock@1.0.0     types     types<types>     types
tinykube-graph:processor/types@1.0.0                     real      real<real>      real
call-home                                             refused   refused<refused>   refused

fits       no shipped world
would fit  a world that includes tidegate:policy/python@0.1.0 and imports
  call-home
policy     3 imports beyond tidegate:policy/standard@0.1.0:
  wasi:sockets/network@0.2.12: the smallest world that grants it is tidegate:policy/python@0.1.0
  wasi:sockets/instance-network@0.2.12: the smallest world that grants it is tidegate:policy/python@0.1.0
  call-home: no shipped world grants it
";
    assert_eq!(text(&inspect(MIXED)), with_models(expected));
}

/// With a column for the world that has models, where this build has it.
fn with_models(text: &str) -> String {
    ["inference", "refused", "types", "inert", "real"].iter().fold(text.to_owned(), |text, cell| {
        let column = if inference::IS_BUILT { format!("  {cell:>9}") } else { String::new() };
        text.replace(&format!("<{cell}>"), &column)
    })
}

#[test]
fn programs_read_the_same() {
    let value = inspect(MIXED).to_json();
    let is =
        |path: &str, expected: Value| assert_eq!(value.pointer(path), Some(&expected), "{path} in {value:#}");
    is("/operators/0/kind", json!("filter"));
    is("/operators/0/contract", json!("tidegate:operator@0.1.0"));
    is("/operators/1/contract", json!("wasm-graph:processor@1.1.0"));
    is("/otherExports", json!(["hello"]));
    is("/smallestWorld", Value::Null);
    is("/policyWorld", json!(STANDARD));
    is("/worlds/0/name", json!("tidegate:policy/pure@0.1.0"));
    is("/worlds/0/fits", json!(false));
    let digest = value["digest"].as_str().unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71);
    let logger = value["imports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|import| import["name"] == "wasm-graph:processor/logger@1.1.0");
    let mut expected = json!({
        "name": "wasm-graph:processor/logger@1.1.0",
        "typesOnly": false,
        "functions": ["log"],
        "worlds": {
            "tidegate:policy/pure@0.1.0": "refused",
            "tidegate:policy/standard@0.1.0": "real",
            "tidegate:policy/python@0.1.0": "real",
        },
    });
    if inference::IS_BUILT {
        expected["worlds"]["tidegate:policy/inference@0.1.0"] = json!("real");
    }
    assert_eq!(logger, Some(&expected));
    assert_eq!(value["beyondPolicy"].as_array().unwrap().len(), 3);
}

#[test]
fn the_smallest_world_that_fits_is_named() {
    for (imports, smallest) in [
        ("", Some("tidegate:policy/pure@0.1.0")),
        ("import wasi:cli/stdout@0.2.12;", Some(STANDARD)),
        ("import wasi:filesystem/preopens@0.2.12;", Some("tidegate:policy/python@0.1.0")),
        ("import call-home: func();", None),
    ] {
        let inspection = inspect(&format!("{imports} export tidegate:operator/%map@0.1.0;"));
        assert_eq!(inspection.smallest_fit().map(|world| world.name.as_str()), smallest, "{imports}");
    }
}
