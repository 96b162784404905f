use super::*;
use crate::batch::BatchBuilder;
use proptest::prelude::*;

const WALL: Duration = Duration::from_millis(1_700_000_000_000);

#[test]
fn times_are_read_leniently_and_nonsense_is_not() {
    for (text, expected) in [
        ("001700000000000:00007:df", Some((1_700_000_000_000, 7, "df"))),
        ("1700000000000:0:df", Some((1_700_000_000_000, 0, "df"))),
        ("1:2:a:b", Some((1, 2, "a:b"))),
        ("1:2:", Some((1, 2, ""))),
        ("1:2", None),
        ("x:2:a", None),
        ("-1:2:a", None),
        ("99999999999999999999:0:a", None),
        ("", None),
    ] {
        let parsed = parse(text.as_bytes());
        let expected = expected.map(|(ms, counter, node)| (Point { ms, counter }, node.as_bytes()));
        assert_eq!(parsed, expected, "{text}");
    }
}

#[test]
fn the_clock_never_goes_back_and_follows_others_within_the_drift() {
    let mut hlc = Hlc::default();
    let first = hlc.tick(WALL);
    let second = hlc.tick(WALL - Duration::from_secs(5));
    assert!(second > first);
    let ahead = Point { ms: WALL.as_millis() as u64 + 59_000, counter: 3 };
    hlc.observe(ahead, WALL);
    assert!(hlc.tick(WALL) > ahead);
    let lost = Point { ms: WALL.as_millis() as u64 + 61_000, counter: 0 };
    hlc.observe(lost, WALL);
    assert!(hlc.tick(WALL) < lost);
}

#[test]
fn a_delivery_is_stamped_from_its_own_times_or_the_hosts() {
    let mut builder = BatchBuilder::new("edge-1");
    builder.push(b"t", None, b"", [(b"a".as_slice(), b"b".as_slice()), (b"__ts", b"1699999999123:4:sensor")]);
    builder.push(b"t", None, b"", []);
    builder.push(b"t", None, b"", [(b"__ts".as_slice(), b"nonsense".as_slice())]);
    for ms in [WALL.as_millis() + 60_000, WALL.as_millis() + 60_001, u128::from(u64::MAX) / 3_000_000] {
        builder.push(b"t", None, b"", [(b"__ts".as_slice(), format!("{ms}:9:fast").as_bytes())]);
    }
    let mut batch = builder.finish();
    let amended = Hlc::default().stamp(&mut batch, WALL);
    assert_eq!(amended, Amended { ahead: 2, unreadable: 1 });
    let read = |index: usize| {
        let entry = &batch.entries[index];
        let node = std::str::from_utf8(entry.node.bytes(&batch.arena)).expect("UTF-8");
        (entry.seconds, entry.nanos, entry.counter, node.to_owned())
    };
    assert_eq!(read(0), (1_699_999_999, 123_000_000, 4, "sensor".into()));
    assert_eq!(read(1), (1_700_000_000, 0, 0, "edge-1".into()));
    assert_eq!(read(2), (1_700_000_000, 0, 1, "edge-1".into()));
    assert_eq!(read(3), (1_700_000_060, 0, 9, "fast".into()));
    assert_eq!(read(4), (1_700_000_060, 0, 0, "fast".into()));
    assert_eq!(read(5), (1_700_000_060, 0, 0, "fast".into()));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(ms in 0..u64::MAX / 3_000_000, counter: u64, node in "[a-z0-9:]{0,12}") {
        let mut builder = BatchBuilder::new(&node);
        builder.push(b"t", None, b"", []);
        let mut batch = builder.finish();
        let entry = &mut batch.entries[0];
        (entry.seconds, entry.nanos, entry.counter) = (ms / 1000, (ms % 1000) as u32 * 1_000_000, counter);
        let entry = batch.entries[0];
        let mut out = BytesMut::new();
        format(&entry, &batch.arena, &mut out);
        prop_assert_eq!(out.len(), formatted_len(&entry));
        prop_assert_eq!(parse(&out), Some((Point { ms, counter }, node.as_bytes())));
    }
}
