//! Hosts with `pool: dense`: which components they take, and that tenants on every engine run
//! there. How many instances fit, and what calls cost, is the bench `dense`.

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate::resource::EngineKind;

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, publish_all},
    process::{Host, Output, output, tidegate},
};

const PLAIN: Link<'_> = ("map", "pass_through", &[]);
/// The same, with all the memory of a slot from the start.
const FULL: Link<'_> = ("map", "pass_through_dense", &[]);

fn check(host: &str, engine: &str, link: Link<'_>) -> Output {
    let site = SiteFolder::new(host, "127.0.0.1:1");
    site.policy("p", &[&format!("engine: {engine}")]);
    site.tenant("a", "p");
    site.dataflow("a", "flow", &[link]);
    output(tidegate().args(["check", "--json"]).arg(site.path()))
}

#[test]
fn a_component_that_would_tear_slots_apart_is_refused_where_they_lie_side_by_side() {
    for (pool, engine, link, rule) in [
        ("dense", "fuel", PLAIN, Some("component/dense-memory")),
        ("dense", "epoch", PLAIN, Some("component/dense-memory")),
        ("dense", "large", PLAIN, None),
        ("guarded", "fuel", PLAIN, None),
        ("dense", "fuel", FULL, None),
        ("dense", "epoch", FULL, None),
        ("guarded", "fuel", FULL, None),
        ("dens", "fuel", FULL, Some("dense")),
    ] {
        let checked = check(&format!("{{ shards: 1, pool: {pool} }}"), engine, link);
        match rule {
            None => checked.expect_success(),
            Some(words) => {
                assert_eq!(checked.code, Some(1), "{pool} {engine}: {checked:?}");
                assert!(checked.stdout.contains(words), "{pool} {engine}: {}", checked.stdout);
            }
        }
    }
}

#[test]
fn a_host_with_too_many_slots_for_the_kernel_says_what_would_fit_and_does_not_start() {
    for (pool, advice) in [("guarded", "set `pool: dense`"), ("dense", "lower `slots.fuel` to")] {
        let host = format!("{{ shards: 1, pool: {pool}, slots: {{ fuel: 1000000, epoch: 8, large: 4 }} }}");
        let site = SiteFolder::new(&host, "127.0.0.1:1");
        let refused = output(tidegate().arg("up").arg(site.path()));
        let said = format!("{}{}", refused.stdout, refused.stderr);
        // On a machine whose limit is raised this far there is nothing to be refused.
        if tidegate::guest::engine::PoolSize::maps_max() < 2_000_000 {
            assert_eq!(refused.code, Some(1), "{said}");
            assert!(said.contains(advice) && said.contains("vm.max_map_count"), "{pool}: {said}");
        }
    }
}

#[test]
fn mqtt_tenants_on_every_engine_run_in_a_dense_host() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let host = "{ shards: 1, pool: dense, slots: { fuel: 64, epoch: 64, large: 4 } }";
    let site = SiteFolder::new(host, &broker.address());
    for engine in EngineKind::ALL {
        let name = engine.name();
        site.policy(name, &[&format!("engine: {name}")]);
        site.tenant(name, name);
        let link = if engine == EngineKind::Large { PLAIN } else { FULL };
        site.dataflow(name, "flow", &[link, link]);
    }
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    let messages = EngineKind::ALL.into_iter().flat_map(|engine| {
        let message = move |number: usize| {
            (format!("{}/in/flow", engine.name()), number.to_string().into(), PublishProperties::default())
        };
        (0..50).map(message)
    });
    publish_all(broker.port, messages);
    eventually("all messages arrive", || subscriber.len() == 150);
    for engine in EngineKind::ALL {
        let flow = format!("{}/flow", engine.name());
        host.wait_for("all are settled", |status| status.count(&flow, "delivered") == 50);
    }
    assert_eq!(host.dead_letters().len(), 0);
    host.stop();
}
