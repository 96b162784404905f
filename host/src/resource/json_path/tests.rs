use super::*;

#[test]
fn paths_are_read_in_every_form_that_people_write() {
    for (text, shown) in [
        ("payload", "payload"),
        ("$.payload.a", "payload.a"),
        ("payload.list[0].b", "payload.list[0].b"),
        ("payload.list.0.b", "payload.list.0.b"),
        ("payload[0][12]", "payload[0][12]"),
        ("payload[*].x", "payload.*.x"),
        ("properties.user-properties.otel/id", "properties.user-properties.otel/id"),
    ] {
        assert_eq!(JsonPath::parse(text).map(|path| path.to_string()), Ok(shown.to_owned()), "{text}");
    }
    for (text, error) in [
        ("", JsonPathError::Empty),
        ("a.", JsonPathError::Empty),
        ("a..b", JsonPathError::Empty),
        ("[0]", JsonPathError::Empty),
        ("a[", JsonPathError::Index),
        ("a[]", JsonPathError::Index),
        ("a[-1]", JsonPathError::Index),
        ("a[0]b", JsonPathError::Index),
    ] {
        assert_eq!(JsonPath::parse(text), Err(error), "{text}");
    }
}

#[test]
fn a_place_lies_within_above_or_apart_from_what_a_path_means() {
    for (place, path, relation) in [
        ("a.b", "a.b", Relation::Within),
        ("a.b.c", "a.b", Relation::Within),
        ("a", "a.b", Relation::Above),
        ("a.bc", "a.b", Relation::Apart),
        ("a[1].b", "a.1.b", Relation::Within),
        ("a[1].b", "a[*].b", Relation::Within),
        ("a[1].c", "a[*].b", Relation::Apart),
        ("a[1]", "a[*].b", Relation::Above),
    ] {
        let [at, of] = [place, path].map(|text| JsonPath::parse(text).unwrap());
        assert_eq!(at.relation(&of), relation, "{place} and {path}");
    }
    let dotted = JsonPath::default().key("a").key("b.c");
    assert_eq!(dotted.relation(&JsonPath::parse("a.b.c").unwrap()), Relation::Within);
    assert_eq!(JsonPath::default().relation(&JsonPath::parse("a").unwrap()), Relation::Above);
}
