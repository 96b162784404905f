use super::*;

fn topic(path: &str) -> Option<(String, String)> {
    Target::topic(path).map(|it| (it.tenant, it.topic))
}

#[test]
fn a_path_names_a_tenant_and_a_topic_or_nothing() {
    let named = |tenant: &str, topic: &str| Some((tenant.to_owned(), topic.to_owned()));
    assert_eq!(topic("/a/in"), named("a", "in"));
    assert_eq!(topic("/a/in/room 1"), named("a", "in/room 1"));
    assert_eq!(topic("/a/in/room%201/%C3%BC"), named("a", "in/room 1/ü"));
    assert_eq!(topic("/a/in%2Froom"), named("a", "in/room"));
    assert_eq!(topic("/a//"), named("a", "/"));
    for path in
        ["", "/", "*", "/a", "/a/", "//in", "a/in", "/a/+", "/a/in/%23", "/a/%24SYS/x", "/a/%00", "/a/%ff"]
    {
        assert_eq!(topic(path), None, "{path}");
    }
}

#[test]
fn what_is_listened_to_may_have_wildcards_in_their_places() {
    let filter = |path: &str| Target::filter(path).map(|it| it.topic.as_str().to_owned());
    for (path, expected) in [
        ("/a/out/+/%23", Some("out/+/#")),
        ("/a/%23", Some("#")),
        ("/a/%2B/x", Some("+/x")),
        ("/a/x%23", None),
        ("/a/%23/x", None),
        ("/a", None),
    ] {
        assert_eq!(filter(path).as_deref(), expected, "{path}");
    }
}
