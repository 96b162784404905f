//! `tidegate apply` while messages run: what is changed is changed whole, what is not
//! goes on, and no message is lost over it.

use crate::{
    crowd::{self, Happened},
    folder::Link,
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, publish_all},
    process::Host,
};

const COUNT: u64 = 30_000;

#[test]
fn mqtt_changes_of_a_running_site_lose_nothing_and_a_refused_one_changes_nothing() {
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let site = crowd::site(&broker.address());
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, crowd::messages(0..COUNT)));
    let mut parts = 1..;
    let mut under_way = || {
        let part = parts.next().expect("without end");
        eventually("it goes on", || subscriber.len() as u64 >= part * COUNT / 10);
    };

    under_way();
    crowd::change_component(&site, 1, 1);
    crowd::change_component(&site, 13, 1);
    assert_eq!(host.apply_well(site.path()), ["replaced t01/flow", "replaced t13/flow"]);

    under_way();
    let pass: Link<'_> = ("map", "pass_through", &[]);
    site.tenant("new", "standard");
    site.dataflow("new", "first", &[pass]);
    site.dataflow("t02", "second", &[pass]);
    assert_eq!(host.apply_well(site.path()), ["added new/first", "added t02/second"]);

    // Refused, for what is in a file and for what only a trial shows.
    under_way();
    let traps: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap"), ("at", "init")]);
    let init = "the dataflow `t04/bad` does not start";
    for (link, kind, words) in [(pass, "Graf", "nodeType"), (traps, "Graph", init)] {
        site.dataflow("t04", "bad", &[link]);
        let path = "tenants/t04/dataflows/bad.yaml";
        let text = std::fs::read_to_string(site.path().join(path)).expect("it was written");
        site.write(path, &text.replace("nodeType: Graph", &format!("nodeType: {kind}")));
        crowd::change_component(&site, 5, 1);
        let received = host.status().count("t05/flow", "received");
        let refused = host.apply(site.path());
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
        let status = host.status();
        let tenant = status.0["tenants"].as_array().expect("tenants").iter().find(|it| it["name"] == "t04");
        assert_eq!(tenant.map(|it| it["dataflows"].as_array().map(Vec::len)), Some(Some(1)));
        assert!(status.count("t05/flow", "received") >= received, "it was replaced all the same");
        site.remove(path);
    }
    assert_eq!(host.apply_well(site.path()), ["replaced t05/flow"]);

    under_way();
    site.policy("smaller", &["weight: 2", "instances: 2", "inflight: 512Ki"]);
    site.tenant("t06", "smaller");
    site.remove("tenants/new");
    site.remove("platform/tenant-new.yaml");
    let mut changed = host.apply_well(site.path());
    changed.sort();
    assert_eq!(changed, ["removed new/first", "replaced t06/flow"]);

    publisher.join().expect("publishing does not fail");
    crowd::wait_until_answered(&subscriber, &host, COUNT);
    crowd::check_delivered(&subscriber, COUNT);
    let mut happened = Happened::default();
    happened.add(&host.status());
    happened.check();
    host.stop();
}
