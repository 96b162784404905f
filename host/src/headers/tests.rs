use super::*;
use crate::batch::BatchBuilder;

fn topic() -> TopicTemplate {
    TopicTemplate::parse("out").expect("a template")
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn batch(messages: &[Pairs<'_>]) -> Batch {
    let mut builder = BatchBuilder::new("host");
    for (index, properties) in messages.iter().enumerate() {
        let properties = properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        builder.push(b"t", Some("text/plain"), format!("payload {index}").as_bytes(), properties);
    }
    builder.finish()
}

/// The properties of each message, in order.
fn properties(batch: &Batch) -> Vec<Vec<(String, String)>> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let of = |index| batch.properties(index).map(|(key, value)| (text(key), text(value))).collect();
    (0..batch.len()).map(of).collect()
}

#[test]
fn actions_change_the_properties_of_every_message_and_nothing_else() {
    use HeaderAction::{AddIfNotPresent, AddOrReplace, Remove};
    let key = || "k".to_owned();
    let value = || "v".to_owned();
    let add = AddIfNotPresent { key: key(), value: value() };
    let replace = AddOrReplace { key: key(), value: value() };
    let remove = Remove { key: key() };
    let none: Pairs<'_> = &[];
    let twice: Pairs<'_> = &[("k", "1"), ("a", "b"), ("k", "2")];
    for (actions, before, after) in [
        (vec![add.clone()], none, &[("k", "v")][..]),
        (vec![add.clone()], twice, twice),
        (vec![replace.clone()], none, &[("k", "v")]),
        (vec![replace.clone()], twice, &[("a", "b"), ("k", "v")]),
        (vec![remove.clone()], none, none),
        (vec![remove.clone()], twice, &[("a", "b")]),
        (vec![remove.clone()], &[("k", "1")], none),
        (vec![remove, add], twice, &[("a", "b"), ("k", "v")]),
    ] {
        let (input, expected) = (batch(&[before, none]), batch(&[after]));
        let output = Headers::new(actions.clone()).apply(input.clone(), &topic());
        assert_eq!(properties(&output)[0], properties(&expected)[0], "{actions:?}");
        for (before, after) in input.entries.iter().zip(&output.entries) {
            assert_eq!(after.payload.bytes(&output.arena), before.payload.bytes(&input.arena));
            assert_eq!(after.content_type.get(&output.arena), before.content_type.get(&input.arena));
            assert!(after.spans().iter().all(|span| span.fits(output.arena.len())));
        }
    }
}

#[test]
fn an_image_keeps_its_size_and_a_batch_without_actions_is_not_copied() {
    let mut image = batch(&[&[("k", "1")]]);
    image.entries[0].kind = Kind::SNAPSHOT;
    let headers = Headers::new(vec![HeaderAction::Remove { key: "k".into() }]);
    assert_eq!(properties(&headers.apply(image.clone(), &topic())), properties(&image));
    assert!(Headers::default().apply(image.clone(), &topic()).shares_arena(&image));
}

#[test]
fn events_are_made_of_what_actions_left_and_of_messages_alone() {
    let headers = Headers::new(vec![HeaderAction::AddOrReplace { key: "type".into(), value: "t".into() }]);
    let headers = headers.with_events(Maker::new("hub"));
    let mut input = batch(&[&[("a", "b")], &[]]);
    input.entries[1].kind = Kind::SNAPSHOT;
    let output = headers.apply(input, &topic());
    let made = properties(&output);
    let has = |key: &str, value: &str| made[0].contains(&(key.to_owned(), value.to_owned()));
    assert!(has("a", "b") && has("type", "t") && has("source", "aio://hub") && has("subject", "out"));
    assert!(made[1].is_empty(), "an image has no headers");
}
