use super::*;
use proptest::prelude::*;
use serde_json::json;

fn file(text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile { path: "x.yaml".into(), text: text.into() })
}

fn read(text: &str) -> Result<Vec<Node>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let nodes = parse(&file(text), &mut diagnostics);
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok(nodes) }
}

fn json(text: &str) -> serde_json::Value {
    read(text).expect("it can be read").iter().map(Node::to_json).collect()
}

#[test]
fn plain_values_follow_the_core_schema() {
    for (text, expected) in [
        ("1", json!(1)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("18446744073709551615", json!(u64::MAX)),
        ("0x1F", json!(31)),
        ("0o17", json!(15)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("1e3", json!(1000.0)),
        (".inf", json!(0.5)),
        ("1.0.0", json!("1.0.0")),
        ("inf", json!("inf")),
        ("nan", json!("nan")),
        ("1_000", json!("1_000")),
        ("2020-01-01", json!("2020-01-01")),
        ("yes", json!("yes")),
        ("True", json!(true)),
        ("\"true\"", json!("true")),
        ("!!str 1", json!("1")),
        ("[~, null, Null]", json!([null, null, null])),
        ("{ a: , b: '' }", json!({ "a": null, "b": "" })),
        ("{\"a\": [1, 2.5, \"\\u00e9\"], \"b\": {}}", json!({ "a": [1, 2.5, "é"], "b": {} })),
    ] {
        assert_eq!(json(text), json!([expected]), "{text}");
    }
}

#[test]
fn documents_come_apart_and_empty_ones_are_nothing() {
    assert_eq!(json("a: 1\n---\n---\nb: 2\n---\n"), json!([{ "a": 1 }, { "b": 2 }]));
    assert_eq!(json(""), json!([]));
    assert_eq!(json("# nothing\n"), json!([]));
}

#[test]
fn every_node_knows_its_place() {
    let nodes = read("a:\n  - ü: { c: xyz }\n").expect("it can be read");
    let node = nodes[0].get("a").map(|list| &list.value);
    let Some(Value::List(items)) = node else { panic!("{node:?}") };
    let value = items[0].get("ü").and_then(|map| map.get("c")).expect("it is there");
    let Place { line, column, len, .. } = &value.place;
    assert_eq!((*line, *column, *len), (2, 13, 3));
}

#[test]
fn what_is_not_yaml_or_too_much_is_refused_with_its_place() {
    let wide = format!("a: [{}]", "1,".repeat(NODES_MAX));
    let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
    let laughs = (1..12).fold("l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        text + &format!("l{level}: &l{level} [{}]\n", vec![format!("*l{below}"); 9].join(", "))
    });
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(400_000), vec!["*a"; 100].join(", "));
    let tower = (1..40).fold("l0: &l0 [x]\n".to_owned(), |text, level| {
        text + &format!("l{level}: &l{level} [*l{}]\n", level - 1)
    });
    let mut wrong = Vec::new();
    for (text, rule, line, column) in [
        ("a: [b", "yaml/syntax", 1, 6),
        ("a: 1\nb:\n\t- c\n", "yaml/syntax", 3, 2),
        ("a: 1\nb: 2\na: 3\n", "yaml/duplicate-key", 3, 1),
        ("? [a]\n: b\n", "yaml/syntax", 1, 3),
        ("a: !secret b\n", "yaml/tag", 1, 4),
        ("a: &a [1, *a]\n", "yaml/alias", 1, 11),
        ("a: *b\n", "yaml/syntax", 1, 4),
        (wide.as_str(), "yaml/too-large", 1, 199_999),
        (deep.as_str(), "yaml/too-deep", 1, 33),
        (laughs.as_str(), "yaml/too-large", 5, 5),
        (long.as_str(), "yaml/too-large", 2, 5),
        (tower.as_str(), "yaml/too-deep", 31, 12),
        (" ".repeat(FILE_BYTES_MAX + 1).as_str(), "yaml/too-large", 1, 1),
    ] {
        let shown = &text[..text.len().min(60)];
        let diagnostics = read(text).expect_err(shown);
        let at = |it: &crate::resource::Diagnostic| it.place.as_ref().map(|at| (at.line, at.column));
        let found: Vec<_> = diagnostics.iter().map(|it| (it.rule, at(it))).collect();
        if found != [(rule, Some((line, column)))] {
            wrong.push(format!("{shown}: expected {rule} at {line}:{column}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_alias_repeats_its_value() {
    assert_eq!(json("a: &a { b: [1] }\nc: *a\n"), json!([{ "a": { "b": [1] }, "c": { "b": [1] } }]));
}

#[test]
fn a_reader_says_all_that_is_wrong_and_goes_on() {
    let nodes = read("name: [x]\ncolour: gren\nsise: 3\n").expect("it can be read");
    let mut diagnostics = Diagnostics::default();
    let mut object = Object::of(&nodes[0], "a thing", Unknown::Error, &mut diagnostics);
    assert_eq!(object.text("name", &mut diagnostics), None);
    assert_eq!(object.choice("colour", &[("green", 1), ("red", 2)], &mut diagnostics), None);
    assert!(object.need("size", &mut diagnostics).is_none());
    object.finish(&mut diagnostics);
    let said: Vec<_> =
        diagnostics.iter().map(|it| (it.rule, it.message.as_str(), it.label.as_str())).collect();
    let expected = [
        ("yaml/type", "`name` must be text", "this is a list"),
        ("yaml/choice", "`gren` is no value of `colour`", "one of `green`, `red`"),
        ("yaml/missing-key", "the key `size` is missing", "needed here"),
        ("yaml/unknown-key", "unknown key `sise`", "did you mean `size`?"),
    ];
    assert_eq!(said, expected);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z:\\[\\]{}&*!|>'\"#,\\-\n\t \u{e9}]{0,60}") {
        let _ = read(&text).map(|nodes| nodes.iter().map(Node::to_json).collect::<Vec<_>>());
    }

    #[test]
    fn json_is_read_as_json(number in any::<i64>(), text in ".{0,20}", float in -1e9_f64..1e9) {
        let value = json!({ "number": number, "text": text, "list": [float, null, true] });
        prop_assert_eq!(json(&value.to_string()), json!([value]));
    }
}
