use super::*;

const GOOD: &str = r#"name: a
about: b
phase: 10s
tenants: { count: 4 }
arrivals: { shape: constant, rate: 100/s }
messages: { template: '{"id":"{id}"}' }
"#;

fn parse(text: &str) -> Result<Scenario, Problems> {
    let file = SourceFile { path: "a.yaml".into(), text: text.into() };
    Scenario::parse(&Arc::new(file), None)
}

/// The good scenario with one line in place of another, or with lines behind it.
fn broken(line: &str, instead: &str) -> String {
    if line.is_empty() {
        return format!("{GOOD}{instead}");
    }
    assert!(GOOD.contains(line), "{line}");
    GOOD.replace(line, instead)
}

/// Line, column, message and help of each problem, places by hand.
fn check(text: &str, expected: &[(usize, usize, &str, &str)]) {
    let problems = match parse(text) {
        Ok(_) => panic!("it is taken:\n{text}"),
        Err(problems) => problems,
    };
    let found: Vec<_> = problems
        .iter()
        .map(|it| (it.place.line, it.place.column, it.message.as_str(), it.label.as_str()))
        .collect();
    assert_eq!(found, expected, "\n{text}\n{}", problems.to_text(false));
}

#[test]
fn what_ships_is_well_and_named_as_its_file() {
    for (name, text) in SHIPPED {
        let file = SourceFile { path: format!("{name}.yaml"), text: text.into() };
        let scenario = Scenario::parse(&Arc::new(file), None);
        let scenario = scenario.unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
        assert_eq!(scenario.name, name);
    }
}

#[test]
fn what_the_readme_shows_is_well() {
    let readme = include_str!("../../README.md");
    let mut examples = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = examples.next().expect("a scenario");
    parse(example).unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
    for command in readme.lines().filter_map(|line| line.strip_prefix("tidegate-loadtest run ")) {
        let name = command.split_whitespace().next().expect("a scenario");
        assert!(SHIPPED.iter().any(|(shipped, _)| *shipped == name), "{command}");
    }
}

#[test]
fn what_is_not_said_has_a_default() {
    let scenario = parse(GOOD).unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
    assert_eq!(scenario.tenants.names(), ["quiet-0", "quiet-1", "quiet-2", "quiet-3"]);
    assert_eq!(scenario.topics.output, "{tenant}/out/flow");
    assert_eq!(
        (scenario.seed, scenario.rounds, scenario.id, scenario.operators.len()),
        (1, 1, IdIn::Payload, 2)
    );
    assert_eq!((scenario.thresholds.lost, scenario.thresholds.out_of_order), (0, Some(0)));
}

#[test]
fn keys_that_are_unknown_missing_or_of_another_kind() {
    check(&broken("", "sed: 3\n"), &[(7, 1, "unknown key `sed`", "did you mean `seed`?")]);
    check(
        &broken("{ count: 4 }", "{ count: 4, spred: uniform }"),
        &[(4, 22, "unknown key `spred`", "did you mean `spread`?")],
    );
    check(&broken("phase: 10s\n", ""), &[(1, 1, "the key `phase` is missing", "needed here")]);
    check(&broken("about: b", "about: [b]"), &[(2, 8, "`about` must be text", "this is a list")]);
    check(&broken("{ count: 4 }", "4"), &[(4, 10, "`tenants` must be a mapping", "this is a value")]);
    check(
        &broken("name: a", "name: a/b"),
        &[(1, 7, "`a/b` is no name", "1 to 64 letters, digits, `-` or `_`")],
    );
    check(
        &broken("phase: 10s", "phase: 10s\nphase: 9s"),
        &[(4, 1, "the key `phase` stands twice in one mapping", "")],
    );
    check(
        &broken("{ count: 4 }", "{ count: 4"),
        &[(5, 9, "not YAML: while parsing a flow mapping, did not find expected ',' or '}'", "")],
    );
    check("", &[(1, 1, "the file holds nothing", "")]);
}

#[test]
fn units_and_ranges() {
    let time = "a unit is missing: write `10s` or `20ms`";
    check(&broken("phase: 10s", "phase: 10"), &[(3, 8, "`10` is no value of `phase`", time)]);
    check(
        &broken("phase: 10s", "phase: 500ms"),
        &[(3, 8, "`phase: 500ms` is out of range", "from 1s to 24h")],
    );
    check(
        &broken("rate: 100/s", "rate: 100"),
        &[(5, 36, "`100` is no value of `rate`", "a unit is missing: write `800/s`")],
    );
    check(
        &broken("rate: 100/s", "rate: 100Hz"),
        &[(5, 36, "`100Hz` is no value of `rate`", "the unit `Hz` is unknown here: write `800/s`")],
    );
    check(
        &broken("rate: 100/s", "rate: 900000/s"),
        &[(5, 36, "`rate: 900000/s` is out of range", "from 0/s to 200000/s")],
    );
    check(
        &broken("rate: 100/s", "rate: 0/s"),
        &[(5, 11, "nothing would ever be sent", "at least one rate is above 0")],
    );
    check(&broken("count: 4", "count: 0"), &[(4, 19, "`count: 0` is out of range", "from 1 to 20000")]);
    check(
        &broken("", "thresholds: { memoryGrowth: 10 }\n"),
        &[(7, 29, "`10` is no value of `memoryGrowth`", "a unit is missing: write `10%`")],
    );
    check(
        &broken("count: 4", "count: 4, spread: { zipf: 9 }"),
        &[(4, 38, "`zipf: 9` is out of range", "from 0 to 5")],
    );
    check(
        &broken("count: 4", "steps: [10, 5]"),
        &[(4, 24, "`5` is no next step", "each step is a number up to 20000 and more than the one before")],
    );
}

#[test]
fn choices_have_a_nearest_name() {
    check(
        &broken("shape: constant", "shape: constnat"),
        &[(5, 20, "`constnat` is no value of `shape`", "did you mean `constant`?")],
    );
    check(
        &broken("", "beside: { what: attack }\n"),
        &[(7, 17, "`attack` is no value of `what`", "did you mean `attacks`?")],
    );
    check(
        &broken("", "host: { broker: hivemq }\n"),
        &[(7, 17, "`hivemq` is no value of `broker`", "one of `any`, `mosquitto`, `embedded`")],
    );
    check(&broken("{id}", "{idd}"), &[(6, 31, "`{idd}` cannot be filled in", "did you mean `{id}`?")]);
}

#[test]
fn what_contradicts_itself() {
    let shape = "`constant` has rate";
    check(
        &broken("rate: 100/s", "rate: 100/s, peak: 200/s"),
        &[(5, 43, "`peak` is no key of the shape `constant`", shape)],
    );
    check(
        &broken(
            "shape: constant, rate: 100/s",
            "shape: burst, rate: 300/s, peak: 200/s, every: 2s, length: 3s",
        ),
        &[
            (5, 40, "`peak` and `rate` contradict each other", "a burst is above the rate"),
            (5, 64, "`length` and `every` contradict each other", "a burst ends before the next"),
        ],
    );
    check(
        &broken("shape: constant, rate: 100/s", "shape: ramp, from: 3/s"),
        &[(5, 11, "the key `to` is missing", "`ramp` has from, to")],
    );
    check(
        &broken("count: 4", "count: 4, steps: [1, 2]"),
        &[(
            4,
            22,
            "two ways to say which tenants there are contradict each other",
            "have one of `count`, `names` and `steps`",
        )],
    );
}

#[test]
fn what_contradicts_something_else() {
    check(
        &broken(r#"'{"id":"{id}"}'"#, "x"),
        &[(6, 23, "the template has no `{id}`", "put `{id}` into it, or write `id: property`")],
    );
    check(
        &broken(r#"template: '{"id":"{id}"}'"#, "data: weather, id: payload"),
        &[(
            6,
            28,
            "`id: payload` and `data` contradict each other",
            "lines of a file hold no id: write `id: property`",
        )],
    );
    check(
        &broken("", "thresholds: { ratio: 2 }\n"),
        &[(
            7,
            15,
            "`ratio` compares with a phase that this scenario does not have",
            "say what is `beside`, or leave it out",
        )],
    );
    check(
        &broken("", "host: { broker: embedded }\nbeside: { what: kill-host, every: 20s, tenants: 3 }\n"),
        &[
            (
                8,
                11,
                "this and `broker: embedded` contradict each other",
                "the embedded broker dies with its host: write `broker: mosquitto`",
            ),
            (8, 28, "`every` and `phase` contradict each other", "it would not happen within a phase"),
            (8, 40, "`tenants` has no meaning beside `kill-host`", "`kill-host` has every"),
        ],
    );
    check(
        &broken("", "topics: { in: '{tenant}/x', out: '{tenant}/x' }\n"),
        &[(7, 29, "`in` and `out` contradict each other", "what is sent would come back without a host")],
    );
    check(
        &broken("", "topics: { in: 'x', out: '{tenant}/#' }\n"),
        &[
            (7, 15, "`x` is the same topic for every tenant", "put `{tenant}` into it"),
            (7, 25, "`{tenant}/#` is no topic", "no wildcards; `{tenant}` is a level of its own"),
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "nam: a\nabout: b\nphase: 10\ntenants: {}\narrivals: { shape: x }\nmessages: {}\n";
    let problems = parse(text).map(drop).expect_err("all of it is wrong");
    let places: Vec<_> = problems.iter().map(|it| (it.place.line, it.place.column)).collect();
    assert_eq!(places, [(1, 1), (1, 1), (3, 8), (4, 10), (5, 20), (6, 11)]);
}

#[test]
fn errors_look_as_those_of_the_host() {
    let problems = parse(&broken("", "sed: 3\n")).map(drop).expect_err("it is wrong");
    let text = "error: unknown key `sed`\n --> a.yaml:7:1\n  |\n7 | sed: 3\n  | ^^^ did you mean `seed`?\n\n";
    assert_eq!(problems.to_text(false), text);
    assert_eq!(problems.to_json()[0]["line"], 7);
}

#[test]
fn a_shorter_phase_still_has_what_happens_beside() {
    let text = GOOD.to_owned() + "host: { broker: mosquitto }\nbeside: { what: kill-host, every: 8s }\n";
    let scenario = parse(&text).unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
    let short = scenario.clone().with_phase(Duration::from_secs(4)).expect("long enough");
    assert_eq!(short.beside, Some(Beside::KillHost { every: Duration::from_secs(2) }));
    assert!(scenario.with_phase(Duration::ZERO).is_err());
}

#[test]
fn a_connector_changes_what_is_not_said_and_refuses_what_it_cannot_do() {
    let over = |connector: &str| parse(&broken("about: b", &format!("about: b\nconnector: {connector}")));
    for (connector, input, in_order) in [
        ("mqtt", "{tenant}/in", Some(0)),
        ("kafka", "{tenant}.in", Some(0)),
        ("kafka-transactions", "{tenant}.in", Some(0)),
        ("http", "{tenant}/in", None),
    ] {
        let said = over(connector).unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
        assert_eq!((said.topics.input.as_str(), said.thresholds.out_of_order), (input, in_order));
        let chosen = parse(GOOD).ok().and_then(|scenario| scenario.with_connector(said.connector).ok());
        let chosen = chosen.expect("it fits");
        assert_eq!(chosen.topics, said.topics);
        assert_eq!((chosen.thresholds, chosen.connector), (said.thresholds, said.connector));
    }
    check(
        &broken("about: b", "about: b\nconnector: kafak"),
        &[(3, 12, "`kafak` is no value of `connector`", "did you mean `kafka`?")],
    );
    check(
        &broken("", "connector: http\nbeside: { what: restart-broker }\n"),
        &[(
            8,
            1,
            "`beside` and `connector: http` contradict each other",
            "there is no broker between requests and webhooks: have another connector, or `what: kill-host`",
        )],
    );
    check(
        &broken("", "connector: kafka\nhost: { broker: mosquitto }\n"),
        &[(
            8,
            9,
            "`broker` and `connector: kafka` contradict each other",
            "it says which broker of MQTT: leave it out",
        )],
    );
    check(
        &broken(
            "{ count: 4 }",
            "{ count: 501 }\nconnector: kafka\ntopics: { in: \"{tenant}/a\", out: \"{tenant}.b\" }",
        ),
        &[
            (
                4,
                1,
                "`tenants` and `connector: kafka` contradict each other",
                "501 tenants are more than 500, each with a client of Kafka: have fewer, or another connector",
            ),
            (
                6,
                1,
                "`topics` and `connector: kafka` contradict each other",
                "`{tenant}/a` is no topic of Kafka: letters, digits, `.`, `_` and `-`, such as `{tenant}.in`",
            ),
        ],
    );
    let attacks = parse(&broken("", "beside: { what: attacks }\n")).expect("it is well");
    let refused = attacks.with_connector(Connector::Kafka).expect_err("attacks are of MQTT");
    assert_eq!(
        refused,
        "`a` cannot be run over kafka: `beside`: attackers are sent their messages over MQTT; leave `connector` out"
    );
}
