use super::*;

#[test]
fn a_pool_past_the_kernels_limit_is_refused_with_what_would_fit() {
    let of = |fuel| PoolSize { slots: PerEngine { fuel, large: 32 }, components: 2_000 };
    let size = of(10_000);
    let Err(EngineError::TooManyMaps { needed, fit, .. }) = size.check(65_530) else {
        panic!("10,000 slots do not fit the default limit");
    };
    assert_eq!(needed, 71_192);
    assert!(of(fit as u32).check(65_530).is_ok());
    assert!(of(fit as u32 + 1).check(65_530).is_err());
    assert!(size.check(1 << 20).is_ok());
    assert!(PoolSize::default().check(65_530).is_ok());
}

#[test]
fn what_is_compiled_once_every_engine_loads() {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let hash = |engine: &Engine| {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    };
    let engines = Engines::new(PoolSize::small(2)).expect("a small pool fits");
    let compiling = hash(&compiling().expect("it has no pool"));
    assert_eq!(EngineKind::ALL.map(|kind| hash(engines.of(kind))), [compiling; 2]);
}
