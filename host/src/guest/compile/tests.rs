use std::{collections::BTreeSet, sync::Barrier, thread};

use super::*;
use crate::guest::{engine::PoolSize, tests::dummy};

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

#[test]
fn what_is_compiled_for_one_engine_is_not_there_for_one_with_other_settings() {
    let engines = Engines::new(PoolSize::small(2)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), &engines, Compiler::InProcess).unwrap();
    let bytes = dummy("export tidegate:operator/%map@0.1.0;");
    let digest = Digest::of(&bytes);
    let compile = |engine| cache.compile(engine, digest, Code::Whole(&bytes), CompileLimits::default());
    let has = || EngineKind::ALL.map(|engine| cache.has(engine, digest));
    let loads = || EngineKind::ALL.map(|engine| cache.load(&engines, engine, digest).is_ok());
    compile(EngineKind::Fuel).unwrap();
    assert_eq!((has(), loads()), ([true, false, true], [true, false, true]));
    compile(EngineKind::Epoch).unwrap();
    assert_eq!((has(), loads()), ([true; 3], [true; 3]));
    assert_eq!(cache.stats().compiles.get(), 2);
    compile(EngineKind::Large).unwrap();
    assert_eq!(cache.stats().compiles.get(), 2, "it is there for the engine `fuel`");
    // Nor does what is ours pass for what it is not.
    let (fuel, epoch) = (cache.paths(EngineKind::Fuel, digest), cache.paths(EngineKind::Epoch, digest));
    fs::copy(fuel.0, epoch.0).unwrap();
    fs::copy(fuel.1, epoch.1).unwrap();
    let error = cache.load(&engines, EngineKind::Epoch, digest).err();
    assert!(matches!(error, Some(CacheError::NotAuthentic { .. })), "{error:?}");
}
