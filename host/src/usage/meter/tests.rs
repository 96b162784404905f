use std::time::Duration;

use super::*;
use crate::resource::Limits;

fn at(ms: u64) -> Instant {
    Instant(0).plus(Duration::from_millis(ms))
}

#[test]
fn each_reading_has_what_came_since_the_last_and_the_last_one_is_known() {
    let tenant = Tenant::new("a", Limits::default());
    let stats = tenant.stats.clone();
    let mut meter = TenantMeter::new(&tenant, at(0));
    stats.cpu_ns.add(5);
    stats.models_cpu_ns.add(1_000);
    stats.fuel.add(7);
    let Reading { used, is_last } = meter.read(at(1), true);
    assert_eq!((used, is_last), (Row { cpu_ns: 1_005, fuel: 7, ..Row::default() }, false));
    drop(tenant);
    stats.host_calls.add(3);
    let Reading { used, is_last } = meter.read(at(2), true);
    assert_eq!((used, is_last), (Row { host_calls: 3, ..Row::default() }, false), "somebody may charge it");
    stats.fuel.add(1);
    drop(stats);
    let Reading { used, is_last } = meter.read(at(3), true);
    assert_eq!((used, is_last), (Row { fuel: 1, ..Row::default() }, true));
}

#[test]
fn of_a_dataflow_that_was_never_read_all_is_read_after_its_end() {
    let stats = Arc::<DataflowStats>::default();
    let mut meter = FlowMeter::new("a", &stats);
    stats.received.add(3);
    stats.received_bytes.add(30);
    stats.delivered.add(2);
    stats.delivered_bytes.add(20);
    stats.dead.add(1);
    drop(stats);
    let Reading { used, is_last } = meter.read();
    let all =
        Row { received: 3, received_bytes: 30, delivered: 2, delivered_bytes: 20, dead: 1, ..Row::default() };
    assert_eq!((used, is_last), (all, true));
}

#[test]
fn memory_is_bytes_times_time_and_no_fraction_is_lost() {
    let tenant = Tenant::new("a", Limits::default());
    tenant.set_component_bytes(1_001);
    let mut meter = TenantMeter::new(&tenant, at(0));
    let mut sum = 0;
    for ms in 1..=10_000 {
        // Now and then, or because it did something.
        tenant.stats.fuel.add(u64::from(ms % 7 == 0));
        sum += meter.read(at(ms), ms % 5 == 0).used.memory_byte_seconds;
    }
    assert_eq!(sum, 10_010);
    assert_eq!(meter.read(at(15_000), false).used, Row::default(), "nobody looked");
    tenant.set_component_bytes(0);
    // Until somebody looks it had what it had.
    assert_eq!(meter.read(at(20_000), true).used.memory_byte_seconds, 10_010);
    tenant.set_component_bytes(1_001);
    // One that had nothing is always looked at.
    assert_eq!(meter.read(at(30_000), false).used, Row::default());
    drop(tenant);
    assert_eq!(meter.read(at(40_000), true).used, Row::default(), "when it went is not known");
}
