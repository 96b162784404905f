use proptest::prelude::*;

use super::*;
use crate::{batch::push_property, headers::Headers};

fn destination(topic: &str) -> Destination {
    Destination {
        name: "a/flow/out".to_owned(),
        topic: TopicTemplate::parse(topic).expect("a topic"),
        write_grants: Vec::new(),
        headers: Headers::default(),
    }
}

#[test]
fn a_write_comes_back_as_it_was_and_without_what_it_shared() {
    let mut builder = BatchBuilder::new("host");
    for number in 0..3_u8 {
        let properties = [(&b"k"[..], &b"v"[..])];
        builder.push(b"a/b", Some("text/plain"), &[number; 4], properties);
    }
    let all = builder.finish();
    let one = all.select(|place, _| place == 1);
    let bytes = encode(&destination("x/${outputTopic.2}/y"), &one);
    let Kept { destination, topic, batch } = decode(&bytes).expect("it was written so");
    assert_eq!((destination.as_str(), topic.to_string().as_str()), ("a/flow/out", "x/${outputTopic.2}/y"));
    let [entry] = batch.entries[..] else { panic!("there is one") };
    assert_eq!((entry.origin, entry.payload.bytes(&batch.arena)), (0, &[1_u8; 4][..]));
    assert_eq!(entry.topic.bytes(&batch.arena), b"a/b");
    assert_eq!(batch.properties(0).collect::<Vec<_>>(), [(&b"k"[..], &b"v"[..])]);
    assert!(batch.arena.len() < all.arena.len());
}

proptest! {
    /// Whatever lies on disk: nothing or something sound, and no panic.
    #[test]
    fn any_bytes_are_a_sound_write_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0_usize..200, to: u8) {
        let mut arena = bytes::BytesMut::new();
        push_property(&mut arena, b"k", b"v");
        let mut builder = BatchBuilder::new("n");
        builder.push(b"t", None, b"payload", []);
        let mut whole = encode(&destination("t"), &builder.finish());
        let at = at % whole.len();
        whole[at] = to;
        for bytes in [bytes, whole] {
            if let Some(Kept { batch, .. }) = decode(&bytes) {
                for entry in &batch.entries {
                    entry.spans().iter().for_each(|span| _ = span.bytes(&batch.arena));
                }
            }
        }
    }
}
