use std::{
    thread,
    time::{Duration, Instant},
};

use wasmtime::{Config, Instance, Module, Store, UpdateDeadline};

use super::*;

fn engine() -> Engine {
    Engine::new(Config::new().epoch_interruption(true)).expect("it needs nothing")
}

/// Ticks that an endless loop sees in `time`, on this thread.
fn ticks(engine: &Engine, time: Duration) -> u64 {
    prepare().expect("a timer");
    let text = r#"(module (func (export "spin") (loop (br 0))))"#;
    let module = Module::new(engine, wat::parse_str(text).expect("a module")).expect("it compiles");
    let mut store = Store::new(engine, 0_u64);
    let until = Instant::now() + time;
    store.epoch_deadline_callback(move |mut store| {
        *store.data_mut() += 1;
        Ok(if Instant::now() < until { UpdateDeadline::Continue(1) } else { UpdateDeadline::Interrupt })
    });
    store.set_epoch_deadline(1);
    let instance = Instance::new(&mut store, &module, &[]).expect("it imports nothing");
    let spin = instance.get_typed_func::<(), ()>(&mut store, "spin").expect("it is exported");
    let _ticking = ticking(engine);
    spin.call(&mut store, ()).expect_err("it spins until it is interrupted");
    *store.data()
}

#[test]
fn an_endless_loop_is_interrupted_again_and_again() {
    let engine = engine();
    // Of 200 that there may be; other tests keep the cores.
    let seen = ticks(&engine, Duration::from_millis(20));
    assert!((2..=210).contains(&seen), "{seen} ticks in 20 ms");
}

#[test]
fn threads_that_share_an_engine_are_all_interrupted() {
    let engine = engine();
    thread::scope(|scope| {
        let spin = || ticks(&engine, Duration::from_millis(20));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(spin)).collect();
        for thread in threads {
            assert!(thread.join().expect("it does not panic") >= 2);
        }
    });
}

#[test]
fn the_first_signal_that_finds_no_guest_stops_the_timer_until_the_next() {
    prepare().expect("a timer");
    drop(ticking(&engine()));
    let until = Instant::now() + Duration::from_secs(10);
    while IS_ARMED.with(|armed| armed.load(Ordering::SeqCst)) {
        assert!(Instant::now() < until, "it was never stopped");
        std::hint::spin_loop();
    }
    assert!(ENGINE.with(|current| current.load(Ordering::SeqCst)).is_null());
    assert!(ticks(&engine(), Duration::from_millis(5)) >= 1);
}

#[test]
fn a_thread_with_short_slices_keeps_its_nice_value() {
    std::thread::spawn(|| {
        let this = Some(rustix::thread::gettid());
        rustix::process::setpriority_process(this, 3).expect("who is nicer needs no right");
        shorten_slices().expect("Linux takes it, whether it heeds it or not");
        assert_eq!(rustix::process::getpriority_process(this), Ok(3));
    })
    .join()
    .expect("it holds");
}
