use super::*;

#[test]
fn a_pool_past_the_kernels_limit_is_refused_with_what_would_fit() {
    let of = |fuel| PoolSize {
        slots: PerEngine { fuel, epoch: 0, large: 32 },
        components: 2_000,
        layout: PoolLayout::Guarded,
    };
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
fn a_dense_pool_has_room_for_three_times_as_many() {
    let of =
        |layout, fuel| PoolSize { slots: PerEngine { fuel, epoch: 4, large: 4 }, components: 2_000, layout };
    let fits = |layout, fuel| of(layout, fuel).check(65_530).is_ok();
    assert!(fits(PoolLayout::Dense, 25_000) && !fits(PoolLayout::Dense, 30_000));
    assert!(fits(PoolLayout::Guarded, 9_000) && !fits(PoolLayout::Guarded, 25_000));
    let said = |layout, fuel| of(layout, fuel).check(65_530).expect_err("too many").to_string();
    let (guarded, dense) = (said(PoolLayout::Guarded, 25_000), said(PoolLayout::Dense, 30_000));
    for (words, guarded_says, dense_says) in [
        ("lower `slots.fuel` to 9080, or `slots.epoch`, in the Host resource", true, false),
        ("lower `slots.fuel` to 27249, or `slots.epoch`, in the Host resource", false, true),
        ("pool: dense", true, false),
        ("`slots: { fuel: 25000, epoch: 4, large: 4 }`", true, false),
    ] {
        let says = (guarded.contains(words), dense.contains(words));
        assert_eq!(says, (guarded_says, dense_says), "{words}: {guarded} {dense}");
    }
    let others = PoolSize { components: 30_000, ..of(PoolLayout::Dense, 1) };
    let said = others.check(65_530).expect_err("too many").to_string();
    assert!(said.contains("lower `slots.epoch`, `slots.large` or `components` in the Host"), "{said}");
}

/// Fills all the memory that it can get with a byte other than 0, and gives how many bytes
/// it found to be other than 0 before.
const PAINTER: &str = r#"(module
    (memory (export "memory") PAGES 64)
    (func (export "paint") (result i32)
        (local $at i32) (local $found i32)
        (loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (loop $look
            (if (i32.load8_u (local.get $at))
                (then (local.set $found (i32.add (local.get $found) (i32.const 1)))))
            (i32.store8 (local.get $at) (i32.const 165))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $look (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
        (local.get $found)))"#;

#[test]
fn whoever_gets_a_slot_finds_nothing_of_whoever_had_it() {
    for layout in PoolLayout::ALL {
        for kind in [EngineKind::Fuel, EngineKind::Epoch] {
            let engine = running(kind, 1, layout).expect("one slot");
            // The few pages of one, and then all pages of another, in one slot.
            for pages in ["64", "1", "64", "2", "1"] {
                let text = PAINTER.replace("PAGES", pages);
                let module = wasmtime::Module::new(&engine, wat::parse_str(text).expect("a module"))
                    .expect("it compiles");
                let mut store = wasmtime::Store::new(&engine, ());
                if kind.counts_fuel() {
                    store.set_fuel(u64::MAX).expect("it counts fuel");
                } else {
                    store.set_epoch_deadline(1);
                }
                let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("one slot is free");
                let memory = instance.get_memory(&mut store, "memory").expect("it is exported");
                let first: usize = pages.parse().expect("a number");
                assert_eq!(memory.data_size(&store), first << 16, "{layout:?} {kind:?}");
                let paint = instance.get_typed_func::<(), i32>(&mut store, "paint").expect("exported");
                assert_eq!(paint.call(&mut store, ()).expect("it ends"), 0, "{layout:?} {kind:?} {pages}");
                assert_eq!(memory.data_size(&store), 4 << 20, "{layout:?} {kind:?}");
            }
        }
    }
}

#[test]
fn an_access_outside_of_a_memory_without_guards_is_a_trap_and_not_a_neighbour_s_byte() {
    let engine = running(EngineKind::Fuel, 4, PoolLayout::Dense).expect("four slots");
    let text = r#"(module
        (memory 64 64)
        (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
        (func (export "peek_far") (param i32) (result i32) (i32.load8_u offset=4194304 (local.get 0))))"#;
    let module =
        wasmtime::Module::new(&engine, wat::parse_str(text).expect("a module")).expect("it compiles");
    // A neighbour on either side.
    let stores: Vec<_> = (0..3)
        .map(|_| {
            let mut store = wasmtime::Store::new(&engine, ());
            store.set_fuel(1_000_000).expect("it counts fuel");
            let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("a slot is free");
            (store, instance)
        })
        .collect();
    for (mut store, instance) in stores {
        let mut peek = |name: &str, at: i32| {
            let peek = instance.get_typed_func::<i32, i32>(&mut store, name).expect("exported");
            peek.call(&mut store, at).map_err(|error| error.downcast::<wasmtime::Trap>().expect("a trap"))
        };
        assert_eq!(peek("peek", (4 << 20) - 1), Ok(0));
        for (name, at) in
            [("peek", 4 << 20), ("peek", 8 << 20), ("peek", -1), ("peek_far", 0), ("peek_far", -1)]
        {
            assert_eq!(peek(name, at), Err(wasmtime::Trap::MemoryOutOfBounds), "{name} {at}");
        }
    }
}

#[test]
fn an_engine_loads_what_is_compiled_for_its_tuning_alone() {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let hash = |engine: &Engine| {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    };
    let engines = Engines::new(PoolSize::small(2)).expect("a small pool fits");
    let compiled = |tuning| hash(&compiling(tuning).expect("it has no pool"));
    for kind in EngineKind::ALL {
        for tuning in Tuning::ALL {
            let loads = hash(engines.of(kind)) == compiled(tuning);
            assert_eq!(loads, tuning == engines.tuning(kind), "{kind:?} {tuning:?}");
        }
    }
}
