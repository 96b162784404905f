use super::*;

const MS: u64 = 1_000_000;

fn ledger() -> (Ledger, PhaseId) {
    let mut ledger = Ledger::new(7, ["a/out".to_owned(), "b/out".to_owned()]);
    let phase = ledger.begin_phase();
    (ledger, phase)
}

fn counts(ledger: &Ledger, phase: PhaseId) -> [u64; 5] {
    let tally = ledger.tally(phase);
    [tally.sent, tally.lost(), tally.duplicated, tally.out_of_order, ledger.unexpected()]
}

#[test]
fn what_comes_once_and_in_order_is_well() {
    let (mut ledger, phase) = ledger();
    let ids: Vec<String> = (0..10).map(|n| ledger.send(phase, n % 2, n as u64 * MS).1).collect();
    for (n, id) in ids.iter().enumerate() {
        let topic: &[u8] = if n % 2 == 0 { b"a/out" } else { b"b/out" };
        ledger.arrive(topic, format!(r#"{{"id":"{id}"}}"#).as_bytes(), (n as u64 + 3) * MS);
    }
    assert_eq!(counts(&ledger, phase), [10, 0, 0, 0, 0]);
    assert_eq!(ledger.tally(phase).latency_us.max(), 3_001, "3 ms, to three digits");
}

#[test]
fn every_message_that_does_not_come_is_lost() {
    let (mut ledger, phase) = ledger();
    let ids: Vec<String> = (0..10).map(|n| ledger.send(phase, 0, n).1).collect();
    for id in ids.iter().filter(|id| !id.ends_with('3') && !id.ends_with('9')) {
        ledger.arrive(b"a/out", id.as_bytes(), MS);
    }
    assert_eq!(counts(&ledger, phase), [10, 2, 0, 0, 0]);
}

#[test]
fn a_second_coming_is_a_duplicate_even_when_its_block_is_gone() {
    let (mut ledger, phase) = ledger();
    let ids: Vec<String> = (0..BLOCK + 1).map(|n| ledger.send(phase, 0, n as u64).1).collect();
    ids.iter().for_each(|id| ledger.arrive(b"a/out", id.as_bytes(), MS));
    assert!(matches!(ledger.blocks[0], Block::Complete(_)));
    ledger.arrive(b"a/out", ids[5].as_bytes(), MS);
    ledger.arrive(b"a/out", ids[BLOCK].as_bytes(), MS);
    assert_eq!(counts(&ledger, phase), [BLOCK as u64 + 1, 0, 2, 0, 0]);
}

#[test]
fn order_is_asked_of_each_stream_alone() {
    let (mut ledger, phase) = ledger();
    let ids: Vec<String> = [0, 1, 0, 1].map(|stream| ledger.send(phase, stream, 0).1).into();
    for (topic, n) in [(b"b/out", 1), (b"b/out", 3), (b"a/out", 2), (b"a/out", 0)] {
        ledger.arrive(topic, ids[n].as_bytes(), MS);
    }
    assert_eq!(counts(&ledger, phase), [4, 0, 0, 1, 0]);
}

#[test]
fn what_nobody_sent_or_meant_for_there_is_unexpected() {
    let (mut ledger, phase) = ledger();
    let (_, id) = ledger.send(phase, 0, 0);
    for (topic, body) in [
        ("a/out", "no id"),
        ("a/out", "lt00000007-1"),
        ("a/out", "lt00000008-0"),
        ("a/out", "lt00000007-x"),
        ("c/out", id.as_str()),
        ("b/out", id.as_str()),
    ] {
        ledger.arrive(topic.as_bytes(), body.as_bytes(), MS);
    }
    assert_eq!(counts(&ledger, phase), [1, 1, 0, 0, 6]);
}

#[test]
fn latency_counts_from_when_a_message_was_due() {
    let (mut ledger, phase) = ledger();
    // A sender that stood still for a second sends ten messages at its end: the first
    // waited for a second, though it was under way for a millisecond.
    let ids: Vec<String> = (0..10).map(|n| ledger.send(phase, 0, n * 100 * MS).1).collect();
    ids.iter().for_each(|id| ledger.arrive(b"a/out", id.as_bytes(), 1_001 * MS));
    let latency = &ledger.tally(phase).latency_us;
    assert!(latency.max().abs_diff(1_001_000) < 1_000 && latency.min().abs_diff(101_000) < 200);
}

#[test]
fn phases_are_told_apart_and_add_up() {
    let (mut ledger, alone) = ledger();
    let (_, first) = ledger.send(alone, 0, 0);
    let beside = ledger.begin_phase();
    let (_, second) = ledger.send(beside, 0, 0);
    ledger.arrive(b"a/out", second.as_bytes(), 9 * MS);
    assert_eq!(counts(&ledger, alone)[..2], [1, 1]);
    ledger.arrive(b"a/out", first.as_bytes(), 9 * MS);
    assert_eq!(counts(&ledger, alone)[..4], [1, 0, 0, 1]);
    let mut both = ledger.tally(alone).clone();
    both.add(ledger.tally(beside));
    assert_eq!((both.sent, both.came, both.latency_us.len()), (2, 2, 2));
}
