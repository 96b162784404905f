use super::*;

fn folder(namespace: &str, files: &[(&str, &str)]) -> (SchemaFolder, Vec<&'static str>) {
    let source = |path: &str, text: &str| {
        Arc::new(SourceFile { path: format!("schemas/{path}"), text: text.to_owned() })
    };
    let files: Vec<_> = files.iter().map(|(path, text)| (PathBuf::from(path), source(path, text))).collect();
    let mut diagnostics = Diagnostics::default();
    let folder = SchemaFolder::read(namespace, &files, &mut diagnostics);
    (folder, diagnostics.iter().map(|it| it.rule).collect())
}

/// What the tenant `a` sees of its own files and the platform's.
fn schemas() -> Schemas {
    let own = [
        ("reading/9.json", "{}"),
        ("reading/10.json", "true"),
        ("plant/reading/1.json", "{ \"title\": \"the plant's\" }"),
        ("shadow/1.json", "{ \"title\": \"own\" }"),
    ];
    let shared = [
        ("reading/11.json", "{}"),
        ("common/1.0.0.json", "{}"),
        ("common/1.0.0.yaml", "displayName: Common\ndescription: for all\ntags: { team: platform }"),
        ("shadow/1.json", "{ \"title\": \"shared\" }"),
        ("plant/reading/2.json", "{}"),
    ];
    let ((own, none), (shared, nothing)) = (folder("a", &own), folder(PLATFORM, &shared));
    assert!(none.is_empty() && nothing.is_empty(), "{none:?} {nothing:?}");
    Schemas::new("a", Arc::new(own), Arc::new(shared))
}

#[test]
fn a_schema_is_found_by_name_and_version_the_tenants_own_first() {
    let schemas = schemas();
    let long = "x".repeat(PART_LEN_MAX + 1);
    for (id, version, expected) in [
        ("reading", "9", Ok("a/reading:9")),
        ("reading", "10", Ok("a/reading:10")),
        ("reading", "", Ok("a/reading:10")),
        ("reading", "latest", Ok("a/reading:10")),
        ("reading", "11", Ok("platform/reading:11")),
        ("platform/reading", "", Ok("platform/reading:11")),
        ("a/reading", "9", Ok("a/reading:9")),
        ("aio-sr://a/reading", "9", Ok("a/reading:9")),
        ("reading", "09", Err("there is no such schema")),
        ("reading", "1", Err("there is no such schema")),
        ("plant/reading", "1", Ok("plant/reading:1")),
        ("plant/reading", "2", Ok("plant/reading:2")),
        ("common", "1.0.0", Ok("platform/common:1.0.0")),
        ("a/common", "1.0.0", Err("there is no such schema")),
        ("shadow", "1", Ok("a/shadow:1")),
        ("platform/shadow", "1", Ok("platform/shadow:1")),
        ("b/reading", "9", Err("there is no such schema")),
        ("", "1", Err("`` is no name of a schema: write `[NAMESPACE/]NAME`")),
        ("a/b/reading", "1", Err("`a/b/reading` is no name of a schema: write `[NAMESPACE/]NAME`")),
        ("a/../reading", "1", Err("`a/../reading` is no name of a schema: write `[NAMESPACE/]NAME`")),
        ("reading:1", "1", Err("`reading:1` is no name of a schema: write `[NAMESPACE/]NAME`")),
        ("reading", "1/2", Err("`1/2` is no version of a schema")),
    ] {
        let found =
            schemas.find(id, version).map(|it| format!("{}/{}:{}", it.namespace, it.name, it.version));
        let found = found.map_err(|error| error.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{id} {version}");
    }
    assert!(matches!(schemas.find(&long, "1"), Err(LookupError::Id { id }) if id.len() == PART_LEN_MAX));
    assert!(schemas.find(&long[1..], "1") == Err(LookupError::NotFound));
}

#[test]
fn what_a_descriptor_says_is_kept() {
    let schemas = schemas();
    let schema = schemas.find("common", "").expect("it is there");
    assert_eq!(
        (schema.display_name.as_deref(), schema.description.as_deref()),
        (Some("Common"), Some("for all"))
    );
    assert_eq!(schema.tags, [("team".to_owned(), "platform".to_owned())]);
    // SHA-256 of the two bytes of its file, from another implementation.
    assert_eq!(schema.hash, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
}

#[test]
fn newer_versions_are_told_by_their_numbers() {
    for (older, newer) in
        [("1", "2"), ("9", "10"), ("1.9", "1.10"), ("1", "1.0"), ("1.0.0", "1.0.1"), ("a", "1")]
    {
        assert!(Version::of(older) < Version::of(newer), "{older} {newer}");
    }
}

#[test]
fn references_name_one_version() {
    for (text, expected) in [
        ("aio-sr://reading:1", Some(("reading", "1"))),
        ("aio-sr://plant/reading:1.0.0", Some(("plant/reading", "1.0.0"))),
        ("aio-sr://a/plant/reading:1", None),
        ("aio-sr://reading", None),
        ("aio-sr://:1", None),
        ("aio-sr://reading:", None),
        ("reading:1", None),
        ("https://reading:1", None),
    ] {
        assert_eq!(parse_reference(text), expected, "{text}");
    }
}

#[test]
fn formats_are_told_apart_and_checked() {
    let delta = |fields: &str| {
        format!(
            r#"{{"$schema":"Delta/1.0","type":"object","properties":{{"type":"struct","fields":{fields}}}}}"#
        )
    };
    let field = r#"[{"name":"a","type":"string","nullable":true,"metadata":{}}]"#;
    for (content, descriptor, expected) in [
        ("{}".to_owned(), None, Ok(SchemaFormat::Json)),
        (delta(field), None, Ok(SchemaFormat::Delta)),
        (delta(field), Some("format: delta"), Ok(SchemaFormat::Delta)),
        ("{}".to_owned(), Some("format: json"), Ok(SchemaFormat::Json)),
        ("{}".to_owned(), Some("format: JsonSchema/draft-07"), Ok(SchemaFormat::Json)),
        ("{}".to_owned(), Some("format: Delta/1.0"), Err("schema/invalid")),
        (delta("7"), None, Err("schema/invalid")),
        (delta(r#"[{"name":"a"}]"#), None, Err("schema/invalid")),
        ("{\"$schema\":\"https://example.com/mine\"}".to_owned(), None, Err("schema/invalid")),
        ("{}".to_owned(), Some("tags: [a]"), Err("schema/descriptor")),
    ] {
        let mut files = vec![("s/1.json", content.as_str())];
        files.extend(descriptor.map(|text| ("s/1.yaml", text)));
        let (folder, rules) = folder("a", &files);
        let schemas = Schemas::new("a", Arc::new(folder), Arc::default());
        match expected {
            Ok(format) => {
                assert_eq!((schemas.find("s", "").expect("it is there").format, rules), (format, vec![]))
            }
            Err(rule) => assert_eq!(rules, [rule], "{content} {descriptor:?}"),
        }
    }
}

#[test]
fn sizes_are_bounded_and_what_is_just_small_enough_is_kept() {
    let schema = |bytes: usize| {
        let frame = "{\"title\":\"\"}".len();
        format!("{{\"title\":\"{}\"}}", "x".repeat(bytes - frame))
    };
    for (bytes, rules) in [(SCHEMA_BYTES_MAX, vec![]), (SCHEMA_BYTES_MAX + 1, vec!["schema/too-large"])] {
        assert_eq!(folder("a", &[("s/1.json", &schema(bytes))]).1, rules, "{bytes}");
    }
    for (count, rules) in [(16, vec![]), (17, vec!["schema/too-large"])] {
        let text = schema(SCHEMA_BYTES_MAX);
        let names: Vec<_> = (0..count).map(|index| format!("s{index}/1.json")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
        assert_eq!(folder("a", &files).1, rules, "{count} of the largest");
    }
    for (count, rules) in [(SCHEMAS_MAX, vec![]), (SCHEMAS_MAX + 1, vec!["schema/too-large"])] {
        let names: Vec<_> = (0..count).map(|version| format!("s/{version}.json")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), "{}")).collect();
        assert_eq!(folder("a", &files).1, rules, "{count} of the smallest");
    }
}
