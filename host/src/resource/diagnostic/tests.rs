use super::*;

fn place(text: &str, line: usize, column: usize, len: usize) -> Place {
    let file = Arc::new(SourceFile { path: "tenants/a/x.yaml".into(), text: text.into() });
    Place { file, line, column, len }
}

fn one(place: impl Into<Option<Place>>, message: &str, label: &str) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    diagnostics.error("graph/unknown-operation", place, message, label);
    diagnostics
}

#[test]
fn text_looks_like_rustc() {
    let text = format!("{}    to: {{ name: fliter }}\n", "\n".repeat(30));
    let label = "no operation has this name; `filter` does";
    let shown =
        one(place(&text, 31, 17, 6), "unknown operation `fliter` in connection", label).to_text(false);
    let expected = "\
error: unknown operation `fliter` in connection
  --> tenants/a/x.yaml:31:17
   |
31 |     to: { name: fliter }
   |                 ^^^^^^ no operation has this name; `filter` does

";
    assert_eq!(shown, expected);
}

#[test]
fn without_a_place_the_label_follows_the_message() {
    assert_eq!(one(None, "nothing there", "add it").to_text(false), "error: nothing there\n  = add it\n\n");
}

#[test]
fn colour_is_there_only_when_asked_for() {
    let diagnostics = one(place("a: b", 1, 4, 1), "wrong", "");
    assert!(diagnostics.to_text(true).contains("\x1b["));
    assert!(!diagnostics.to_text(false).contains('\x1b'));
}

#[test]
fn what_tenants_write_cannot_move_the_cursor() {
    let shown = one(place("a: \x1b[2J\tb\u{202e}c", 1, 4, 3), "no \x1b]0;title\x07", "a\rb").to_text(false);
    let moves = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(moves), "{shown:?}");
    assert!(shown.contains("1 | a: \u{fffd}[2J b\u{fffd}c\n  |    ^^^ a\u{fffd}b\n"), "{shown}");
}

#[test]
fn a_marker_stays_on_its_line_and_long_lines_are_cut_around_it() {
    let shown = one(place("a: [b,", 1, 4, usize::MAX), "open", "").to_text(false);
    assert!(shown.contains("1 | a: [b,\n  |    ^^^\n"), "{shown}");

    let line = format!("{}X{}", "-".repeat(5_000), "-".repeat(5_000));
    let shown = one(place(&line, 1, 5_001, 1), "far out", "here").to_text(false);
    assert!(shown.contains(&format!("\n  | {}^ here\n", " ".repeat(60))), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
}

#[test]
fn mistakes_are_counted_past_the_most_that_are_kept() {
    let mut diagnostics = Diagnostics::default();
    for index in 0..FOUND_MAX + 50 {
        diagnostics.error("yaml/type", None, format!("error {index}"), "");
    }
    diagnostics.warning("yaml/unknown-key", None, "one warning", "");
    assert_eq!((diagnostics.errors(), diagnostics.iter().count()), (FOUND_MAX + 50, FOUND_MAX + 1));
    assert!(diagnostics.to_text(false).ends_with("50 more are not shown\n"));

    let mut all = one(None, "another", "");
    all.extend(diagnostics);
    assert_eq!(all.errors(), FOUND_MAX + 51);
    assert!(all.to_text(false).ends_with("51 more are not shown\n"));
}

#[test]
fn the_same_thing_is_said_once() {
    let mut diagnostics = one(place("a: b", 1, 1, 1), "wrong", "");
    diagnostics.error("graph/unknown-operation", place("a: b", 1, 1, 1), "wrong", "");
    diagnostics.error("graph/unknown-operation", place("a: b", 1, 4, 1), "wrong", "");
    assert_eq!(diagnostics.errors(), 2);
}

#[test]
fn json_keeps_its_keys() {
    let mut diagnostics = one(place("a: b", 1, 4, 1), "wrong", "right");
    diagnostics.warning("site/tenant", None, "odd", "");
    let expected = json!([
        { "severity": "error", "rule": "graph/unknown-operation", "message": "wrong", "help": "right",
          "path": "tenants/a/x.yaml", "line": 1, "column": 4 },
        { "severity": "warning", "rule": "site/tenant", "message": "odd", "help": "",
          "path": null, "line": null, "column": null },
    ]);
    assert_eq!(diagnostics.to_json(), expected);
}

#[test]
fn the_nearest_name_is_near() {
    for (name, expected) in [
        ("fliter", Some("filter")),
        ("Filter", Some("filter")),
        ("branch", None),
        ("sinc", Some("sink")),
        ("", None),
    ] {
        assert_eq!(nearest(name, ["map", "filter", "sink"]), expected, "{name}");
    }
    let long = "x".repeat(1 << 20);
    assert_eq!(nearest(&long, [long.as_str()]), None);
}
