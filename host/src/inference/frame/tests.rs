use proptest::prelude::*;

use super::*;

fn tensor(dimensions: &[u32], kind: TensorType, data: &[u8]) -> Tensor {
    Tensor::new(dimensions.to_vec(), kind, Bytes::copy_from_slice(data)).expect("it is one")
}

fn tensors() -> Vec<NamedTensor> {
    vec![
        ("x".to_owned(), tensor(&[2, 1], TensorType::F32, &[1; 8])),
        (String::new(), tensor(&[], TensorType::I64, &[2; 8])),
        ("ö".to_owned(), tensor(&[0, 7], TensorType::U8, &[])),
    ]
}

/// The body of a frame, as the other end reads it.
fn body(frame: &[u8], rest: &[u8]) -> Vec<u8> {
    let (len, body) = frame.split_at(4);
    let body = [body, rest].concat();
    assert_eq!(u32::from_le_bytes(len.try_into().expect("four")) as usize, body.len());
    body
}

fn asked(ask: &Ask) -> Vec<u8> {
    let (head, rest) = ask.encode(7);
    body(&head, &rest)
}

#[test]
fn what_is_written_is_what_is_read() {
    for ask in [
        Ask::Load { model: 3, bytes: Bytes::from_static(b"model") },
        Ask::Load { model: 3, bytes: Bytes::new() },
        Ask::Run { model: 4, inputs: tensors() },
        Ask::Run { model: 4, inputs: Vec::new() },
        Ask::Drop { model: u32::MAX },
    ] {
        let (id, read) = Ask::decode(asked(&ask).into()).expect("it is in form");
        assert_eq!((id, format!("{read:?}")), (7, format!("{ask:?}")));
    }
    let errors = InferenceErrorKind::ALL.map(|kind| Err(InferenceError::new(kind, "because")));
    for answer in errors.into_iter().chain([Ok(tensors()), Ok(Vec::new())]) {
        let read = decode_answer(body(&encode_answer(9, &answer), &[]).into()).expect("it is in form");
        assert_eq!(read, (9, answer));
    }
}

#[test]
fn a_frame_that_is_cut_or_too_long_is_none() {
    let run = asked(&Ask::Run { model: 4, inputs: tensors() });
    let done = body(&encode_answer(9, &Ok(tensors())), &[]);
    let failed = body(&encode_answer(9, &Err(InferenceError::new(InferenceErrorKind::Timeout, "late"))), &[]);
    for end in 0..run.len() {
        assert!(Ask::decode(Bytes::copy_from_slice(&run[..end])).is_err(), "{end}");
    }
    assert!(Ask::decode([&run[..], &[0]].concat().into()).is_err());
    for frame in [&done, &failed] {
        for end in 0..frame.len() {
            assert!(decode_answer(Bytes::copy_from_slice(&frame[..end])).is_err(), "{end}");
        }
        assert!(decode_answer([&frame[..], &[0]].concat().into()).is_err());
    }
}

proptest! {
    #[test]
    fn whatever_the_other_end_writes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        _ = Ask::decode(Bytes::from(bytes.clone()));
        _ = decode_answer(Bytes::from(bytes));
    }
}
