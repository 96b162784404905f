//! Instance reuse never shows one tenant another's bytes: one paints all that it has in every
//! slot of a pool, and whoever has the slots next looks for the paint.

use std::sync::{Arc, atomic::Ordering};

use tidegate::{
    clock::Clock,
    dataflow::shard::Command,
    guest::{
        OperatorKind::Map,
        compile::{Cache, Compiler},
        component::Components,
        engine::{Engines, PoolSize, SLOTS_PER_INSTANCE_MAX},
    },
    resource::{EngineKind, Limits, PerEngine},
    tenant::Tenant,
};
use tidegate_benches::rig::{Rig, Running};
use tokio::sync::oneshot;

/// All that there are, so that whoever has as many has each of them.
const SLOTS: usize = SLOTS_PER_INSTANCE_MAX;

const CLEAN: &str = "look----";
/// Stack, memory, globals, table.
const PAINTED: &str = "lookSMGT";

fn rig(folder: &tempfile::TempDir) -> Rig {
    let slots = PerEngine { fuel: SLOTS as u32, epoch: SLOTS as u32, large: SLOTS as u32 };
    let engines = Engines::new(PoolSize { slots, components: 8, ..PoolSize::default() })
        .expect("a small pool fits any machine");
    let cache = Cache::open(folder.path(), &engines, Compiler::InProcess).expect("a folder of its own");
    Rig::with(Components::inline(engines, cache), Clock::System, SLOTS, 8, 7)
}

/// With time for the largest memory that a guest of this engine is let grow to.
fn tenant(name: &str, engine: EngineKind) -> Arc<Tenant> {
    let limits = Limits {
        memory_instance_bytes_max: engine.memory_bytes_max().min(16 << 20),
        message_fuel_max: 200_000_000,
        message_time_max: std::time::Duration::from_secs(10),
        ..Limits::of_engine(engine)
    };
    Tenant::new(name, limits)
}

/// As many dataflows as there are slots, each with an instance.
fn move_in(rig: &mut Rig, tenant: &Arc<Tenant>, guest: &str) -> Vec<Running> {
    let flows = (0..SLOTS).map(|number| rig.install(tenant, &format!("flow-{number}"), &[(guest, Map, &[])]));
    flows.collect()
}

/// What each of them makes of a payload.
fn tell(rig: &mut Rig, flows: &mut [Running], payload: &str) -> Vec<String> {
    flows.iter_mut().for_each(|flow| _ = flow.send(&[payload]));
    rig.settle();
    let answers = flows.iter().flat_map(Running::receive).collect();
    let instances = flows[0].plan.tenant.instances.load(Ordering::Relaxed);
    assert_eq!(instances as usize, SLOTS, "each has a slot of its own");
    answers
}

fn move_out(rig: &mut Rig, flows: Vec<Running>) {
    let tenant = flows[0].plan.tenant.clone();
    for flow in flows {
        let (reply, mut removed) = oneshot::channel();
        let drain = std::time::Duration::from_secs(1);
        rig.door.send(Command::Remove { dataflow: flow.id, drain, reply });
        rig.settle();
        removed.try_recv().expect("nothing is left to drain");
    }
    assert_eq!(tenant.instances.load(Ordering::Relaxed), 0);
}

#[test]
fn instance_reuse_never_shows_one_tenant_another_s_bytes() {
    for engine in EngineKind::ALL {
        // The next to come has the same component, whose image a slot may keep, or another.
        for next in ["hostile_painter", "hostile_looker"] {
            let folder = tempfile::tempdir().expect("a folder");
            let mut rig = rig(&folder);
            let mut painters = move_in(&mut rig, &tenant("painter", engine), "hostile_painter");
            assert_eq!(tell(&mut rig, &mut painters, CLEAN), [CLEAN; SLOTS], "before anybody painted");
            assert_eq!(tell(&mut rig, &mut painters, "paint   "), ["paint   "; SLOTS]);
            // It is there for whoever looks, as long as the slot is the same instance's.
            assert_eq!(tell(&mut rig, &mut painters, CLEAN), [PAINTED; SLOTS], "{engine:?}");
            move_out(&mut rig, painters);
            let mut lookers = move_in(&mut rig, &tenant("looker", engine), next);
            assert_eq!(tell(&mut rig, &mut lookers, CLEAN), [CLEAN; SLOTS], "{next} with {engine:?}");
        }
    }
}

#[test]
fn an_operator_s_own_instance_is_clean_once_it_was_retired() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = rig(&folder);
    let painter = tenant("painter", EngineKind::Fuel);
    let mut painters = move_in(&mut rig, &painter, "hostile_painter");
    tell(&mut rig, &mut painters, "paint   ");
    // Another tenant's work takes all slots, and gives them back the same way.
    let mut others = move_in(&mut rig, &tenant("looker", EngineKind::Fuel), "hostile_looker");
    assert_eq!(tell(&mut rig, &mut others, CLEAN), [CLEAN; SLOTS]);
    assert_eq!(painter.instances.load(Ordering::Relaxed), 0);
    assert_eq!(tell(&mut rig, &mut others, "paint   "), ["paint   "; SLOTS]);
    assert_eq!(tell(&mut rig, &mut painters, CLEAN), [CLEAN; SLOTS]);
}
