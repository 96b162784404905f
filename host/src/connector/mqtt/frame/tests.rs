use proptest::prelude::*;

use super::*;

/// What came out, in a form that outlives the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Taken {
    Packet(u8, Vec<u8>),
    Head(u8, Vec<u8>, usize),
    End,
}

fn feed(deframer: &mut Deframer, bytes: &[u8], taken: &mut Vec<Taken>) -> Result<(), SessionError> {
    deframer.feed(bytes, |piece| {
        taken.push(match piece {
            Piece::Packet { first, body } => Taken::Packet(first, body.to_vec()),
            Piece::Head { first, head, body_bytes } => Taken::Head(first, head.to_vec(), body_bytes),
            Piece::HeadEnd => Taken::End,
        });
        Ok(())
    })
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::from(&[first][..]);
    push_variable_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes.to_vec()
}

#[test]
fn packets_are_the_same_wherever_the_reads_are_cut() {
    let long = vec![7; 200];
    let too_long = vec![9; 300];
    let stream = [
        packet(0xd0, b""),
        packet(0x32, b"small"),
        packet(0x32, &long),
        packet(0x30, &too_long),
        packet(0x40, b"ab"),
    ]
    .concat();
    let expected = [
        Taken::Packet(0xd0, vec![]),
        Taken::Packet(0x32, b"small".to_vec()),
        Taken::Packet(0x32, long.clone()),
        Taken::Head(0x30, too_long[..256].to_vec(), 300),
        Taken::End,
        Taken::Packet(0x40, b"ab".to_vec()),
    ];
    for first in 0..stream.len() {
        for second in [first, (first + 1).min(stream.len()), (first + 290).min(stream.len())] {
            let mut deframer = Deframer::new(256, 1000);
            let mut taken = Vec::new();
            for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                feed(&mut deframer, part, &mut taken).expect("all are within the limit");
            }
            assert_eq!(taken, expected, "cut at {first} and {second}");
            assert!(deframer.partial.is_empty() && deframer.partial.capacity() == 0, "nothing is kept");
        }
    }
}

#[test]
fn what_cannot_be_framed_is_an_error() {
    let over = packet(0x30, &[0; 1001]);
    let large_other = packet(0x40, &[0; 257]);
    for bytes in [&over[..], &large_other[..], &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01][..]] {
        let mut deframer = Deframer::new(256, 1000);
        assert!(feed(&mut deframer, bytes, &mut Vec::new()).is_err());
    }
}

#[test]
fn lengths_take_as_many_bytes_as_they_need() {
    for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, REMAINING_BYTES_MAX] {
        let mut bytes = BytesMut::new();
        push_variable_length(&mut bytes, value);
        assert_eq!(bytes.len(), variable_length_len(value), "{value}");
        assert_eq!(variable_length(&bytes).expect("valid"), Some((bytes.len(), value)));
        let cut = variable_length(&bytes[..bytes.len() - 1]).expect("not wrong, only short");
        assert_eq!(cut, None, "{value}");
    }
}

proptest! {
    #[test]
    fn no_bytes_can_panic_and_cuts_change_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cut in 0..400usize,
    ) {
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        let first = feed(&mut Deframer::new(64, 100), &bytes, &mut whole).is_ok();
        let mut deframer = Deframer::new(64, 100);
        let (left, right) = bytes.split_at(cut.min(bytes.len()));
        let second = feed(&mut deframer, left, &mut parts).is_ok() && feed(&mut deframer, right, &mut parts).is_ok();
        prop_assert_eq!(first, second);
        prop_assert_eq!(whole, parts);
    }
}
