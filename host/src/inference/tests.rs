use super::*;

fn inference() -> Arc<Inference> {
    let limits = InferenceLimits { memory_bytes_max: 100, model_bytes_max: 60, ..InferenceLimits::default() };
    Inference::new(limits, Processes::none(), Arc::default())
}

fn value(inference: &Inference, name: &str) -> u64 {
    inference.values().into_iter().find(|(key, _)| *key == name).expect("it is there").1
}

#[test]
fn a_model_is_kept_once_until_its_last_handle_is_gone() {
    let inference = inference();
    let keep = |byte: u8, len: usize| inference.door.keep(vec![byte; len].into());
    let (one, same) = (keep(1, 60).expect("there is room"), keep(1, 60).expect("it is there already"));
    assert_eq!((one.entry.id, value(&inference, "modelBytes")), (same.entry.id, 60));
    let error = keep(2, 41).expect_err("both are more than a process has memory");
    assert_eq!(error.kind, InferenceErrorKind::TooLarge);
    let other = keep(2, 40).expect("there is room");
    assert_ne!(other.entry.id, one.entry.id);
    drop(one);
    assert_eq!(value(&inference, "modelBytes"), 100, "there is another handle to it");
    drop(same);
    assert_eq!(value(&inference, "modelBytes"), 40);
    let again = keep(1, 60).expect("there is room again");
    assert_ne!(again.entry.id, other.entry.id);
    drop((other, again));
    assert_eq!(value(&inference, "modelBytes"), 0);
}

#[test]
fn tensors_of_a_tenant_are_bounded_together() {
    let inference = inference();
    let (one, other) = (inference.hold(30).expect("there is room"), inference.hold(30).expect("just enough"));
    assert_eq!(inference.hold(1).map(drop).map_err(|error| error.kind), Err(InferenceErrorKind::TooLarge));
    assert_eq!(
        inference.hold(u64::MAX).map(drop).map_err(|error| error.kind),
        Err(InferenceErrorKind::TooLarge)
    );
    drop(one);
    drop(inference.hold(30).expect("what was given back"));
    drop(other);
    drop(inference.hold(60).expect("all of it"));
}

#[test]
fn without_a_process_or_a_tenant_there_is_an_error() {
    let inference = inference();
    let load = || crate::guest::tests::ready(inference.load(Bytes::from_static(b"model")));
    assert_eq!(load().expect_err("nothing runs").text, "there is no process for models here");
    assert_eq!(inference.open(), 0);
    inference.close();
    assert_eq!(load().expect_err("nothing runs").text, "the tenant is gone");
    assert_eq!((value(&inference, "loads"), value(&inference, "failed")), (2, 2));
}
