use std::{collections::BTreeSet, sync::Barrier, thread};

use super::*;

#[test]
fn all_who_open_a_folder_at_once_have_one_key() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let at_once = Barrier::new(8);
        let keys: BTreeSet<[u8; 32]> = thread::scope(|scope| {
            let open = || {
                at_once.wait();
                read_or_make_key(&path).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(keys.len(), 1);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["key"]);
    }
}
