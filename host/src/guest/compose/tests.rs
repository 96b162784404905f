use super::*;
use crate::guest::{
    imports::ComponentError,
    tests::{dummy, dummy_with},
};

const CUSTOM: &str = include_str!("../../../../wit/map-custom/custom.wit");

/// A component beside the contract, whose comments and package line make way for a nested package.
fn beside_custom(wit: &str) -> Vec<u8> {
    dummy_with(&nested(CUSTOM), wit)
}

fn nested(wit: &str) -> String {
    let (_, body) = wit.split_once("package %map:custom;").expect("the contract's package");
    format!("package %map:custom {{ {body} }}")
}

const MAP: &str = "export wasm-graph:processor/%map@1.1.0;
    import %map:custom/custom;
    import wasm-graph:processor/logger@1.1.0;";
const PROVIDER: &str = "export %map:custom/custom;";

#[test]
fn two_that_fit_become_one_with_the_imports_of_both() {
    let (map, provider) = (
        beside_custom(MAP),
        beside_custom(&format!(
            "{PROVIDER} import wasm-graph:processor/metrics@1.1.0; import wasi:io/poll@0.2.12;"
        )),
    );
    let (fusion, bytes) = compose(("map", &map), ("provider", &provider)).expect("they fit");
    assert_eq!(fusion.filled().collect::<Vec<_>>(), ["map:custom/custom"]);
    let read = ComponentShape::read(&bytes).expect("a sound component");
    // What was foretold from the two descriptions is what came out.
    assert_eq!(read.operators, fusion.shape.operators);
    let needs = |shape: &ComponentShape| {
        let mut names: Vec<_> =
            shape.imports.iter().filter(|it| !it.types_only).map(|it| it.name.clone()).collect();
        names.sort();
        names
    };
    let expected = [
        "wasi:io/poll@0.2.12",
        "wasm-graph:processor/logger@1.1.0",
        "wasm-graph:processor/metrics@1.1.0",
        "wasm-graph:processor/types@1.1.0",
    ];
    assert_eq!(needs(&read), expected);
    assert_eq!(needs(&fusion.shape), expected);
    // What it is fused from is a little smaller than the whole.
    let component_bytes = read.resources.component_bytes;
    assert!(fusion.shape.resources.component_bytes <= component_bytes);
    let fused = crate::guest::imports::Resources { component_bytes, ..fusion.shape.resources };
    assert_eq!(read.resources, fused);
    let inner = |name: &str, bytes: &[u8]| Inner { name: name.into(), digest: Digest::of(bytes).to_string() };
    assert_eq!(inside(&bytes), [inner("provider", &provider), inner("map", &map)]);
    assert_eq!(inside(&map), []);
}

#[test]
fn names_inside_are_only_told_and_digests_are_counted() {
    let (map, provider) = (beside_custom(MAP), beside_custom(PROVIDER));
    let (_, bytes) = compose(("map", &map), ("provider", &provider)).expect("they fit");
    let fusion = Fusion::check(&map, &provider).expect("they fit");
    let unnamed = fusion.encode(&map, &provider).expect("they fit");
    let digests = |bytes: &[u8]| inside(bytes).into_iter().map(|it| it.digest).collect::<Vec<_>>();
    assert_eq!(digests(&unnamed), digests(&bytes));
    assert!(inside(&unnamed).iter().all(|it| it.name.is_empty()));
    // A section that lies names nothing.
    let mut lying = unnamed;
    push_section(&mut lying, br#"[{"name":"safe","digest":"00"}]"#);
    assert!(inside(&lying).iter().all(|it| it.name.is_empty()));
    assert_eq!(inside(&bytes[..bytes.len() / 2]), []);
}

#[test]
fn what_does_not_fit_is_told_before_anything_is_fused() {
    let (map, provider) = (beside_custom(MAP), beside_custom(PROVIDER));
    let plain = dummy("export wasm-graph:processor/%map@1.1.0; import wasm-graph:processor/logger@1.1.0;");
    let other = dummy_with("package a:b { interface c { f: func(); } }", "export a:b/c;");
    let two = dummy_with(
        &format!("{} package a:b {{ interface c {{ f: func(); }} }}", nested(CUSTOM)),
        &format!("{MAP} import a:b/c;"),
    );
    let needy = dummy_with(
        &format!("{} package a:b {{ interface c {{ f: func(); }} }}", nested(CUSTOM)),
        &format!("{PROVIDER} import a:b/c;"),
    );
    let changed = dummy_with(&nested(CUSTOM).replace("internal(string)", "internal(u32)"), PROVIDER);
    let lacking = dummy_with(
        &nested(CUSTOM).replace("init: func(configuration: module-configuration) -> bool;", ""),
        PROVIDER,
    );
    let cases: &[(&str, &[u8], &[u8], &str)] = &[
        (
            "nothing to fuse",
            &plain,
            &provider,
            "there is nothing to fuse: all that the map imports is the host's to give",
        ),
        (
            "another export",
            &map,
            &other,
            "the map imports `map:custom/custom`, and the provider exports `a:b/c`",
        ),
        ("two imports, one given", &two, &provider, "`a:b/c` would still be open, which no host gives"),
        ("a provider with needs", &map, &needy, "`a:b/c` would still be open, which no host gives"),
        (
            "another type",
            &map,
            &changed,
            "`map:custom/custom` of the provider is not what the map imports: \
             `process.result.err.internal` has `u32`, expected `string`",
        ),
        (
            "a function too few",
            &map,
            &lacking,
            "`map:custom/custom` of the provider is not what the map imports: \
             `init` has nothing, expected a function",
        ),
        (
            "sides swapped",
            &provider,
            &map,
            "the map cannot be composed: it exports no operator: none of \
             `tidegate:operator@0.1.0`, `wasm-graph:processor@1.1.0`, `tinykube-graph:processor@1.0.0`; \
             its exports are `map:custom/custom`",
        ),
        ("text", b"hello, world", &provider, "the map cannot be composed: it is not WebAssembly"),
        (
            "no provider",
            &map,
            b"",
            "the provider cannot be composed: it has 0 bytes, too few for WebAssembly",
        ),
    ];
    for (name, map, provider, expected) in cases {
        let error = compose(("map", map), ("provider", provider)).expect_err(name);
        assert_eq!(error.to_string(), *expected, "{name}");
    }
    let module = wat::parse_str("(module)").expect("a module");
    let error = compose(("map", &map), ("provider", &module)).expect_err("a module");
    assert!(matches!(error, ComposeError::Provider(ComponentError::CoreModule)), "{error}");
}

#[test]
fn a_pair_has_a_digest_of_its_own() {
    let [a, b] = [b"a", b"b"].map(|bytes| Digest::of(bytes));
    let pair = |map, provider| Parts { map, provider }.digest();
    assert_eq!(pair(a, b), pair(a, b));
    assert_ne!(pair(a, b), pair(b, a));
    assert_ne!(pair(a, b), pair(a, a));
}
