use super::*;

fn write(dir: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Reads a test in a folder where all that it could name is there.
fn read(keys: &str, files: &[(&str, &str)]) -> (Option<TestCase>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let base = "name: n\ngraph: ../g/graph.yaml\ninput: in\nexpected: out.json\n";
    write(dir.path(), "t/x.test.yaml", format!("{base}{keys}"));
    write(dir.path(), "t/out.json", "[]");
    write(dir.path(), "t/in/b.json", "2");
    write(dir.path(), "t/in/a.json", "1");
    write(dir.path(), "t/in/c.raw", [0xff, 0]);
    write(dir.path(), "t/in/.hidden", "x");
    write(dir.path(), "t/in/below/d.json", "x");
    write(dir.path(), "g/graph.yaml", "");
    files.iter().for_each(|(path, text)| write(dir.path(), path, text));
    let mut diagnostics = Diagnostics::default();
    let case = TestCase::read(&dir.path().join("t/x.test.yaml"), &mut diagnostics);
    (case, diagnostics.iter().map(|it| it.rule.to_owned()).collect())
}

#[test]
fn inputs_are_the_folders_files_in_name_order_each_on_its_topic() {
    let topics = |keys: &str| {
        let (case, said) = read(keys, &[]);
        assert_eq!(said, [""; 0]);
        let messages = case.unwrap().messages;
        messages.into_iter().map(|it| (it.topic, it.payload)).collect::<Vec<_>>()
    };
    let at = |topic: &str, payload: &[u8]| (topic.to_owned(), payload.to_vec());
    let image = at("snapshot_simulation", &[0xff, 0]);
    assert_eq!(topics(""), [at("sensors", b"1"), at("sensors", b"2"), image.clone()]);
    assert_eq!(topics("topic: a/b"), [at("a/b", b"1"), at("a/b", b"2"), image]);
}

#[test]
fn what_a_test_leaves_out_has_a_default() {
    let (case, _) = read("", &[]);
    let case = case.unwrap();
    assert_eq!(
        (case.timeout, case.compared, case.expected),
        (TIMEOUT, Compared::default(), Expected::All(vec![]))
    );
    assert!(case.schema.is_none() && case.settings.is_empty());
    assert!(case.graph.ends_with("g/graph.yaml") && !case.graph.to_string_lossy().contains(".."));
    let keys = "timeout: 90000\nselect: [payload]\nignores: [payload.a]\nconfiguration: { a: 1, b: x }\n";
    let (case, _) = read(keys, &[("t/out.json", r#"{"payload":"1"}"#)]);
    let case = case.unwrap();
    assert_eq!(case.timeout, Duration::from_secs(90));
    assert_eq!((case.compared.select.len(), case.compared.ignores.len()), (1, 1));
    let settings: Vec<_> = case.settings.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    assert_eq!(settings, [("a", "1"), ("b", "x")]);
    assert_eq!(case.expected, Expected::Last(serde_json::json!({"payload": "1"})));
}

#[test]
fn the_schema_is_what_the_environment_list_beside_test_or_graph_names() {
    const LIST: &str = "# for a container\nOTHER=1\nTK_SCHEMA_CONFIG_PATH=s.json\n";
    let schema = |files: &[(&str, &str)]| {
        let (case, said) = read("", files);
        (case.and_then(|case| case.schema).map(|schema| (schema.name, schema.content)), said)
    };
    let of = |content: &str| Some(("s.json".to_owned(), content.to_owned()));
    assert_eq!(schema(&[("g/hostapp.env.list", LIST), ("g/s.json", "{}")]), (of("{}"), vec![]));
    let both =
        [("g/hostapp.env.list", LIST), ("g/s.json", "{}"), ("t/hostapp.env.list", LIST), ("t/s.json", "[]")];
    assert_eq!(schema(&both), (of("[]"), vec![]));
    assert_eq!(schema(&[("g/hostapp.env.list", LIST)]), (None, vec!["test/missing-file".into()]));
    assert_eq!(
        schema(&[("g/hostapp.env.list", LIST), ("g/s.json", "{")]),
        (None, vec!["test/schema".into()])
    );
    let parameters = ("t/hostapp.env.list", "TK_CONFIGURATION_PARAMETERS=a=1\n");
    assert_eq!(schema(&[parameters]), (None, vec!["test/environment".into()]));
}

#[test]
fn every_mistake_is_named_by_its_rule() {
    for (keys, files, rule) in [
        ("timeout: 1d", &[][..], "test/timeout"),
        ("timeout: 86400001", &[], "test/timeout"),
        ("ignore: [a]", &[], "yaml/unknown-key"),
        ("---\nname: m\n", &[], "test/documents"),
        ("", &[("t/out.json", "7")], "test/expected"),
        ("", &[("t/out.json", "")], "test/expected"),
        ("select: [[a]]", &[], "yaml/type"),
    ] {
        let (case, said) = read(keys, files);
        assert!(said.iter().any(|it| it == rule), "{keys}: {said:?}");
        assert_eq!(case.is_some(), rule == "yaml/unknown-key", "{keys}");
    }
}

#[test]
fn tests_are_found_below_a_folder_in_order_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["b/x.test.yaml", "a.test.yml", "c/d/e.test.yaml", "no.yaml", ".h/x.test.yaml"] {
        write(dir.path(), path, "");
    }
    std::os::unix::fs::symlink(dir.path(), dir.path().join("c/loop")).unwrap();
    let found = find(dir.path()).unwrap();
    let found: Vec<_> =
        found.iter().map(|it| it.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
    assert_eq!(found, ["a.test.yml", "b/x.test.yaml", "c/d/e.test.yaml"]);
    let one = dir.path().join("no.yaml");
    assert_eq!(find(&one).unwrap(), [one]);
    assert!(find(&dir.path().join("nowhere")).is_err());
}
