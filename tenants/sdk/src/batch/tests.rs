//! Tests of `batch`: order, faults and arenas of whole batches.

use std::convert::Infallible;

use super::*;
use crate::testing::{Sample, branch, filter, map};

fn samples(payloads: &[&str]) -> Vec<Sample> {
    payloads.iter().enumerate().map(|(i, payload)| Sample::new("t", payload).with_origin(i as u32)).collect()
}

#[test]
fn a_map_gives_any_number_of_messages_in_order_of_origin() {
    let outcome = map(&samples(&["0", "2", "1"]), |message, output| {
        for copy in 0..message.text()?.parse().unwrap_or(0) {
            output.emit(message).payload(format!("{}.{copy}", message.text()?));
        }
        Ok::<_, std::str::Utf8Error>(())
    });
    let payloads: Vec<_> =
        outcome.samples.iter().map(|sample| (sample.origin, &sample.payload[..])).collect();
    assert_eq!(payloads, [(1, &b"2.0"[..]), (1, b"2.1"), (2, b"1.0")]);
}

#[test]
fn a_failed_call_takes_back_what_it_emitted() {
    let outcome = map(&samples(&["a", "bad", "c"]), |message, output| {
        output.emit(message).payload("first");
        if message.payload() == b"bad" {
            output.emit(message).payload("second");
            return Err("it is bad");
        }
        Ok(())
    });
    assert_eq!(outcome.faults, [(1, "it is bad".into())]);
    let origins: Vec<_> = outcome.samples.iter().map(|sample| sample.origin).collect();
    assert_eq!(origins, [0, 2]);
    assert!(outcome.samples.iter().all(|sample| sample.payload == b"first"));
}

#[test]
fn verdicts_and_faults_go_to_their_messages() {
    let judge = |message: &Message| match message.payload() {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(format!("neither: {}", message.text().unwrap_or_default())),
    };
    let expected = [Ok(true), Err("neither: ?".to_owned()), Ok(false), Err("neither: ".to_owned()), Ok(true)];
    let samples = samples(&["yes", "?", "no", "", "yes"]);
    assert_eq!(filter(&samples, judge), expected);
    assert_eq!(branch(&samples, |message, _| judge(message)), expected);
}

#[test]
fn a_branch_sees_logical_times() {
    let samples = [Sample { seconds: 7, ..Sample::default() }, Sample { seconds: 8, ..Sample::default() }];
    let seen = branch(&samples, |_, time| Ok::<_, Infallible>(time.seconds == 8 && time.node == "node"));
    assert_eq!(seen, [Ok(false), Ok(true)]);
}

#[test]
fn an_arena_is_handed_on_extended_or_made_anew() {
    let arena_len = |payload_bytes: usize, written: Option<&str>| {
        let sample = Sample::new("t", "x".repeat(payload_bytes));
        let mut mapped = Mapped::default();
        let (entries, _, arena) = crate::testing::pack(&vec![sample.clone(); 4]);
        let (before, start) = (arena.len(), arena.as_ptr());
        mapped.run(entries, arena, |message, output| {
            let draft = output.emit(message);
            _ = written.map(|text| draft.payload(text));
            Ok::<_, Infallible>(())
        });
        for entry in &mapped.output.entries {
            let payload = entry.payload.bytes(&mapped.arena);
            assert_eq!(payload, written.map_or(&sample.payload[..], str::as_bytes));
            assert_eq!(
                (entry.topic.bytes(&mapped.arena), entry.node.bytes(&mapped.arena)),
                (&b"t"[..], &b"node"[..])
            );
        }
        (mapped.arena.as_ptr() == start, before, mapped.arena.len())
    };

    // Nothing written: the arena itself.
    assert_eq!(arena_len(100, None), (true, 408, 408));
    // Little replaced: the whole arena and what was written.
    assert_eq!(arena_len(4, Some("four")), (false, 24, 40));
    // Mostly rubbish: one node, and topic and payload of each.
    assert_eq!(arena_len(100, Some("four")), (false, 408, 24));
}

#[test]
fn nothing_of_one_batch_is_left_in_the_next() {
    let mut mapped = Mapped::default();
    for (payloads, failing) in [(&["a", "b"][..], true), (&["c"], false), (&[], false)] {
        let (entries, _, arena) = crate::testing::pack(&samples(payloads));
        mapped.run(entries, arena, |message, output| {
            output.emit(message).payload("p");
            if failing { Err("f") } else { Ok(()) }
        });
        let expected = if failing { (0, payloads.len()) } else { (payloads.len(), 0) };
        assert_eq!((mapped.output.entries.len(), mapped.output.faults.len()), expected);
    }
}
