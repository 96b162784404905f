use super::*;
use proptest::prelude::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect(text)
}

#[test]
fn filters_match_as_mqtt_says() {
    for (text, topic, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/b/c", false),
        ("a/+", "a/b", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("#", "a/b", true),
        ("#", "$SYS/x", false),
        ("+/b", "/b", true),
    ] {
        assert_eq!(filter(text).matches(topic), expected, "{text} on {topic}");
    }
}

#[test]
fn a_grant_covers_only_what_it_matches_whole() {
    for (mine, theirs, expected) in [
        ("a/#", "a/b/+", true),
        ("a/#", "a", true),
        ("a/#", "#", false),
        ("a/+", "a/#", false),
        ("a/+", "a/b", true),
        ("a/+/c", "a/+/c", true),
        ("a/b/c", "a/+/c", false),
        ("#", "#", true),
    ] {
        assert_eq!(filter(mine).covers(&filter(theirs)), expected, "{mine} covers {theirs}");
    }
}

#[test]
fn filters_and_templates_out_of_form_are_refused() {
    for (text, expected) in [
        ("", TopicError::Empty),
        ("a/#/b", TopicError::HashNotLast),
        ("a/b#", TopicError::WildcardInLevel { wildcard: '#' }),
        ("a/b+", TopicError::WildcardInLevel { wildcard: '+' }),
        ("$share/g/t", TopicError::Reserved),
        ("a\0", TopicError::Nul),
    ] {
        assert_eq!(TopicFilter::parse(text), Err(expected));
    }
    assert!(matches!(TopicTemplate::parse("a/${x}"), Err(TopicError::UnknownPlaceholder { .. })));
    assert!(matches!(TopicTemplate::parse("a/${outputTopic"), Err(TopicError::UnknownPlaceholder { .. })));
    assert!(matches!(TopicTemplate::parse("a/+"), Err(TopicError::WildcardInName { .. })));
}

#[test]
fn a_shared_subscription_is_its_filter_for_some_of_a_group() {
    let check = |text: &str, expected: Result<(&str, &str), TopicError>| {
        let read = TopicFilter::parse_subscription(text);
        let read = read.as_ref().map(|it| (it.as_str(), it.subscription())).map_err(Clone::clone);
        assert_eq!(read, expected, "{text}");
    };
    check("a/+", Ok(("a/+", "a/+")));
    check("$share/g/a/+", Ok(("a/+", "$share/g/a/+")));
    check("$shared/g/a/+", Ok(("a/+", "$share/g/a/+")));
    check("$share/g//", Ok(("/", "$share/g//")));
    check("$share/g/", Err(TopicError::Empty));
    for bad in ["$share/g", "$share/", "$share//a", "$share/+/a", "$share/g#/a"] {
        check(bad, Err(TopicError::Group));
    }
    check("$share/g/a/#/b", Err(TopicError::HashNotLast));
    check("$share/g/$SYS/a", Err(TopicError::Reserved));
    check("$SYS/a", Err(TopicError::Reserved));
    let shared = TopicFilter::parse_subscription("$share/g/a/+").expect("it is one");
    assert!(shared.matches("a/b") && !shared.matches("b/b") && shared.is_shared());
    assert!(filter("a/#").covers(&shared) && !filter("b/#").covers(&shared));
    assert!(!filter("a/+").is_shared());
}

#[test]
fn templates_render_the_message_topic_and_its_levels() {
    for (template, topic, expected) in [
        ("out/t", "x", Ok("out/t")),
        ("out/${outputTopic}", "a/b", Ok("out/a/b")),
        ("${outputTopic.2}/${outputTopic.1}", "a/b", Ok("b/a")),
        ("out/${outputTopic.3}", "a/b", Err(TopicError::NoLevel { level: 3 })),
        ("out/${outputTopic}", "a/#", Err(TopicError::WildcardInName { wildcard: '#' })),
        ("${outputTopic}", "$SYS/a", Err(TopicError::Reserved)),
    ] {
        let mut out = BytesMut::new();
        let rendered = TopicTemplate::parse(template).expect(template).render(topic.as_bytes(), &mut out);
        let text = std::str::from_utf8(&out).expect("parts are UTF-8");
        assert_eq!(rendered.map(|()| text), expected, "{template} on {topic}");
    }
}

#[test]
fn text_that_a_broker_would_end_the_connection_over_is_told_apart() {
    for (text, expected) in [
        ("plain/topic", true),
        ("", true),
        ("grüße/日本", true),
        ("line\nfeed", false),
        ("nul\0", false),
        ("del\u{7f}", false),
        ("c1\u{85}", false),
        ("non-character \u{fdd0}", false),
        ("non-character \u{1ffff}", false),
        ("\u{fffd}", true),
    ] {
        assert_eq!(is_text(text.as_bytes()), expected, "{text:?}");
    }
    assert!(!is_text(&[0xff]));
    assert!(is_text(&[b'a'; 65_535]) && !is_text(&[b'a'; 65_536]));
}

fn level() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", ""]).prop_map(str::to_owned)
}

fn filter_text() -> impl Strategy<Value = String> {
    (prop::collection::vec(prop_oneof![3 => level(), 1 => Just("+".to_owned())], 1..4), any::<bool>())
        .prop_map(|(levels, rest)| levels.join("/") + if rest { "/#" } else { "" })
        .prop_filter("empty", |text| !text.is_empty())
}

proptest! {
    /// No topic slips through a subscription that a grant covers.
    #[test]
    fn what_a_covered_filter_matches_the_grant_matches(
        grant in filter_text(), wanted in filter_text(), levels in prop::collection::vec(level(), 1..5),
    ) {
        let topic = levels.join("/");
        if filter(&grant).covers(&filter(&wanted)) && filter(&wanted).matches(&topic) {
            prop_assert!(filter(&grant).matches(&topic));
        }
    }
}
