use super::*;

fn parse_text(text: &str) -> Result<Vec<Attack>, Problems> {
    parse(&Arc::new(SourceFile { path: "attacks.yaml".into(), text: text.into() }))
}

#[test]
fn the_list_that_ships_is_well() {
    let attacks = parse_text(LIST).unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
    assert!(attacks.len() >= 5);
    assert!(attacks.iter().all(|attack| attack.gets.ends_with('.')), "`gets` is a sentence");
}

#[test]
fn every_key_is_read() {
    let text = r#"
- name: giant
  guest: attacks
  kind: map
  configuration: { attack: bytes, amount: "7" }
  interruptible: false
  trigger: attack
  rate: 5
  payload: 'attack {id}'
  payloadBytes: 1000
  gets: nothing
  where: start
  operators: 20
  deploys: 40
  source: "$NEIGHBOUR/in/#"
  destination: "${outputTopic}"
  properties: { __ts: "1:00000:x" }
  fate: refused
  words: no
  also: [filter]
  twin: { amount: "1" }
  counts: { series: 256 }
  through: broker
  endpoint: mqtt
  policy: { engine: large, memory: { instance: 64Mi } }
- { name: small, like: giant, guest: attacks, kind: filter, gets: Nothing. }
- { name: elsewhere, guest: attacks, kind: map, gets: Nothing., shownBy: a/test.rs }
"#;
    let attacks = parse_text(text).unwrap_or_else(|problems| panic!("{}", problems.to_text(false)));
    assert_eq!(attacks.len(), 2, "what a test shows is no attack of one operator");
    let giant = &attacks[0];
    assert_eq!((giant.gets.as_str(), giant.operators, giant.deploys), ("Nothing.", 20, Some(40)));
    assert_eq!(giant.source.as_deref(), Some("$NEIGHBOUR/in/#"));
    assert_eq!(giant.destination.as_deref(), Some("${outputTopic}"));
    assert_eq!(giant.properties, [("__ts".into(), "1:00000:x".into())]);
    assert!(giant.is_refused && !attacks[1].is_refused);
    assert_eq!(attacks[1].like.as_deref(), Some("giant"));
    assert_eq!(giant.configuration, [("attack".into(), "bytes".into()), ("amount".into(), "7".into())]);
    assert_eq!((giant.interruptible, giant.rate, giant.payload_bytes), (false, 5, 1_000));
    assert_eq!(
        (giant.trigger.as_deref(), giant.at, giant.payload.is_some()),
        (Some("attack"), Where::Start, true)
    );
    assert_eq!(
        giant.policy,
        Some(serde_json::json!({ "engine": "large", "memory": { "instance": "64Mi" } }))
    );
    let small = &attacks[1];
    assert_eq!(
        (small.interruptible, small.rate, small.at, &small.trigger),
        (true, 50, Where::Message, &None)
    );
}

#[test]
fn mistakes_have_a_place() {
    for (text, line, column, message) in [
        ("- name: a\n  guest: g\n  kind: map\n  get: x.\n", 1, 3, "the key `gets` is missing"),
        ("- { name: A, guest: g, kind: map, gets: x. }", 1, 11, "`A` is no name"),
        ("- { name: a, guest: g, kind: mop, gets: x. }", 1, 30, "`mop` is no value of `kind`"),
        ("- { name: a, guest: g, kind: map, gets: x., rate: 9/s }", 1, 51, "`9/s` is no value of `rate`"),
        ("- { name: a, guest: g, kind: map, gets: x., where: here }", 1, 52, "`here` is no value of `where`"),
        ("- { name: a, guest: g, kind: map, gets: x., policy: 3 }", 1, 53, "`policy` must be a mapping"),
        ("a: 3", 1, 1, "attacks must be a list"),
    ] {
        let problems = parse_text(text).expect_err(text);
        let first = problems.iter().next().expect("a problem");
        assert_eq!(
            (first.place.line, first.place.column, first.message.as_str()),
            (line, column, message),
            "{text}"
        );
    }
    let twice = "- { name: a, guest: g, kind: map, gets: x. }\n- { name: a, guest: g, kind: map, gets: x. }";
    let problems = parse_text(twice).expect_err("listed twice");
    assert_eq!(problems.iter().next().map(|it| it.place.line), Some(2));
}
