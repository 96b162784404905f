use proptest::prelude::*;

use super::*;

fn version() -> impl Strategy<Value = Version> {
    (any::<u64>(), 0..1_000_000_000_u32, any::<u64>(), "host|[a-zé]{0,8}")
        .prop_map(|(seconds, nanos, counter, node)| Version { seconds, nanos, counter, node: node.into() })
}

proptest! {
    #[test]
    fn records_are_read_as_they_were_written(
        value in prop::collection::vec(any::<u8>(), 0..40),
        version in version(),
        token in prop::option::of(version()),
        expires in prop::option::of((any::<u32>(), 0..1_000_000_000_u32)),
        cut in any::<prop::sample::Index>(),
    ) {
        let expires = expires.map(|(seconds, nanos)| Duration::new(u64::from(seconds), nanos));
        let record = Record { value: value.into(), version, token, expires };
        let bytes = record.to_bytes("host");
        prop_assert_eq!(Record::from_bytes(&bytes, &"host".into()), Some(record));
        // Whatever is cut off never panics.
        let _ = Record::from_bytes(&bytes[..cut.index(bytes.len())], &"host".into());
    }
}

#[test]
fn versions_are_ordered_by_time_then_counter_then_node() {
    let version =
        |seconds, nanos, counter, node: &str| Version { seconds, nanos, counter, node: node.into() };
    let ordered = [
        version(1, 0, 9, "z"),
        version(1, 1, 0, "z"),
        version(2, 0, 0, "a"),
        version(2, 0, 0, "b"),
        version(2, 0, 1, "a"),
    ];
    assert!(ordered.is_sorted());
}

#[test]
fn keys_have_a_length() {
    for (bytes, expected) in [
        (0, Err(StateError::KeyEmpty)),
        (1, Ok(())),
        (KEY_BYTES_MAX, Ok(())),
        (KEY_BYTES_MAX + 1, Err(StateError::KeyTooLong { bytes: KEY_BYTES_MAX + 1 })),
    ] {
        assert_eq!(check_key(&vec![b'k'; bytes]), expected);
    }
}
