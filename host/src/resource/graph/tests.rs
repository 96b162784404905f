use super::*;
use crate::resource::diagnostic::{Severity, SourceFile};

const HEAD: &str = r#"metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: g, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
"#;

fn read(text: &str) -> (Option<Arc<Graph>>, Diagnostics) {
    read_with(text, features_built())
}

/// In a build with these features.
fn read_with(text: &str, built: &[&str]) -> (Option<Arc<Graph>>, Diagnostics) {
    let file = Arc::new(SourceFile { path: "g.yaml".into(), text: text.into() });
    let mut diagnostics = Diagnostics::default();
    let nodes = crate::resource::yaml::parse(&file, &mut diagnostics);
    let graph = nodes.first().and_then(|node| Graph::read_with(node, built, &mut diagnostics));
    (graph, diagnostics)
}

fn accepted(text: &str) -> Arc<Graph> {
    let (graph, diagnostics) = read(text);
    graph.unwrap_or_else(|| panic!("{}", diagnostics.to_text(false)))
}

/// A chain of maps from `in` to `out`, in the order given; `more` is put before.
fn chain(names: &[&str], more: &str) -> String {
    let mut text = format!("{HEAD}{more}operations:\n  - {{ operationType: source, name: in }}\n");
    names.iter().for_each(|name| text += &format!("  - {{ operationType: map, name: {name}, module: m }}\n"));
    text += "  - { operationType: sink, name: out }\nconnections:\n";
    let ends: Vec<_> = ["in"].iter().chain(names).chain(&["out"]).copied().collect();
    ends.windows(2).for_each(|it| {
        text += &format!("  - {{ from: {{ name: {} }}, to: {{ name: {} }} }}\n", it[0], it[1])
    });
    text
}

#[test]
fn what_the_schema_refuses_is_said_in_words() {
    let graph = chain(&["keep"], "");
    for (right, wrong, message, label) in [
        (
            "operationType: map",
            "operationType: mapp",
            "`mapp` is no value for `operationType`",
            "did you mean `map`?",
        ),
        (
            "operationType: map",
            "operationType: 7",
            "`operationType` must be text",
            "this is a number without quotes",
        ),
        ("version: \"1\"", "version: 1", "`version` must be text", "this is a number without quotes"),
        (", version: \"1\"", "", "`metadata` lacks the key `version`", "needed here"),
        ("module: m", "modul: m", "unknown key `modul` in `operations`", "the schema knows no such key"),
        (
            "from: { name: in }",
            "from: { name: in, arm: true }",
            "`arm` must be text, and this is `true` or `false` without quotes",
            "write \"False\" or \"True\", in quotes",
        ),
        ("module: m", "module: [m]", "`module` must be nothing or text", "this is a list"),
        (
            "module: m",
            "module: m, arity: many",
            "no value for `arity`",
            "a whole number from 1, or `unbounded`",
        ),
        (
            "connections:",
            "connections: []\nconections:",
            "unknown key `conections` in a graph definition",
            "the schema knows no such key",
        ),
    ] {
        assert!(graph.contains(right), "{right}");
        let (read, diagnostics) = read(&graph.replacen(right, wrong, 1));
        assert!(read.is_none());
        let found: Vec<_> =
            diagnostics.iter().map(|it| (it.rule, it.message.as_str(), it.label.as_str())).collect();
        assert_eq!(found, [("graph/schema", message, label)], "{wrong}");
    }
}

#[test]
fn the_schema_is_the_one_that_the_graph_names() {
    let graph = chain(&["keep"], "").replace("module: m", "module: m, arity: 1");
    accepted(&graph);
    let (older, diagnostics) = read(&graph.replace("config-1.1.0", "config-1.0.0"));
    assert!(older.is_none());
    assert_eq!(
        diagnostics.iter().map(|it| it.message.as_str()).collect::<Vec<_>>(),
        ["unknown key `arity` in `operations`"]
    );
    accepted(&graph.replace("config-1.1.0", "config-9"));
}

#[test]
fn an_operator_sees_names_where_the_resource_has_keys() {
    let more = "moduleConfigurations:\n  - name: keep\n    parameters:\n      \
                limit: { name: upper, required: true }\n      unit: { name: unit, default: C }\n      note: { name: note }\n";
    let graph = accepted(&chain(&["keep", "other"], more));
    let keep = &graph.operations[1];
    for (settings, expected) in [
        (&[("limit", "5")][..], Ok(&[("upper", "5"), ("unit", "C")][..])),
        (&[("upper", "5"), ("unit", "F")], Ok(&[("upper", "5"), ("unit", "F")])),
        (&[("upper", "6"), ("limit", "5")], Ok(&[("upper", "5"), ("unit", "C")])),
        (&[("limit", ""), ("note", "x"), ("stray", "y")], Ok(&[("upper", ""), ("unit", "C"), ("note", "x")])),
        (&[("unit", "F")], Err("limit")),
    ] {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>()
        };
        let given = given(settings);
        let found = keep.configuration(&given).map_err(|errors| match errors.as_slice() {
            [ConfigurationError::Missing(parameter)] => parameter.key.as_str(),
            errors => panic!("{errors:?}"),
        });
        assert_eq!(found, expected.map(own), "{settings:?}");
    }
    let limit = given(&[("limit", "5")]);
    assert_eq!(graph.operations[2].configuration(&limit).expect("nothing is needed"), []);
}

fn given(pairs: &[(&str, &str)]) -> Vec<Setting> {
    let setting =
        |(key, value): &(&str, &str)| Setting { key: (*key).into(), value: (*value).into(), place: None };
    pairs.iter().map(setting).collect()
}

/// A chain with one parameter.
fn with_parameter(head: &str, parameter: &str) -> String {
    let more = format!("moduleConfigurations:\n  - {{ name: keep, parameters: {{ limit: {parameter} }} }}\n");
    chain(&["keep"], &more).replacen("1.1.0.json", head, 1)
}

#[test]
fn values_of_a_parameter_fit_its_schema_or_are_refused() {
    let schema = r#"'{ "type": "integer", "minimum": 3 }'"#;
    let parameter = |more: &str| format!("{{ name: upper, schema: {schema}{more} }}");
    let graph = accepted(&with_parameter("1.1.0.json", &parameter(", default: \"3\"")));
    let keep = &graph.operations[1];
    for (settings, expected) in [
        (&[][..], Ok("3")),
        (&[("limit", "12")], Ok("12")),
        (&[("upper", "12")], Ok("12")),
        (&[("limit", "2")], Err("value is less than the minimum of 3")),
        (&[("upper", "2")], Err("value is less than the minimum of 3")),
        (&[("limit", "2"), ("upper", "12")], Err("value is less than the minimum of 3")),
        (&[("limit", "many")], Err("value is not of type \"integer\"")),
    ] {
        let given = given(settings);
        let found = keep.configuration(&given).map_err(|errors| match errors.as_slice() {
            [ConfigurationError::Unfit { violation, .. }] => violation.clone(),
            errors => panic!("{errors:?}"),
        });
        let expected = expected.map(|value| vec![("upper".to_owned(), value.to_owned())]);
        assert_eq!(found, expected.map_err(str::to_owned), "{settings:?}");
    }
    for (form, parameter, expected) in [
        (
            "1.1.0.json",
            parameter(", default: \"2\""),
            Some(("graph/parameter-value", "value is less than the minimum of 3")),
        ),
        (
            "1.1.0.json",
            "{ name: upper, schema: '{' }".into(),
            Some(("graph/schema-invalid", "it is not JSON: EOF")),
        ),
        (
            "1.1.0.json",
            "{ name: upper, schema: '{\"type\":\"intger\"}' }".into(),
            Some(("graph/schema-invalid", ", at `/type`")),
        ),
        (
            "1.1.0.json",
            "{ name: upper, schema: { type: integer } }".into(),
            Some(("graph/schema", "this is a mapping")),
        ),
        ("1.1.0.json", "{ name: upper, schema: null, default: x }".into(), None),
        // Older graphs have no such key, and are open to others.
        ("1.0.0.json", parameter(", default: \"2\""), None),
        ("1.0.0.json", "{ name: upper, schema: { type: integer } }".into(), None),
    ] {
        let (_, diagnostics) = read(&with_parameter(form, &parameter));
        let found: Vec<_> = diagnostics.iter().map(|it| (it.rule, it.label.as_str())).collect();
        match (expected, found.as_slice()) {
            (None, []) => {}
            (Some((rule, label)), [(found, said)]) if rule == *found && said.contains(label) => {}
            (expected, found) => panic!("{parameter}: {expected:?}, and it says {found:?}"),
        }
    }
}

#[test]
fn a_graph_has_a_most_of_schemas_for_parameters() {
    let parameters = |count: usize| -> String {
        let one = |index: usize| format!("p{index}: {{ name: p{index}, schema: 'true' }}");
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    let graph = |count| {
        let configuration =
            format!("moduleConfigurations:\n  - {{ name: keep, parameters: {{ {} }} }}\n", parameters(count));
        chain(&["keep"], &configuration)
    };
    accepted(&graph(OPERATIONS_MAX));
    let (_, diagnostics) = read(&graph(OPERATIONS_MAX + 1));
    assert_eq!(diagnostics.iter().map(|it| it.rule).collect::<Vec<_>>(), ["graph/too-large"]);
}

#[test]
fn operations_are_ordered_after_all_that_lead_to_them() {
    let text = format!(
        "{HEAD}operations:\n  - {{ operationType: sink, name: out }}\n  - {{ operationType: concatenate, name: both }}\n  \
         - {{ operationType: branch, name: fork, module: m }}\n  - {{ operationType: source, name: in }}\nconnections:\n  \
         - {{ from: {{ name: both }}, to: {{ name: out }} }}\n  - {{ from: {{ name: fork, arm: \"True\" }}, to: {{ name: both }} }}\n  \
         - {{ from: {{ name: fork, arm: \"False\" }}, to: {{ name: both }} }}\n  - {{ from: {{ name: in }}, to: {{ name: fork }} }}\n"
    );
    let graph = accepted(&text);
    assert_eq!(graph.topological(), Ok(vec![3, 2, 1, 0]));
    let arms: Vec<_> = graph.connections.iter().map(|it| it.arm).collect();
    assert_eq!(arms, [None, Some(true), Some(false), None]);
}

#[test]
fn a_graph_has_a_largest_size() {
    let names: Vec<_> = (0..OPERATIONS_MAX - 2).map(|index| format!("o{index}")).collect();
    let mut names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(accepted(&chain(&names, "")).operations.len(), OPERATIONS_MAX);
    names.push("one-more");
    let (graph, diagnostics) = read(&chain(&names, ""));
    assert!(graph.is_none());
    assert_eq!(diagnostics.iter().map(|it| it.rule).collect::<Vec<_>>(), ["graph/too-large"]);
}

#[test]
fn features_that_are_not_there_are_a_warning_and_hide_nothing_else() {
    let feature = "\"1.1.0\", features: [ { name: wasi-nn } ] }";
    let text = chain(&["keep"], "").replacen("\"1.1.0\" }", feature, 1);
    for (built, expected) in [(&[][..], &["wasi-nn"][..]), (&["wasi-nn"], &[])] {
        let (graph, diagnostics) = read_with(&text, built);
        let missing: Vec<_> =
            graph.expect("it is right").features_missing.iter().map(|it| it.text.clone()).collect();
        assert_eq!(missing, expected);
        let found: Vec<_> = diagnostics.iter().map(|it| (it.severity, it.rule, it.label.as_str())).collect();
        let label = "the graph cannot be run: a build of this host with the cargo feature `wasi-nn` has it";
        let warning = (Severity::Warning, NOT_YET_SUPPORTED, label);
        assert_eq!(found, expected.iter().map(|_| warning).collect::<Vec<_>>());
    }
    let text = format!("{text}  - {{ from: {{ name: keep }}, to: {{ name: keep }} }}\n");
    let (_, diagnostics) = read_with(&text, &[]);
    let rules: Vec<_> = diagnostics.iter().map(|it| it.rule).collect();
    assert_eq!(rules, [NOT_YET_SUPPORTED, "graph/cycle"]);
}
