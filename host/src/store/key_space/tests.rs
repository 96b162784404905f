use std::{
    collections::BTreeMap,
    pin::pin,
    sync::mpsc::RecvTimeoutError,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::store::Store;

/// Waits for what a thread of the store's answers, with a deadline.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Woken(mpsc::SyncSender<()>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            // One that was not seen yet is enough.
            let _ = self.0.try_send(());
        }
    }

    let (tx, woken) = mpsc::sync_channel(1);
    let waker = Waker::from(Arc::new(Woken(tx)));
    let mut future = pin!(future);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return ready;
        }
        match woken.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("it waits for ever"),
        }
    }
}

const WALL: Duration = Duration::from_secs(1_000_000);

fn at(seconds: u64) -> Duration {
    WALL + Duration::from_secs(seconds)
}

fn token(seconds: u64, counter: u64) -> Option<Version> {
    let node = "holder".into();
    Some(Version { seconds: WALL.as_secs() + seconds, nanos: 0, counter, node })
}

fn set(key: &str, value: &str) -> Set {
    let (key, value) = (key.into(), value.as_bytes().into());
    Set { key, value, condition: Condition::Unconditional, token: None, expires: None }
}

/// The same table over both: what keeps nothing, and what keeps all on disk.
fn both(check: impl Fn(&KeySpace)) {
    check(&KeySpace::memory(StateLimits::default()));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    check(&store.key_space("acme", "edge-1", StateLimits::default()));
}

fn value(space: &KeySpace, key: &str, wall: Duration) -> Option<String> {
    let record = wait(space.get(key.as_bytes(), wall)).unwrap();
    record.map(|record| String::from_utf8(record.value.to_vec()).unwrap())
}

/// What an answer says without its version.
fn said(answer: Result<Answer, StateError>) -> Result<&'static str, StateError> {
    Ok(match answer? {
        Answer::Done(_) => "done",
        Answer::Absent => "absent",
        Answer::Differs(_) => "differs",
    })
}

#[test]
fn values_are_written_on_their_condition() {
    use Condition::{OnlyIfAbsent, OnlyIfEqualOrAbsent, Unconditional};
    both(|space| {
        for (condition, before, written, expected, after) in [
            (Unconditional, None, "new", "done", "new"),
            (Unconditional, Some("old"), "new", "done", "new"),
            (OnlyIfAbsent, None, "new", "done", "new"),
            (OnlyIfAbsent, Some("old"), "new", "differs", "old"),
            (OnlyIfAbsent, Some("old"), "old", "differs", "old"),
            (OnlyIfEqualOrAbsent, None, "new", "done", "new"),
            (OnlyIfEqualOrAbsent, Some("old"), "old", "done", "old"),
            (OnlyIfEqualOrAbsent, Some("old"), "new", "differs", "old"),
        ] {
            wait(space.delete(b"k", None, None, WALL)).unwrap();
            if let Some(before) = before {
                wait(space.set(set("k", before), WALL)).unwrap();
            }
            let answer = wait(space.set(Set { condition, ..set("k", written) }, WALL));
            let case = format!("{condition:?} {before:?} {written}");
            assert_eq!(said(answer), Ok(expected), "{case}");
            assert_eq!(value(space, "k", WALL).as_deref(), Some(after), "{case}");
        }
    });
}

#[test]
fn values_are_deleted_if_they_are_as_expected() {
    both(|space| {
        for (before, expected_value, expected, is_left) in [
            (None, None, "absent", false),
            (Some("v"), None, "done", false),
            (None, Some("v"), "absent", false),
            (Some("v"), Some("v"), "done", false),
            (Some("v"), Some("w"), "differs", true),
        ] {
            wait(space.delete(b"k", None, None, WALL)).unwrap();
            if let Some(before) = before {
                wait(space.set(set("k", before), WALL)).unwrap();
            }
            let answer = wait(space.delete(b"k", expected_value.map(str::as_bytes), None, WALL));
            assert_eq!(said(answer), Ok(expected), "{before:?} {expected_value:?}");
            assert_eq!(value(space, "k", WALL).is_some(), is_left);
        }
    });
}

#[test]
fn values_are_gone_once_they_expire() {
    both(|space| {
        let expires = Some(Duration::from_secs(10));
        let with = |condition, expires| Set { condition, expires, ..set("k", "v") };
        wait(space.set(with(Condition::Unconditional, expires), at(0))).unwrap();
        assert_eq!(value(space, "k", at(9)).as_deref(), Some("v"));
        assert_eq!(value(space, "k", at(10)), None);
        assert_eq!(said(wait(space.delete(b"k", None, None, at(10)))), Ok("absent"));
        // What has expired is in nobody's way, whatever token it had.
        let guarded = Set { token: token(0, 0), ..with(Condition::Unconditional, expires) };
        wait(space.set(guarded, at(10))).unwrap();
        assert_eq!(said(wait(space.set(with(Condition::OnlyIfAbsent, None), at(20)))), Ok("done"));
        // Written again without an expiry, it stays; with one, it begins anew.
        assert_eq!(value(space, "k", at(1000)).as_deref(), Some("v"));
        for start in [0, 8] {
            let renewed = with(Condition::OnlyIfEqualOrAbsent, expires);
            assert_eq!(said(wait(space.set(renewed, at(1000 + start)))), Ok("done"));
        }
        assert_eq!(value(space, "k", at(1017)).as_deref(), Some("v"));
        assert_eq!(value(space, "k", at(1018)), None);
        let zero = with(Condition::Unconditional, Some(Duration::ZERO));
        assert_eq!(said(wait(space.set(zero, at(0)))), Err(StateError::ExpiryZero));
    });
}

#[test]
fn only_the_newest_fencing_token_may_change_a_key() {
    both(|space| {
        let cases = [
            (None, None, Ok("done")),
            (None, token(5, 0), Ok("done")),
            (token(5, 1), token(5, 1), Ok("done")),
            (token(5, 1), token(5, 2), Ok("done")),
            (token(5, 1), token(6, 0), Ok("done")),
            (token(5, 1), token(5, 0), Err(StateError::TokenStale)),
            (token(5, 1), token(4, 9), Err(StateError::TokenStale)),
            (token(5, 1), None, Err(StateError::TokenMissing)),
            (None, token(61, 0), Err(StateError::TokenAhead)),
            (None, token(60, 0), Ok("done")),
        ];
        for (held, given, expected) in cases {
            let case = format!("{held:?} {given:?}");
            for delete in [false, true] {
                // With a token of its own: one that would free it is not known.
                let key = format!("{case}{delete}");
                wait(space.set(Set { token: held.clone(), ..set(&key, "before") }, WALL)).unwrap();
                let answer = if delete {
                    wait(space.delete(key.as_bytes(), None, given.as_ref(), WALL))
                } else {
                    wait(space.set(Set { token: given.clone(), ..set(&key, "after") }, WALL))
                };
                assert_eq!(said(answer), expected, "{case}, delete: {delete}");
                let left = match (&expected, delete) {
                    (Err(_), _) => Some("before"),
                    (Ok(_), true) => None,
                    (Ok(_), false) => Some("after"),
                };
                assert_eq!(value(space, &key, WALL).as_deref(), left, "{case}");
            }
        }
        // Deleted with its token, a key is anybody's.
        wait(space.set(Set { token: token(5, 1), ..set("k", "v") }, WALL)).unwrap();
        wait(space.delete(b"k", None, token(5, 1).as_ref(), WALL)).unwrap();
        assert_eq!(said(wait(space.set(set("k", "v"), WALL))), Ok("done"));
        // Reading needs none.
        wait(space.set(Set { token: token(5, 1), ..set("r", "v") }, WALL)).unwrap();
        assert_eq!(value(space, "r", WALL).as_deref(), Some("v"));
    });
}

#[test]
fn versions_grow_even_where_the_clock_stands_still() {
    both(|space| {
        let mut last = None;
        for wall in [at(1), at(1), at(0), at(2)] {
            let Answer::Done(version) = wait(space.set(set("k", "v"), wall)).unwrap() else { panic!() };
            let read = wait(space.get(b"k", wall)).unwrap().unwrap();
            assert_eq!(read.version, version);
            assert!(Some(&version) > last.as_ref(), "{version:?} after {last:?}");
            last = Some(version);
        }
    });
}

#[test]
fn limits_refuse_and_are_counted() {
    let limits = StateLimits { keys_max: 2, bytes_max: 20, value_bytes_max: 10 };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for space in [KeySpace::memory(limits), store.key_space("acme", "edge-1", limits)] {
        let steps = [
            ("a", "0123456789", Ok("done")),
            ("a", "0123456789x", Err(StateError::ValueTooLarge { bytes: 11, bytes_max: 10 })),
            ("b", "0123456789", Err(StateError::TooManyBytes { bytes_max: 20 })),
            ("b", "01234567", Ok("done")),
            ("c", "", Err(StateError::TooManyKeys { keys_max: 2 })),
            // Less is always allowed, and makes room.
            ("b", "0", Ok("done")),
            ("a", "0123456789", Ok("done")),
        ];
        for (key, value, expected) in steps {
            assert_eq!(said(wait(space.set(set(key, value), WALL))), expected, "{key} {value}");
        }
        assert_eq!(said(wait(space.set(set("", "v"), WALL))), Err(StateError::KeyEmpty));
        let long = "k".repeat(5000);
        assert_eq!(wait(space.get(long.as_bytes(), WALL)), Err(StateError::KeyTooLong { bytes: 5000 }));
        assert_eq!(space.refused(), 4);
        assert_eq!(space.usage(), Some(Usage { keys: 2, bytes: 13 }));
    }
}

#[test]
fn what_has_expired_makes_room_on_disk_and_in_memory() {
    let limits = StateLimits { keys_max: 3, ..StateLimits::default() };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for space in [KeySpace::memory(limits), store.key_space("acme", "edge-1", limits)] {
        for (key, seconds) in [("a", 10), ("b", 10), ("c", 100)] {
            let expires = Some(Duration::from_secs(seconds));
            wait(space.set(Set { expires, ..set(key, "v") }, at(0))).unwrap();
        }
        assert!(wait(space.flushed(space.last_change())));
        let refused = Err(StateError::TooManyKeys { keys_max: 3 });
        assert_eq!(said(wait(space.set(set("d", "v"), at(9)))), refused);
        assert_eq!(said(wait(space.set(set("d", "v"), at(11)))), Ok("done"));
        assert_eq!(space.usage().map(|usage| usage.keys), Some(2));
        assert_eq!(value(&space, "c", at(11)).as_deref(), Some("v"));
    }
}

#[test]
fn two_tenants_write_the_same_key_and_neither_sees_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let space = |tenant| store.key_space(tenant, "edge-1", StateLimits::default());
    // The one's name begins as the other's does.
    let (acme, other) = (space("acme"), space("acmek"));
    wait(acme.set(set("k", "of acme"), WALL)).unwrap();
    assert_eq!(value(&other, "k", WALL), None);
    wait(other.set(set("k", "of the other"), WALL)).unwrap();
    wait(other.set(set("kk", "more"), WALL)).unwrap();
    assert!(wait(acme.flushed(acme.last_change())) && wait(other.flushed(other.last_change())));
    drop((acme, other));
    let (acme, other) = (space("acme"), space("acmek"));
    assert_eq!(value(&acme, "k", WALL).as_deref(), Some("of acme"));
    assert_eq!(value(&acme, "kk", WALL), None);
    assert_eq!(value(&other, "k", WALL).as_deref(), Some("of the other"));
    wait(acme.delete(b"k", None, None, WALL)).unwrap();
    assert_eq!(value(&other, "k", WALL).as_deref(), Some("of the other"));
    assert_eq!(acme.usage(), Some(Usage::default()));
    assert_eq!(other.usage(), Some(Usage { keys: 2, bytes: 1 + 12 + 2 + 4 }));
}

#[test]
fn what_was_flushed_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let expires = Some(Duration::from_secs(10));
    {
        let store = Store::open(dir.path()).unwrap();
        let space = store.key_space("acme", "edge-1", StateLimits::default());
        for number in 0..3000 {
            let key = format!("key {number}");
            let value = format!("{number}").repeat(100);
            wait(space.set(set(&key, &value), WALL)).unwrap();
        }
        wait(space.set(Set { token: token(5, 1), expires, ..set("guarded", "v") }, WALL)).unwrap();
        wait(space.delete(b"key 7", None, None, WALL)).unwrap();
        assert!(wait(space.flushed(space.last_change())));
        // More than fits in memory is read from the disk.
        assert_eq!(value(&space, "key 0", WALL).as_deref(), Some("0".repeat(100).as_str()));
        assert_eq!(value(&space, "key 7", WALL), None);
    }
    let store = Store::open(dir.path()).unwrap();
    let space = store.key_space("acme", "edge-1", StateLimits::default());
    assert_eq!(value(&space, "key 2999", WALL).as_deref(), Some("2999".repeat(100).as_str()));
    assert_eq!(value(&space, "key 7", WALL), None);
    assert_eq!(space.usage().map(|usage| usage.keys), Some(3000));
    assert_eq!(said(wait(space.set(set("guarded", "w"), WALL))), Err(StateError::TokenMissing));
    assert_eq!(value(&space, "guarded", at(10)), None);
}

#[test]
fn a_store_that_closes_lets_nobody_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let space = store.key_space("acme", "edge-1", StateLimits::default());
    wait(space.set(set("k", "v"), WALL)).unwrap();
    let change = space.last_change();
    drop(store);
    // Closing wrote it.
    assert!(wait(space.flushed(change)));
    wait(space.set(set("k", "w"), WALL)).unwrap();
    assert!(!wait(space.flushed(space.last_change())));
    assert_eq!(wait(space.get(b"other", WALL)), Err(StateError::Unreadable));
}

/// Keys that memory holds once these were asked for, one after the other, of 100 on disk.
fn held_after(asked: &[u32], value: &str) -> Vec<u32> {
    let dir = tempfile::tempdir().unwrap();
    let name = |number: u32| format!("k{number:03}");
    {
        let store = Store::open(dir.path()).unwrap();
        let space = store.key_space("acme", "edge-1", StateLimits::default());
        (0..100).for_each(|number| _ = wait(space.set(set(&name(number), value), WALL)).unwrap());
        // Another tenant's are never read along.
        let next = store.key_space("bcme", "edge-1", StateLimits::default());
        wait(next.set(set("k000", value), WALL)).unwrap();
        store.flush().unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    let space = store.key_space("acme", "edge-1", StateLimits::default());
    for number in asked {
        assert!(wait(space.get(name(*number).as_bytes(), WALL)).unwrap().is_some());
    }
    let mut cells = space.space.cells();
    let held = (0..100).filter(|number| cells.find(name(*number).as_bytes()).is_some()).collect();
    assert!(cells.cached.len() <= 100, "nothing of another tenant's");
    held
}

#[test]
fn keys_that_are_read_in_order_are_read_ahead() {
    let large = "x".repeat(20 << 10);
    for (asked, value, held) in [
        // What is asked for once is not kept, and twice it is.
        (&[7][..], "v", vec![]),
        (&[7, 7], "v", vec![7]),
        (&[7, 9, 7, 9], "v", vec![7, 9]),
        // The second was to be expected.
        (&[7, 8], "v", (9..=12).collect()),
        (&[7, 8, 9, 10, 11, 12], "v", (9..=12).collect()),
        (&[7, 8, 13], "v", (14..=21).collect()),
        (&[95, 96], "v", (97..=99).collect()),
        (&[7, 9, 8], "v", vec![]),
        (&[7, 6, 5], "v", vec![]),
        // Bounded in bytes too.
        (&[7, 8], &large, (9..=11).collect()),
    ] {
        assert_eq!(held_after(asked, value), held, "{asked:?}");
    }
}

/// More than memory holds, written and read while the store writes and reads: each answer
/// is of the last change, and so is what the next run finds.
#[test]
fn a_key_is_what_it_was_made_last_whatever_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    for _run in 0..3 {
        let store = Store::open(dir.path()).unwrap();
        let space = store.key_space("acme", "edge-1", StateLimits::default());
        let mut next = 0;
        for step in 0..6_000_u32 {
            // In order, so that they are read ahead, or any.
            next = if rng.random_bool(0.7) { (next + 1) % 200 } else { rng.random_range(0..200) };
            let key = format!("k{next:03}");
            if rng.random_bool(0.6) {
                assert_eq!(value(&space, &key, WALL), model.get(&key).cloned(), "{key} at step {step}");
            } else if rng.random_bool(0.8) {
                let text = format!("{step} {}", "x".repeat(4_000));
                wait(space.set(set(&key, &text), WALL)).unwrap();
                model.insert(key, text);
            } else {
                wait(space.delete(key.as_bytes(), None, None, WALL)).unwrap();
                model.remove(&key);
            }
            if rng.random_bool(0.02) {
                assert!(wait(space.flushed(space.last_change())));
            }
        }
    }
}
