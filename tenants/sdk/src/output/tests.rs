//! Tests of `output`: what a draft writes, and what it only refers to.

use std::convert::Infallible;
use std::fmt::Write as _;

use super::*;
use crate::testing::{Outcome, Sample, map};

fn check(change: impl Fn(&Message, Draft<'_>), expected: impl FnOnce(Sample) -> Sample) {
    let sample = Sample::new("in/t", "payload").with_property("k", "v");
    let Outcome { samples, faults } = map(std::slice::from_ref(&sample), |message, output| {
        change(message, output.emit(message));
        Ok::<_, Infallible>(())
    });
    assert_eq!((samples, faults), (vec![expected(sample)], vec![]));
}

#[test]
fn a_draft_changes_what_it_is_told_to() {
    check(|_, _| {}, |sample| sample);
    check(|_, draft| _ = draft.payload("new"), |sample| Sample { payload: "new".into(), ..sample });
    check(|_, draft| _ = draft.payload(""), |sample| Sample { payload: "".into(), ..sample });
    check(|_, draft| _ = draft.topic("out"), |sample| Sample { topic: "out".into(), ..sample });
    check(|_, draft| _ = draft.topic_suffix("/x"), |sample| Sample { topic: "in/t/x".into(), ..sample });
    check(
        |_, draft| _ = draft.topic("out").topic_suffix("/x").topic_suffix("/y"),
        |sample| Sample { topic: "out/x/y".into(), ..sample },
    );
    check(
        |_, draft| _ = draft.property("a", "1").property("k", ""),
        |sample| sample.with_property("a", "1").with_property("k", ""),
    );
    check(
        |_, draft| _ = draft.property("a", "1").payload("p").property("b", "2"),
        |sample| Sample { payload: "p".into(), ..sample.with_property("a", "1").with_property("b", "2") },
    );
    check(|_, draft| _ = draft.without_properties(), |sample| Sample { properties: vec![], ..sample });
    check(
        |_, draft| _ = draft.without_properties().property("a", "1"),
        |sample| Sample { properties: vec![], ..sample }.with_property("a", "1"),
    );
    check(
        |_, draft| _ = draft.content_type(Some("text/plain")),
        |sample| Sample { content_type: Some("text/plain".into()), ..sample },
    );
    check(|_, draft| _ = draft.content_type(Some("x")).content_type(None), |sample| sample);
    check(
        |message, draft| _ = draft.time(&Time { seconds: 9, ..message.time() }),
        |sample| Sample { seconds: 9, ..sample },
    );
    check(
        |_, draft| _ = draft.payload_with(|writer| write!(writer, "{}+{}", 1, 2)),
        |sample| Sample { payload: "1+2".into(), ..sample },
    );
    check(
        |_, draft| _ = draft.json(&[1, 2]).map(|draft| draft.topic("j")),
        |sample| Sample { payload: "[1,2]".into(), topic: "j".into(), ..sample },
    );
}

#[test]
fn pieces_of_the_input_are_referred_to_and_not_copied() {
    let written = |change: fn(&Message, Draft<'_>)| {
        let mut output = Output { base: 11, ..Output::default() };
        let arena = *b"nodein/tABC";
        let entry = Entry {
            origin: 0,
            kind: 0,
            seconds: 0,
            nanos: 0,
            zero: 0,
            counter: 0,
            node: Span { offset: 0, len: 4 },
            topic: Span { offset: 4, len: 4 },
            content_type: Span::ABSENT,
            payload: Span { offset: 8, len: 3 },
            properties: Span::ABSENT,
            schema: Span::ABSENT,
        };
        let message = Message { entry: &entry, arena: &arena };
        change(&message, output.emit(&message));
        (output.entries[0].payload, output.written)
    };

    assert_eq!(written(|_, _| {}), (Span { offset: 8, len: 3 }, vec![]));
    assert_eq!(
        written(|message, draft| _ = draft.payload(&message.payload()[1..])),
        (Span { offset: 9, len: 2 }, vec![])
    );
    assert_eq!(
        written(|message, draft| _ = draft.payload(message.topic())),
        (Span { offset: 4, len: 4 }, vec![])
    );
    assert_eq!(written(|_, draft| _ = draft.payload("BC")), (Span { offset: 11, len: 2 }, b"BC".to_vec()));
}
