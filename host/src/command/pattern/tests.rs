use proptest::prelude::*;

use super::*;
use crate::topic;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Topic and filter of the request and of the answer, or why there are none.
fn topics(patterns: &Patterns<'_>, tokens: &[(&str, &str)]) -> Result<[String; 4], String> {
    let error = |error: PatternError| error.to_string();
    let (request, response) = patterns.read("tg/h/a/_commands/local").map_err(error)?;
    let tokens = pairs(tokens);
    let request = request.topic(&tokens).map_err(error)?;
    let response = response.topic(&tokens).map_err(error)?;
    let text = |topic: Topic| [topic.name, topic.filter.as_str().to_owned()];
    let ([request, asks], [response, answers]) = (text(request), text(response));
    Ok([request, asks, response, answers])
}

#[test]
fn topics_follow_from_patterns_tokens_and_namespace() {
    let own = "clients/tg/h/a/_commands/local";
    let of = |request| Patterns { request, command: "read", ..Patterns::default() };
    let tokens = pairs(&[("plant", "north"), ("line", "1/left"), ("commandName", "write")]);
    let tokens = tokens.as_slice();
    for (patterns, given, request, response, filter) in [
        // Without a word on answers they come below the client's own place.
        (of("a/b"), &[][..], "a/b", &*format!("{own}/a/b"), &*format!("{own}/a/b")),
        (of("a/{x}"), &[("x", "1")], "a/1", &format!("{own}/a/1"), &format!("{own}/a/+")),
        // A value of several levels has a filter of its own.
        (of("a/{x}/b"), &[("x", "1/2")], "a/1/2/b", &format!("{own}/a/1/2/b"), &format!("{own}/a/1/2/b")),
        (
            Patterns { response: Some("back/{x}"), ..of("a/{x}") },
            &[("x", "1"), ("unused", "2")],
            "a/1",
            "back/1",
            "back/+",
        ),
        // A pattern for answers wins over prefix and suffix.
        (
            Patterns { response: Some("back"), prefix: Some("p"), suffix: Some("s"), ..of("a") },
            &[],
            "a",
            "back",
            "back",
        ),
        (Patterns { prefix: Some("p/q"), ..of("a/b") }, &[], "a/b", "p/q/a/b", "p/q/a/b"),
        (Patterns { suffix: Some("s"), ..of("a/b") }, &[], "a/b", "a/b/s", "a/b/s"),
        (Patterns { prefix: Some("p"), suffix: Some("s"), ..of("a") }, &[], "a", "p/a/s", "p/a/s"),
        (
            Patterns { prefix: Some("clients/{invokerClientId}"), ..of("a") },
            &[],
            "a",
            &format!("{own}/a"),
            &format!("{own}/a"),
        ),
        (
            Patterns { namespace: Some("site/1"), suffix: Some("s"), ..of("a") },
            &[],
            "site/1/a",
            "site/1/a/s",
            "site/1/a/s",
        ),
        (
            Patterns { namespace: Some("ns"), ..of("a") },
            &[],
            "ns/a",
            &format!("ns/{own}/a"),
            &format!("ns/{own}/a"),
        ),
        // The invoker's tokens are there for good, the request's are not asked for them.
        (
            Patterns { tokens, suffix: Some("s"), ..of("{plant}/{line}/{commandName}") },
            &[("plant", "south")],
            "north/1/left/write",
            "north/1/left/write/s",
            "north/1/left/write/s",
        ),
        (Patterns { suffix: Some("s"), ..of("do/{commandName}") }, &[], "do/read", "do/read/s", "do/read/s"),
        (Patterns { suffix: Some("s"), ..of("{one}/{one}") }, &[("one", "x")], "x/x", "x/x/s", "+/+/s"),
    ] {
        let found = topics(&patterns, given);
        let expected = found.as_ref().map(|it| [&*it[0], &*it[2], &*it[3]]).map_err(String::as_str);
        assert_eq!(expected, Ok([request, response, filter]), "{patterns:?} with {given:?}");
    }
}

#[test]
fn what_is_no_pattern_is_said() {
    let of = |request| Patterns { request, command: "read", ..Patterns::default() };
    let (space, empty) = (pairs(&[("x", "a b")]), pairs(&[("x", "")]));
    let long = "a".repeat(TOPIC_BYTES_MAX + 1);
    for (patterns, given, expected) in [
        (of(""), &[][..], "a topic pattern is empty"),
        (of("/a"), &[], "a topic pattern `/a` has an empty level"),
        (of("a/"), &[], "a topic pattern `a/` has an empty level"),
        (of("a//b"), &[], "a topic pattern `a//b` has an empty level"),
        (of("$SYS/a"), &[], "a topic pattern `$SYS/a` begins with `$`"),
        (of("a/+"), &[], "a topic pattern `+` holds '+'"),
        (of("a/#"), &[], "a topic pattern `#` holds '#'"),
        (of("a b"), &[], "a topic pattern `a b` holds ' '"),
        (of("grüße"), &[], "a topic pattern `grüße` holds 'ü'"),
        (of("a\0"), &[], "a topic pattern `a\0` holds '\\0'"),
        (of(&long), &[], "a topic pattern has 1025 bytes, 1024 are allowed"),
        (of("a/{}"), &[], "`{}` of a topic pattern is neither text nor one token in braces"),
        (of("a/{x"), &[], "`{x` of a topic pattern is neither text nor one token in braces"),
        (of("a/{x}{y}"), &[], "`{x}{y}` of a topic pattern is neither text nor one token in braces"),
        (of("a/b{x}"), &[], "`b{x}` of a topic pattern is neither text nor one token in braces"),
        (of("{a b}"), &[], "a token's name `a b` holds ' '"),
        (of("{x}"), &[], "the token `{x}` of the topic pattern has no value"),
        (of("{x}"), &[("y", "1")], "the token `{x}` of the topic pattern has no value"),
        (of("{x}"), &[("x", "")], "the value of a token is empty"),
        (of("{x}"), &[("x", "a/")], "the value of a token `a/` has an empty level"),
        (of("{x}"), &[("x", "+")], "the value of a token `+` holds '+'"),
        (of("{x}/a"), &[("x", "$share/g")], "a topic `$share/g/a` begins with `$`"),
        (Patterns { tokens: &space, ..of("a") }, &[], "the value of a token `a b` holds ' '"),
        (Patterns { tokens: &empty, ..of("a") }, &[], "the value of a token is empty"),
        (Patterns { namespace: Some("a/{x}"), ..of("a") }, &[], "the topic namespace `a/{x}` holds '{'"),
        (Patterns { namespace: Some("$a"), ..of("a") }, &[], "a topic pattern `a` begins with `$`"),
        (Patterns { namespace: Some(""), ..of("a") }, &[], "the topic namespace is empty"),
        (Patterns { command: "", ..of("a") }, &[], "the command's name is empty"),
        (Patterns { prefix: Some(""), ..of("a") }, &[], "a topic pattern `/a` has an empty level"),
        (Patterns { response: Some("a"), ..of("a") }, &[], "requests and answers would have the same topic"),
    ] {
        assert_eq!(topics(&patterns, given).unwrap_err(), expected, "{patterns:?} with {given:?}");
    }
}

#[test]
fn only_what_nobody_named_is_the_clients_own() {
    for (response, prefix, expected) in
        [(None, None, true), (Some("back"), None, false), (None, Some("clients/{invokerClientId}"), false)]
    {
        let patterns = Patterns { request: "a", command: "read", response, prefix, ..Patterns::default() };
        let (request, response) = patterns.read("id").expect("patterns");
        assert_eq!(response.topic(&[]).expect("a topic").is_own, expected, "{patterns:?}");
        assert!(!request.topic(&[]).expect("a topic").is_own);
    }
}

proptest! {
    /// Whatever a guest says, what becomes of it can be published and subscribed to.
    #[test]
    fn a_topic_can_be_written_to_and_its_filter_matches_it(
        request in "([a-c{}$+#/ ]|\\{x\\}|\\{y\\}){0,12}",
        response in prop::option::of("([ab/]|\\{x\\}|\\{y\\}){1,8}"),
        namespace in prop::option::of("[a$/+]{1,4}"),
        x in "[a-c/$+ ]{0,4}",
        y in prop::option::of("[a-c/]{1,4}"),
    ) {
        let patterns = Patterns {
            request: &request,
            response: response.as_deref(),
            namespace: namespace.as_deref(),
            command: "c",
            ..Patterns::default()
        };
        let mut tokens = vec![("x".to_owned(), x)];
        tokens.extend(y.map(|y| ("y".to_owned(), y)));
        let Ok((request, response)) = patterns.read("id") else { return Ok(()) };
        for topic in [request.topic(&tokens), response.topic(&tokens)].into_iter().flatten() {
            prop_assert_eq!(topic::check_name(&topic.name), Ok(()));
            prop_assert!(TopicFilter::parse(topic.filter.as_str()).is_ok());
            prop_assert!(topic.filter.matches(&topic.name), "{:?}", topic);
        }
    }
}
