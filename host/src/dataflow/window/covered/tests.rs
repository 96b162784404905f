use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{Covered, Known, record};
use crate::{
    dataflow::window::Change,
    queue::{Marks, Places, Sending, Sendings},
};

fn sent(messages: &[(u16, u64, bool)]) -> Option<Marks> {
    sent_by(false, messages)
}

fn sent_by(anew: bool, messages: &[(u16, u64, bool)]) -> Option<Marks> {
    let sending = |(packet_id, digest, again): &(u16, u64, bool)| Sending {
        packet_id: *packet_id,
        digest: *digest,
        again: *again,
    };
    Some(Marks::Sendings(Sendings { anew, messages: messages.iter().map(sending).collect() }))
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
    assert_eq!(take(&mut covered, sent_by(true, &[(1, 10, true)])).0, [0; 0]);
}

#[test]
fn places_of_another_stream_are_not_known() {
    let places =
        |stream, ends: &[u64]| Some(Marks::Places(Places { stream: [stream, 0], ends: ends.into() }));
    let mut covered = Covered::new("source".into());
    assert_eq!(take(&mut covered, places(1, &[5, 9])).0, [0; 0]);
    for (marks, known) in
        [(places(1, &[5, 9, 12]), vec![0, 1]), (places(2, &[5]), vec![]), (places(2, &[5, 6]), vec![0])]
    {
        assert_eq!(take(&mut covered, marks).0, known);
    }
}

/// A broker with a window of open messages, whose connection and whose client end at
/// any moment: what was committed is known, whatever else happens, and nothing else is.
#[test]
fn what_was_committed_is_known_in_every_later_life() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disk: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut covered = Covered::new("source".into());
        // Sent and not acknowledged: packet id, digest, committed or not.
        let mut open: Vec<(u16, u64, bool)> = Vec::new();
        // As most brokers give them: one after the other, and then from the first on.
        let mut next_id = rng.random_range(1..=u16::MAX);
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
            while open.len() < 64 && rng.random_bool(0.9) {
                // Many messages say the same.
                let digest = rng.random_range(0..3);
                open.push((next_id, digest, false));
                sending.push((next_id, digest, false));
                committed_before.push(false);
                next_id = next_id % u16::MAX + 1;
            }
            let known = covered.arrived(sent(&sending));
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
            for (id, ..) in &sending {
                let one = open.iter_mut().find(|(open, ..)| open == id).expect("it is open");
                one.2 = true;
            }
            // Acknowledged in order, and not all acknowledgements arrive.
            let acked = rng.random_range(0..=open.len());
            open.drain(..acked);
        }
        assert!(disk.len() < 400, "seed {seed}: {} records", disk.len());
    }
}
