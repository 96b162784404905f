use super::*;
use crate::topic::TopicFilter;

fn destination(template: &str, grants: &[&str]) -> Arc<Destination> {
    let parse = |text: &&str| TopicFilter::parse(text).expect("valid");
    Arc::new(Destination {
        name: "weather/frost/out".into(),
        topic: TopicTemplate::parse(template).expect("valid"),
        write_grants: grants.iter().map(parse).collect(),
        headers: Default::default(),
    })
}

#[test]
fn a_topic_is_rendered_and_held_against_the_grants() {
    let fixed = destination("weather/out/cold", &["weather/out/#"]);
    let foreign = destination("other/in", &["weather/out/#"]);
    let dynamic = destination("weather/out/${outputTopic.2}", &["weather/out/+"]);
    let whole = destination("${outputTopic}", &["weather/#"]);
    let cases = [
        (&fixed, "any", Ok("weather/out/cold")),
        (&fixed, "other", Ok("weather/out/cold")),
        (&foreign, "any", Err("policy does not let the tenant write to `other/in`")),
        (&dynamic, "a/b", Ok("weather/out/b")),
        (&dynamic, "a/c", Ok("weather/out/c")),
        (&dynamic, "a", Err("the message's topic has no level 2")),
        (&dynamic, "a/#", Err("a topic to write to cannot hold `#`")),
        (&dynamic, "a/c", Ok("weather/out/c")),
        (&whole, "weather/x", Ok("weather/x")),
        (&whole, "weather", Ok("weather")),
        (&whole, "weathers/x", Err("policy does not let the tenant write to `weathers/x`")),
        (&whole, "$SYS/x", Err("topics that begin with `$` belong to the broker")),
        (&whole, "", Err("a topic cannot be empty")),
        (&whole, "weather/x", Ok("weather/x")),
    ];
    let mut route = Route::default();
    // Twice, since the second look at a destination uses what the first found.
    for (destination, message_topic, expected) in cases.iter().flat_map(|case| [case, case]) {
        let topic = route.topic(destination, message_topic.as_bytes());
        let topic = topic.map(|topic| String::from_utf8_lossy(topic).into_owned());
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(topic, expected, "{message_topic} to {:?}", destination.topic);
    }
}
