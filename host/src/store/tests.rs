use super::*;

#[test]
fn positions_outlive_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.position("a/b/c").expect("reads"), 0);
    store.set_position("a/b/c", 42).expect("writes");
    store.flush().expect("flushes");
    drop(store);
    let store = Store::open(dir.path()).expect("opens again");
    assert_eq!(store.position("a/b/c").expect("reads"), 42);
    assert_eq!(store.position("a/b").expect("reads"), 0);
}
