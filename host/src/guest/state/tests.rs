use super::*;

fn state() -> GuestState {
    let bounds = Bounds { memory_bytes_max: 1 << 20, hostcall_bytes_max: 1 << 20 };
    GuestState::new(
        "a/b/c",
        bounds,
        Clock::Virtual(Arc::default()),
        Timers::default(),
        1,
        crate::tenant::Tenant::new("acme", Default::default()),
        Arc::default(),
    )
}

#[test]
fn host_calls_and_their_bytes_are_counted_for_each_call() {
    let mut state = state();
    for _ in 0..2 {
        for _ in 0..HOST_CALLS_MAX {
            state.charge(Interface::Wasi, 0).unwrap();
        }
        assert!(state.charge(Interface::Wasi, 0).is_err());
        state.begin_call(1, u64::MAX);
        state.charge(Interface::Wasi, HOST_CALL_BYTES_MAX).unwrap();
        assert!(state.charge(Interface::Wasi, 1).is_err());
        state.begin_call(1, u64::MAX);
    }
}

#[test]
fn a_state_is_small_enough_to_have_thousands_of() {
    let bytes = size_of::<GuestState>();
    assert!(bytes <= 640, "{bytes} bytes");
}

#[test]
fn memory_is_bounded_over_all_that_an_instance_has() {
    let mut state = state();
    let mut grow = |current, desired| state.memory_growing(current, desired, None).unwrap();
    assert!(grow(0, 600 << 10));
    assert!(!grow(0, 600 << 10), "a second memory, past the limit of both");
    assert!(grow(0, 400 << 10));
    assert!(grow(600 << 10, 624 << 10));
    assert!(!grow(400 << 10, 401 << 10));
    assert!(state.memory_refused().is_some());
}
