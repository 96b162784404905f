use super::*;
use crate::{guest::component::Digest, resource::diagnostic::SourceFile};

fn at(bytes: u64) -> Position {
    Position { bytes, inode: 7, head: Head::of(b"begin", bytes) }
}

#[test]
fn positions_outlive_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.position("a/b/c"), Position::default());
    store.set_position("a/b/c", at(42));
    store.set_position("a/b/gone", at(1));
    store.flush().expect("flushes");
    store.forget_position("a/b/gone");
    store.set_position("a/b/c", at(43));
    drop(store);
    let store = Store::open(dir.path()).expect("opens again");
    assert_eq!(store.position("a/b/c"), at(43));
    assert_eq!(store.position("a/b/gone"), Position::default());
    assert_eq!(store.position("a/b"), Position::default());
}

#[test]
fn a_snapshot_that_a_full_disk_or_a_kill_cut_off_costs_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    for (round, len) in [(1, 0), (2, 12), (3, 100)] {
        let store = Store::open(dir.path()).expect("opens");
        store.set_position("a/b/c", at(round));
        store.flush().expect("flushes");
        drop(store);
        // As sled names one of which it has not written all.
        let half = dir.path().join("snap.FFFFFFFFFFFFFFFF.generating");
        std::fs::write(half, vec![7; len]).expect("a file");
        let store = Store::open(dir.path()).expect("opens beside half a snapshot");
        assert_eq!(store.position("a/b/c"), at(round));
    }
}

#[test]
fn a_large_value_that_could_not_be_written_stops_no_database_of_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("store");
    let store = Store::open(&dir).expect("opens");
    store.set_position("a/b/c", at(42));
    store.flush().expect("flushes");
    // Where sled puts each large value, in a file.
    std::fs::remove_dir_all(dir.join("blobs")).expect("it was there");
    let (sender, done) = mpsc::channel();
    // In a thread of its own: what fails here waits for ever.
    std::thread::spawn(move || {
        let large = |database: &Database| database.state.insert("large", vec![7; 1 << 20]).map(drop);
        store.with(large).expect("the second time it is opened anew");
        store.set_position("a/b/c", at(43));
        store.flush().expect("flushes");
        let other = Database::open(&folder.path().join("other")).expect("opens");
        other.state.apply_batch(sled::Batch::default()).expect("nobody is in the way");
        drop((store, other));
        sender.send((Store::open(&dir).expect("opens").position("a/b/c"), folder)).expect("it is awaited");
    });
    let (position, _folder) = done.recv_timeout(Duration::from_secs(60)).expect("it does not hang");
    assert_eq!(position, at(43));
}

#[test]
fn a_position_of_another_form_is_the_beginning() {
    for bytes in [&b""[..], &42_u64.to_le_bytes(), &[0; 27]] {
        assert_eq!(Position::from_bytes(bytes), Position::default());
    }
    assert_eq!(Position::from_bytes(&at(9).to_bytes()), at(9));
}

#[test]
fn a_head_tells_a_file_from_another() {
    let head = Head::of(b"one\ntwo\n", 4);
    for (begin, fits) in [("one\n", true), ("one\nthree\n", true), ("one", false), ("two\n", false)] {
        assert_eq!(head.fits(begin.as_bytes()), fits, "{begin:?}");
    }
}

#[test]
fn a_name_is_drawn_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.host_name(|| "first".into()).expect("drawn"), "first");
    drop(store);
    let store = Store::open(dir.path()).expect("opens again");
    assert_eq!(store.host_name(|| "second".into()).expect("kept"), "first");
}

/// A site of one text and one component, both saying `what`.
fn snapshot(data: &Path, what: &str) -> Snapshot {
    let component = data.join("component.wasm");
    std::fs::write(&component, what).expect("the folder can be written");
    let mut snapshot = Snapshot { dir: "/site".into(), ..Snapshot::default() };
    for (path, text) in [("platform/all.yaml", what), ("platform/same.yaml", "same")] {
        snapshot.texts.push(Arc::new(SourceFile { path: path.into(), text: text.into() }));
    }
    snapshot.add_component_as_it_is(data, &component).expect("it can be read");
    snapshot
}

fn keep(store: &Store, data: &Path, snapshot: Snapshot) -> Result<(), AppliedError> {
    store.sweep_applied(store.keep_applied(store.stage_applied(data, snapshot)?)?);
    Ok(())
}

#[test]
fn what_was_applied_last_is_laid_out_again_and_what_was_before_is_gone() {
    let data = tempfile::tempdir().expect("a folder");
    let store = Store::open(&data.path().join("store")).expect("opens");
    assert!(store.lay_out_applied(data.path()).expect("reads").is_none());
    for what in ["first", "second"] {
        keep(&store, data.path(), snapshot(data.path(), what)).expect("kept");
    }
    drop(store);
    let store = Store::open(&data.path().join("store")).expect("opens again");
    // Twice: the second time over what lies there.
    for _ in 0..2 {
        let (dir, home) = store.lay_out_applied(data.path()).expect("reads").expect("there is one");
        assert_eq!(home, Path::new("/site"));
        let read = |path: &str| std::fs::read_to_string(dir.join(path)).expect("it is laid out");
        let all = ["platform/all.yaml", "platform/same.yaml", "component.wasm"].map(read);
        assert_eq!(all, ["second", "same", "second"]);
    }
    let blobs = std::fs::read_dir(data.path().join("blobs/sha256")).expect("it is there").count();
    assert_eq!(blobs, 1);
    let texts = store.with(|database| Ok(database.files.len())).expect("reads");
    assert_eq!(texts, 2);
}

#[test]
fn a_component_that_is_no_longer_the_one_that_was_checked_is_not_kept() {
    let data = tempfile::tempdir().expect("a folder");
    let store = Store::open(&data.path().join("store")).expect("opens");
    keep(&store, data.path(), snapshot(data.path(), "first")).expect("kept");
    let changed = snapshot(data.path(), "second");
    std::fs::write(data.path().join("component.wasm"), "third").expect("the folder can be written");
    let error = keep(&store, data.path(), changed).expect_err("it changed");
    assert!(error.to_string().contains("changed while it was applied"), "{error}");
    let (dir, _) = store.lay_out_applied(data.path()).expect("reads").expect("the first is in force");
    assert_eq!(std::fs::read_to_string(dir.join("platform/all.yaml")).expect("laid out"), "first");
}

#[test]
fn a_damaged_component_is_said_and_not_run() {
    let data = tempfile::tempdir().expect("a folder");
    let store = Store::open(&data.path().join("store")).expect("opens");
    keep(&store, data.path(), snapshot(data.path(), "first")).expect("kept");
    for entry in std::fs::read_dir(data.path().join("blobs/sha256")).expect("it is there").flatten() {
        std::fs::write(entry.path(), "other").expect("the folder can be written");
    }
    let error = store.lay_out_applied(data.path()).expect_err("it is damaged");
    assert!(error.to_string().starts_with("what was applied is damaged: the component component.wasm"));
}

#[test]
fn half_a_component_that_a_power_failure_left_is_written_again() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().join("blobs/sha256");
    let half = folder.join(Digest::of(b"first").to_string());
    std::fs::create_dir_all(&folder).expect("the folder can be written");
    std::fs::write(&half, "fir").expect("the folder can be written");
    let store = Store::open(&data.path().join("store")).expect("opens");
    keep(&store, data.path(), snapshot(data.path(), "first")).expect("kept");
    assert_eq!(std::fs::read(&half).expect("it is there"), b"first");
}

#[test]
fn a_component_that_went_and_comes_back_is_written_again() {
    let data = tempfile::tempdir().expect("a folder");
    let store = Store::open(&data.path().join("store")).expect("opens");
    for what in ["first", "second", "first"] {
        store.stage_ahead(data.path(), Digest::of(what.as_bytes()), what.as_bytes());
        keep(&store, data.path(), snapshot(data.path(), what)).expect("kept");
        let (dir, _) = store.lay_out_applied(data.path()).expect("reads").expect("it is in force");
        assert_eq!(std::fs::read_to_string(dir.join("component.wasm")).expect("laid out"), what);
    }
}

#[test]
fn a_database_may_be_opened_as_soon_as_it_is_closed_and_no_sooner() {
    let dir = tempfile::tempdir().expect("a folder");
    for _ in 0..5 {
        let open = Store::open(dir.path()).expect("nobody has it");
        let closing = std::thread::spawn(move || drop(open));
        drop(Store::open(dir.path()).expect("it is let go of"));
        closing.join().expect("it is closed");
    }
    let _open = Store::open(dir.path()).expect("nobody has it");
    let error = Store::open(dir.path()).expect_err("somebody has it");
    assert!(matches!(error, StoreError::Database { .. }), "{error}");
}
