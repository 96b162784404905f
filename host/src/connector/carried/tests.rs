use proptest::prelude::*;

use super::*;
use crate::batch::{Batch, push_property};

const WALL: Duration = Duration::from_millis(1_767_225_600_250);

fn kept(extras: &Extras<'_>) -> Batch {
    let mut builder = BatchBuilder::new("node");
    builder.push(b"t", None, b"x", [(&b"k"[..], &b"v"[..])]);
    keep(extras, || WALL, &mut builder);
    builder.finish()
}

fn texts(batch: &Batch) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is text");
    batch.properties(0).map(|(key, value)| (text(key), text(value))).collect()
}

#[test]
fn what_came_with_a_message_stands_in_its_properties() {
    let extras = Extras {
        retain: true,
        is_text: true,
        expiry_s: Some(60),
        response_topic: Some("zurück/a".as_bytes()),
        correlation: Some(&[0, 255, 7]),
    };
    let expected = [
        ("k", "v"),
        ("__retain", "1"),
        ("__payloadFormat", "1"),
        ("__expires", "1767225660250"),
        ("__responseTopic", "zurück/a"),
        ("__correlationData", "AP8H"),
    ];
    assert_eq!(texts(&kept(&extras)), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(texts(&kept(&Extras::default())), [("k".to_owned(), "v".to_owned())]);
    let mut builder = BatchBuilder::new("node");
    builder.push(b"t", None, b"x", []);
    keep(&Extras { retain: true, ..Extras::default() }, || unreachable!("nothing expires"), &mut builder);
    assert_eq!(texts(&builder.finish()), [("__retain".to_owned(), "1".to_owned())]);
}

#[test]
fn the_time_that_a_message_was_held_is_taken_off_what_is_left_of_it() {
    let batch = kept(&Extras { expiry_s: Some(2), ..Extras::default() });
    let properties = batch.entries[0].properties.bytes(&batch.arena);
    let carried = Carried::read(properties).expect("it is readable");
    for (held_ms, left_s) in
        [(0, Some(2)), (1, Some(2)), (1000, Some(1)), (1999, Some(1)), (2000, None), (9000, None)]
    {
        let extras = carried.extras(|| WALL + Duration::from_millis(held_ms));
        assert_eq!(extras.map(|it| it.expiry_s), left_s.map(Some), "held {held_ms} ms");
    }
    let later = carried.extras(|| Duration::ZERO).expect("a clock may be set back");
    assert_eq!(later.expiry_s, Some(1_767_225_603));
}

#[test]
fn what_an_operator_made_of_it_is_refused_if_it_is_nothing() {
    let check = |key: &str, value: &str, expected: Result<Extras<'_>, &str>| {
        let mut properties = bytes::BytesMut::new();
        push_property(&mut properties, key.as_bytes(), value.as_bytes());
        let carried = Carried::read(&properties);
        let read = carried.as_ref().map(|it| it.extras(|| WALL).expect("it has not expired"));
        assert_eq!(read.map_err(|error| error.as_str()), expected, "{key} {value}");
    };
    let none = Extras::default();
    check("__other", "1", Ok(none));
    check("__retain", "1", Ok(Extras { retain: true, ..none }));
    check("__retain", "no", Ok(none));
    check("__payloadFormat", "1", Ok(Extras { is_text: true, ..none }));
    check("__expires", "99999999999999999", Ok(Extras { expiry_s: Some(u32::MAX), ..none }));
    check("__expires", "soon", Err("its property `__expires` cannot be read"));
    check("__expires", "-1", Err("its property `__expires` cannot be read"));
    check("__responseTopic", "a/b", Ok(Extras { response_topic: Some(b"a/b"), ..none }));
    for bad in ["", "a/+", "#", "a\nb"] {
        check("__responseTopic", bad, Err("its property `__responseTopic` cannot be read"));
    }
    check("__correlationData", "AP8H", Ok(Extras { correlation: Some(&[0, 255, 7]), ..none }));
    check("__correlationData", "", Ok(Extras { correlation: Some(&[]), ..none }));
    check("__correlationData", "?", Err("its property `__correlationData` cannot be read"));
}

proptest! {
    #[test]
    fn what_is_carried_comes_out_as_it_went_in(
        retain in any::<bool>(),
        is_text in any::<bool>(),
        expiry_s in prop::option::of(1..u32::MAX),
        topic in prop::option::of("[a-z/]{1,12}"),
        correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) {
        let extras = Extras {
            retain,
            is_text,
            expiry_s,
            response_topic: topic.as_deref().map(str::as_bytes),
            correlation: correlation.as_deref(),
        };
        let batch = kept(&extras);
        let carried = Carried::read(batch.entries[0].properties.bytes(&batch.arena));
        let carried = carried.expect("it is readable");
        prop_assert_eq!(carried.extras(|| WALL), Some(extras));
    }

    #[test]
    fn no_properties_can_panic(properties in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Carried::read(&properties).map(|carried| carried.extras(|| WALL).is_some());
    }
}
