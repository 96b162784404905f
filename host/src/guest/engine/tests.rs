use super::*;

#[test]
fn a_pool_past_the_kernels_limit_is_refused_with_what_would_fit() {
    let size = PoolSize { slots: 10_000, components: 2_000, ..PoolSize::default() };
    let Err(EngineError::TooManyMaps { needed, fit, .. }) = size.check(65_530) else {
        panic!("10,000 slots do not fit the default limit");
    };
    assert_eq!(needed, 71_000);
    assert!(PoolSize { slots: fit as u32, ..size }.check(65_530).is_ok());
    assert!(PoolSize { slots: fit as u32 + 1, ..size }.check(65_530).is_err());
    assert!(size.check(1 << 20).is_ok());
    assert!(PoolSize::default().check(65_530).is_ok());
}
