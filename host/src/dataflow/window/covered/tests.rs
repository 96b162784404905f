use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{Covered, Known, record};
use crate::{
    dataflow::window::Change,
    queue::{Marks, Places, Sending, Sendings},
};

fn sent(messages: &[(u16, u64, bool)]) -> Option<Marks> {
    sent_by(false, messages, None)
}

fn sent_by(anew: bool, messages: &[(u16, u64, bool)], open: Option<u64>) -> Option<Marks> {
    let sending = |(packet_id, digest, again): &(u16, u64, bool)| Sending {
        packet_id: *packet_id,
        digest: *digest,
        again: *again,
    };
    Some(Marks::Sendings(Sendings { anew, messages: messages.iter().map(sending).collect(), open }))
}

fn has(known: &Known) -> Vec<u32> {
    (0..100).filter(|origin| known.has(*origin)).collect()
}

/// A delivery of which windows take something.
fn take(covered: &mut Covered, marks: Option<Marks>) -> (Vec<u32>, Vec<Change>) {
    let known = has(&covered.arrived(marks));
    let mut changes = Vec::new();
    covered.absorbed(true, &mut changes);
    (known, changes)
}

#[test]
fn only_what_the_broker_sends_again_is_known() {
    let mut covered = Covered::new("source".into());
    assert_eq!(take(&mut covered, sent(&[(1, 10, false), (2, 10, false), (0, 10, false)])).0, [0; 0]);
    for (again, known) in [
        // Not said to come again: another message in spite of its packet id.
        ((1, 10, false), false),
        ((1, 10, true), true),
        // Once more.
        ((1, 10, true), true),
        // A packet id that is given to another message.
        ((2, 11, true), false),
        ((2, 11, true), true),
        ((2, 10, true), false),
        ((3, 10, true), false),
        // Without a packet id nothing comes again.
        ((0, 10, true), false),
    ] {
        assert_eq!(take(&mut covered, sent(&[again])).0 == [0], known, "{again:?}");
    }
    assert_eq!(
        take(&mut covered, sent(&[(8, 1, true), (1, 10, true), (9, 1, false), (3, 10, true)])).0,
        [1, 3]
    );
    // A broker that has lost the session gives packet ids from the first on.
    assert_eq!(take(&mut covered, sent_by(true, &[(1, 10, true)], None)).0, [0; 0]);
}

#[test]
fn places_of_another_stream_are_not_known() {
    let places = |stream, ends: &[u64]| {
        Some(Marks::Places(Places { stream: [stream, 0], is_one_of_many: false, ends: ends.into() }))
    };
    let mut covered = Covered::new("source".into());
    assert_eq!(take(&mut covered, places(1, &[5, 9])).0, [0; 0]);
    for (marks, known) in
        [(places(1, &[5, 9, 12]), vec![0, 1]), (places(2, &[5]), vec![]), (places(2, &[5, 6]), vec![0])]
    {
        assert_eq!(take(&mut covered, marks).0, known);
    }
}

/// A broker with a window of open messages, which it does not keep to now and then, whose
/// connection and whose client end at any moment: what was committed is known, whatever
/// else happens, and nothing else is.
#[test]
fn partitions_are_read_again_each_from_its_own_place() {
    let places = |partition, ends: &[u64]| {
        Some(Marks::Places(Places { stream: [7, partition], is_one_of_many: true, ends: ends.into() }))
    };
    let mut covered = Covered::new("source".into());
    let mut kept = BTreeMap::new();
    for marks in [places(0, &[1, 2]), places(1, &[1, 2, 3]), places(0, &[3])] {
        let (known, changes) = take(&mut covered, marks);
        assert_eq!(known, [0; 0]);
        kept.extend(changes);
    }
    // As the next run finds it.
    let mut covered = Covered::new("source".into());
    for (key, value) in &kept {
        let (_, had) = record::read_had(key, value.as_deref().expect("none is gone")).expect("it is read");
        covered.restore(had);
    }
    assert_eq!(take(&mut covered, places(0, &[2, 3, 4])).0, [0, 1]);
    assert_eq!(take(&mut covered, places(1, &[3, 4])).0, [0]);
    assert_eq!(take(&mut covered, places(2, &[1])).0, [0; 0]);
}

#[test]
fn what_was_committed_is_known_in_every_later_life() {
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disk: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut covered = Covered::new("source".into());
        // Sent and not acknowledged: packet id, digest, committed or not.
        let mut open: Vec<(u16, u64, bool)> = Vec::new();
        // As most brokers give them: one after the other, and then from the first on.
        let mut next_id = rng.random_range(1..=u16::MAX);
        let mut most = 64;
        for _ in 0..300 {
            let mut sending: Vec<(u16, u64, bool)> = Vec::new();
            let mut committed_before = Vec::new();
            if rng.random_bool(0.1) {
                // The connection is lost, and perhaps the client with it.
                if rng.random_bool(0.5) {
                    covered = Covered::new("source".into());
                    for (key, value) in &disk {
                        covered.restore(record::read_had(key, value).expect("it was written so").1);
                    }
                }
                sending.extend(open.iter().map(|(id, digest, _)| (*id, *digest, true)));
                committed_before.extend(open.iter().map(|(.., committed)| *committed));
            }
            if rng.random_bool(0.03) {
                most = if most > 64 { 64 } else { 3_000 };
            }
            let at_once = if most > 64 { rng.random_range(100..300) } else { 64 };
            while open.len() < most && sending.len() < at_once && rng.random_bool(0.99) {
                // Many messages say the same.
                let digest = rng.random_range(0..3);
                open.push((next_id, digest, false));
                sending.push((next_id, digest, false));
                committed_before.push(false);
                next_id = next_id % u16::MAX + 1;
            }
            // The source may know no better.
            let counted = rng.random_bool(0.9).then(|| open.len() as u64 + rng.random_range(0..20));
            let known = covered.arrived(sent_by(false, &sending, counted));
            for (place, committed) in committed_before.iter().enumerate() {
                assert_eq!(known.has(place as u32), *committed, "seed {seed}");
            }
            if rng.random_bool(0.1) {
                // Lost before it was through: nothing of it is committed.
                continue;
            }
            let mut changes = Vec::new();
            let takes = known.is_none() || rng.random_bool(0.5);
            covered.absorbed(takes, &mut changes);
            for (key, value) in changes {
                match value {
                    Some(value) => _ = disk.insert(key, value),
                    None => _ = disk.remove(&key).expect("only what is there is removed"),
                }
            }
            // What is open is what was sent last.
            let first = open.len() - sending.len();
            open[first..].iter_mut().for_each(|(.., committed)| *committed = true);
            // Acknowledged in order, and not all acknowledgements arrive.
            let most_acked = if most > 64 && open.len() < 2_500 { open.len() / 50 } else { open.len() };
            let acked = rng.random_range(0..=most_acked);
            open.drain(..acked);
        }
        assert!(disk.len() < 400, "seed {seed}: {} records", disk.len());
    }
}
