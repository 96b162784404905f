//! Components that no deploy takes, through the commands: what is refused, in which
//! words, and that nothing of it runs.

use std::{fs, path::Path};

use serde_json::Value;
use tidegate_benches::rig::guest_path;

use crate::{
    folder::SiteFolder,
    process::{output, tidegate},
};

const HTTP: &str = "wasi:http/outgoing-handler@0.2.12";

/// A site that needs no broker for what is done with it here.
fn site_with(component: &[u8], kind: &str) -> SiteFolder {
    let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
    site.tenant("a", "standard");
    site.dataflow("a", "flow", &[(kind, "pass_through", &[])]);
    site.component("a", "pass_through", component);
    site
}

fn guest(name: &str) -> Vec<u8> {
    fs::read(guest_path(name)).expect("the guests are built")
}

#[test]
fn an_import_beyond_the_policy_is_refused_by_name_by_every_command_that_deploys() {
    let site = site_with(&guest("odd_http"), "map");
    let graph = site.path().join("tenants/a/artifacts/flow/1.yaml");
    let commands: [&[&Path]; 3] = [
        &["check".as_ref(), site.path()],
        &["up".as_ref(), site.path(), "--for".as_ref(), "1s".as_ref()],
        &["run".as_ref(), &graph, "--artifacts".as_ref(), &site.path().join("tenants/a/artifacts")],
    ];
    for command in commands {
        let refused = output(tidegate().args(command));
        assert_eq!(refused.code, Some(1), "{command:?}: {refused:?}");
        let words = format!(
            "error: the component `pass_through:1` imports `{HTTP}`, \
             which neither `tidegate:policy/standard@0.1.0` nor any other shipped world grants"
        );
        assert!(refused.stderr.contains(&words), "{command:?}: {}", refused.stderr);
        assert!(!refused.stdout.contains("ready"), "{command:?}: {}", refused.stdout);
    }
}

#[test]
fn inspect_lists_the_imports_and_the_world_that_would_fit() {
    let inspect = |file: &str, json: &[&str]| {
        let shown = output(tidegate().arg("inspect").args(json).arg(guest_path(file)));
        shown.expect_success();
        shown.stdout
    };
    let text = inspect("odd_http", &[]);
    // A column for each world of this build.
    let models = if cfg!(feature = "wasi-nn") { "    refused" } else { "" };
    for line in [
        &format!("{HTTP}   refused   refused{models}   refused"),
        "fits       no shipped world",
        "would fit  a world that includes tidegate:policy/standard@0.1.0 and imports",
        &format!("  {HTTP}"),
        "policy     2 imports beyond tidegate:policy/standard@0.1.0:",
        &format!("  {HTTP}: no shipped world grants it"),
    ] {
        assert!(text.lines().any(|it| it == line), "`{line}` is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&inspect("odd_http", &["--json"])).expect("JSON");
    let imports = json["imports"].as_array().expect("a list");
    assert!(imports.iter().any(|import| import["name"] == HTTP), "{json:#}");
    assert_eq!(json["smallestWorld"], Value::Null);
    assert_eq!(json["wouldFit"]["include"], "tidegate:policy/standard@0.1.0");
    assert_eq!(json["wouldFit"]["import"], serde_json::json!(["wasi:http/types@0.2.12", HTTP]));
    // One that asks for what every program asks for.
    let text = inspect("pass_through", &[]);
    assert!(text.contains("fits       tidegate:policy/standard@0.1.0"), "{text}");
    assert!(!text.contains("would fit"), "{text}");
}

#[test]
fn a_file_that_is_no_operator_of_this_kind_is_refused_with_the_reason() {
    let odd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/odd");
    let core = wat::parse_file(odd.join("core-module.wat")).expect("a module");
    let mut cut = guest("pass_through");
    cut.truncate(cut.len() / 2);
    let cases: [(&str, Vec<u8>, &str, &str); 6] = [
        ("a core module", core, "map", "core module"),
        ("text", b"not a component".to_vec(), "map", "component"),
        ("nothing", Vec::new(), "map", "component"),
        ("half a component", cut, "map", "refused"),
        ("no exports", guest("odd_exports_nothing"), "map", "operator"),
        ("a map as a filter", guest("pass_through"), "filter", "has no filter"),
    ];
    for (what, bytes, kind, words) in cases {
        let site = site_with(&bytes, kind);
        let refused = output(tidegate().arg("check").arg(site.path()));
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(refused.stderr.contains("error: the component `pass_through:1`"), "{what}: {refused:?}");
        assert!(refused.stderr.contains(words), "{what}: {}", refused.stderr);
    }
}
