use super::*;

fn name(text: &str) -> InterfaceName {
    InterfaceName::parse(text).unwrap()
}

#[test]
fn names_are_read_and_matched_as_semver_does() {
    for (text, is_name) in [
        ("wasi:io/poll@0.2.6", true),
        ("map:custom/types", true),
        ("wasi:io/poll@0.2", false),
        ("wasi:io", false),
        ("run", false),
        ("a/b", false),
        ("", false),
    ] {
        assert_eq!(InterfaceName::parse(text).is_some(), is_name, "{text}");
    }
    for (one, other, expected) in [
        ("wasi:io/poll@0.2.12", "wasi:io/poll@0.2.0", true),
        ("wasi:io/poll@0.2.12", "wasi:io/poll@0.3.0", false),
        ("wasi:io/poll@0.2.12", "wasi:io/streams@0.2.12", false),
        ("wasi:io/poll@0.2.12", "wasi:io/poll", false),
        ("a:b/c@1.1.0", "a:b/c@1.4.2", true),
        ("a:b/c@1.1.0", "a:b/c@2.0.0", false),
        ("a:b/c@0.0.1", "a:b/c@0.0.2", false),
        ("a:b/c@0.0.1", "a:b/c@0.0.1", true),
        ("wasi:nn/graph@0.2.0-rc-2024-10-28", "wasi:nn/graph@0.2.0", false),
        ("wasi:nn/graph@0.2.0-rc-2024-10-28", "wasi:nn/graph@0.2.0-rc-2024-10-28", true),
        ("map:custom/types", "map:custom/types", true),
    ] {
        assert_eq!(name(one).is_compatible_with(&name(other)), expected, "{one} and {other}");
    }
}

const INFERENCE: &str = "tidegate:policy/inference@0.1.0";

/// The worlds of this build, smallest first.
fn worlds_built() -> Vec<&'static str> {
    let standard = ["tidegate:policy/pure@0.1.0", "tidegate:policy/standard@0.1.0"];
    let models = inference::IS_BUILT.then_some(INFERENCE);
    standard.into_iter().chain(models).chain(["tidegate:policy/python@0.1.0"]).collect()
}

#[test]
fn models_are_granted_in_builds_that_have_them() {
    let import = name("wasi:nn/graph@0.2.0-rc-2024-10-28");
    let smallest = PolicyWorld::smallest_with(&import).map(|world| world.name.as_str());
    let elsewhere =
        PolicyWorld::smallest_not_built(&import).map(|(world, feature)| (world.name.as_str(), feature));
    let named =
        PolicyWorld::named(INFERENCE).map(|world| world.granted().count()).map_err(|it| it.to_string());
    if inference::IS_BUILT {
        let standard = PolicyWorld::named("tidegate:policy/standard@0.1.0").unwrap().granted().count();
        assert_eq!((smallest, elsewhere, named), (Some(INFERENCE), None, Ok(standard + 4)));
    } else {
        let error = format!(
            "the policy world `{INFERENCE}` needs a build of this host with the cargo feature `wasi-nn`"
        );
        assert_eq!((smallest, elsewhere, named), (None, Some((INFERENCE, "wasi-nn")), Err(error)));
    }
}

#[test]
fn worlds_grant_what_their_wit_says() {
    let shipped: Vec<_> = PolicyWorld::shipped().iter().map(|world| world.name.as_str()).collect();
    assert_eq!(shipped, worlds_built(), "smallest first, building blocks left out");
    use Grant::{Inert, Real};
    for (import, pure, standard, python) in [
        ("wasm-graph:processor/types@1.1.0", Some(Real), Some(Real), Some(Real)),
        ("wasm-graph:processor/logger@1.1.0", None, Some(Real), Some(Real)),
        ("wasm-graph:processor/metrics@1.1.0", None, Some(Real), Some(Real)),
        ("wasm-graph:processor/metrics@2.0.0", None, None, None),
        ("wasm-graph:processor/state-store@1.1.0", None, Some(Real), Some(Real)),
        ("wasm-graph:processor/schema-registry@1.1.0", None, Some(Real), Some(Real)),
        ("wasm-graph:processor/command-invoker@1.1.0", None, Some(Real), Some(Real)),
        ("tinykube-graph:processor/types@1.0.0", Some(Real), Some(Real), Some(Real)),
        ("tinykube-graph:processor/metrics@1.0.0", None, Some(Real), Some(Real)),
        ("tinykube-graph:processor/state-store@1.0.0", None, Some(Real), Some(Real)),
        ("tinykube-graph:processor/schema-registry@1.0.0", None, None, None),
        ("tinykube-graph:processor/command-invoker@1.0.0", None, Some(Real), Some(Real)),
        ("wasi:io/poll@0.2.0", None, Some(Inert), Some(Inert)),
        ("wasi:cli/stdout@0.2.12", None, Some(Inert), Some(Inert)),
        ("wasi:sockets/tcp@0.2.0", None, None, Some(Inert)),
        ("wasi:filesystem/preopens@0.2.6", None, None, Some(Inert)),
        ("wasi:http/outgoing-handler@0.2.0", None, None, None),
        ("wasi:cli/run@0.2.12", None, None, None),
    ] {
        let grants: Vec<_> = PolicyWorld::shipped()
            .iter()
            .filter(|world| !world.grants_models())
            .map(|world| world.grant(&name(import)).map(|granted| granted.grant))
            .collect();
        assert_eq!(grants, [pure, standard, python], "{import}");
    }
    let smallest = |import| PolicyWorld::smallest_with(&name(import)).map(|world| world.name.as_str());
    assert_eq!(smallest("wasi:io/poll@0.2.3"), Some("tidegate:policy/standard@0.1.0"));
    assert_eq!(smallest("wasi:sockets/udp@0.2.3"), Some("tidegate:policy/python@0.1.0"));
    assert_eq!(smallest("wasi:http/types@0.2.3"), None);
}

/// The files of the contract's package and of its preview's, by their names; without
/// what the rule leaves out whole.
fn generations() -> [BTreeMap<&'static str, String>; 2] {
    ["package wasm-graph:processor@1.1.0;", "package tinykube-graph:processor@1.0.0;"].map(|package| {
        let is_it = |files: &&&[(&str, &str)]| files.iter().any(|(_, text)| text.contains(package));
        let files = PACKAGES.iter().find(is_it).unwrap_or_else(|| panic!("{package}"));
        files
            .iter()
            .filter(|(name, _)| !["processor.wit", "schema-registry.wit"].contains(name))
            .map(|(name, text)| (*name, text.to_string()))
            .collect()
    })
}

#[test]
fn the_preview_is_the_contract_without_errors_and_without_schemas_to_look_up() {
    let [ours, preview] = generations();
    let by_the_rule: BTreeMap<&str, String> = ours
        .into_iter()
        .map(|(name, text)| {
            let lines = text.lines().filter(|line| *line != "    import schema-registry;").map(|line| {
                let line = line.replace(
                    "{data-model, error, module-configuration}",
                    "{data-model, module-configuration}",
                );
                match line.strip_suffix(", error>;").and_then(|line| line.split_once("result<")) {
                    Some((head, answer)) if name == "operators.wit" => format!("{head}{answer};\n"),
                    _ => line + "\n",
                }
            });
            (
                name,
                lines
                    .collect::<String>()
                    .replace("\n    record error {\n        message: string,\n    }\n", ""),
            )
        })
        .collect();
    assert_eq!(by_the_rule, preview);
}

#[test]
fn unknown_world_lists_the_shipped_ones() {
    assert!(PolicyWorld::named("tidegate:policy/standard@0.1.0").is_ok());
    for unknown in ["tidegate:policy/inert-std@0.1.0", "standard", "tidegate:policy/standard@0.2.0"] {
        let error = PolicyWorld::named(unknown).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("no policy world is named `{unknown}`; there are `{}`", worlds_built().join("`, `"))
        );
    }
}
