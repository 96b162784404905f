use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{Had, Key, Restored, had, reached, read, read_had, write};
use crate::{
    batch::{BatchBuilder, Span, Time},
    dataflow::watermark::Moment,
};

fn operation(name: &str) -> Option<usize> {
    ["first", "second"].iter().position(|it| *it == name)
}

fn any_moment(rng: &mut StdRng) -> Moment {
    let seconds = *[0, 99, rng.random(), u64::MAX].get(rng.random_range(0..4)).expect("four");
    Moment { seconds, nanos: rng.random_range(0..1_000_000_000), counter: rng.random_range(0..100) }
}

#[test]
fn what_is_written_is_read_again_and_damage_never_panics() {
    for seed in 0..2_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut builder = BatchBuilder::new("");
        for number in 0..rng.random_range(1..4) {
            builder.push(
                b"topic",
                None,
                format!("payload {number}").as_bytes(),
                [(b"k".as_slice(), b"v".as_slice())],
            );
        }
        let batch = builder.finish();
        let node = b"a node";
        let time = Time { seconds: 7, nanos: 5, zero: 0, counter: 3, node: Span { offset: 0, len: 6 } };
        let moment = any_moment(&mut rng);
        // Such numbers end in what other keys end in.
        let number = [b'c'.into(), b'w'.into(), rng.random()][rng.random_range(0..3)];
        let value = write(&batch, &[time], node);
        let key = Key::Piece { moment, number }.to_bytes("second");
        assert!(read_had(&key, &value).is_none(), "seed {seed}");
        match read(&key, &value, operation) {
            Some((1, Restored::Piece { moment: again, number: same, messages })) => {
                assert_eq!((again, same), (moment, number));
                assert_eq!(messages.batch.entries, batch.entries);
                assert_eq!(messages.times[0].node.bytes(&messages.batch.arena), node);
                assert_eq!(messages.times[0].seconds, 7);
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        let mut damaged = (key, value);
        for bytes in [&mut damaged.0, &mut damaged.1] {
            match rng.random_range(0..3) {
                0 => bytes.truncate(rng.random_range(0..bytes.len())),
                1 => bytes.push(rng.random()),
                _ => {
                    let place = rng.random_range(0..bytes.len());
                    bytes[place] ^= 1 << rng.random_range(0..8);
                }
            }
        }
        if let Some((_, Restored::Piece { messages, .. } | Restored::Release { messages, .. })) =
            read(&damaged.0, &damaged.1, operation)
        {
            let arena = &messages.batch.arena;
            messages
                .batch
                .entries
                .iter()
                .flat_map(|entry| entry.spans())
                .for_each(|span| _ = span.get(arena));
        }
    }
}

#[test]
fn keys_are_in_the_order_of_moments_and_numbers() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..1_000 {
        let (one, other) = (any_moment(&mut rng), any_moment(&mut rng));
        let key = |moment| Key::Piece { moment, number: 1 }.to_bytes("first");
        assert_eq!(key(one).cmp(&key(other)), one.cmp(&other));
        let (one, other): (u64, u64) = (rng.random(), rng.random());
        let key = |number| Key::Release { number }.to_bytes("first");
        assert_eq!(key(one).cmp(&key(other)), one.cmp(&other));
    }
}

#[test]
fn how_far_a_window_and_its_sources_are_is_read_again() {
    let moment = Moment { seconds: 5, nanos: 6, counter: 7 };
    let read = read(&Key::Reached.to_bytes("first"), &reached(moment, 8), operation);
    assert!(
        matches!(read, Some((0, Restored::Reached { moment: it, number: 8 })) if it == moment),
        "{read:?}"
    );
    let upto = |is_one_of_many| Had::Upto { stream: [1, 2], is_one_of_many, place: 3 };
    for kept in
        [upto(false), upto(true), Had::Sent(4, vec![(5, 6), (7, u64::MAX)]), Had::Sent(u64::MAX, vec![])]
    {
        let (key, value) = had("a source", &kept);
        assert_eq!(read_had(&key, &value.expect("it is kept")), Some(("a source", kept)));
    }
}
