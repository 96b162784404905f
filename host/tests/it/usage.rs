//! The usage ledger as a platform team has it: held against what clients outside have
//! counted, while dataflows are replaced and removed, and over hosts that are killed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    process::{Host, Output, output, tidegate},
};

const PASS: Link<'_> = ("map", "pass_through", &[]);
/// Two milliseconds of work a message.
const BUSY: Link<'_> = ("map", "hostile_busy", &[("micros", "2000")]);
/// Traps on everything.
const NOTHING: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap"), ("every", "1")]);
/// Of a policy under which a dataflow goes on, however many messages it gives up.
const GOES_ON: &str = "faults: { retries: 0, coolDown: 0s, quarantineAfter: 10000, within: 1us }";

/// docs/quotas.md: what a host that is killed may lose.
const LOST: Duration = Duration::from_secs(5);

/// `tidegate usage`, whether a host runs or not.
fn usage(site: &SiteFolder, arguments: &[&str]) -> Output {
    output(tidegate().arg("usage").args(arguments).arg("--data").arg(site.path().join(".tidegate")))
}

fn json(output: &Output) -> Value {
    output.expect_success();
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Totals of a tenant, by the names that JSON has; nothing if it has used nothing.
fn total(site: &SiteFolder, tenant: &str) -> BTreeMap<String, u64> {
    let document = json(&usage(site, &["--json"]));
    let rows = document["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["tenant"] == tenant);
    let values = row.into_iter().flat_map(|row| row.as_object().expect("a row"));
    values.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

pub fn count(site: &SiteFolder, tenant: &str, name: &str) -> u64 {
    total(site, tenant).get(name).copied().unwrap_or_default()
}

/// What clients have sent or received: topics and payloads.
fn bytes_of(topic: &str, payloads: impl IntoIterator<Item = u64>) -> u64 {
    payloads.into_iter().map(|number| (topic.len() + number.to_string().len()) as u64).sum()
}

#[test]
fn mqtt_what_clients_outside_have_counted_is_in_the_ledger_in_all_its_forms() {
    const COUNT: u64 = 1_000;
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 2 }", &broker.address());
    site.policy("goes-on", &[GOES_ON]);
    for (tenant, link) in [("passes", PASS), ("fails", NOTHING), ("idle", PASS)] {
        site.tenant(tenant, "goes-on");
        site.dataflow(tenant, "flow", &[link]);
    }
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    publish_all(broker.port, numbers("passes/in/flow", 0..COUNT).chain(numbers("fails/in/flow", 0..100)));
    host.wait_for("all is settled", |status| {
        status.count("passes/flow", "delivered") == COUNT
            && status.count("fails/flow", "dead") == 100
            && status.sum("settled") == status.sum("deliveries")
    });
    // While the host runs, as of now.
    let running = total(&site, "passes");
    assert_eq!((running["received"], running["delivered"]), (COUNT, subscriber.len() as u64));
    eventually("memory is counted", || {
        ["passes", "idle"].iter().all(|tenant| count(&site, tenant, "memoryByteSeconds") > 0)
    });
    host.stop();

    let passes = total(&site, "passes");
    assert_eq!((passes["received"], passes["delivered"], passes["dead"]), (COUNT, COUNT, 0));
    assert_eq!(passes["receivedBytes"], bytes_of("passes/in/flow", 0..COUNT));
    // To the operator's end the topic is that of the source, and the host adds the time.
    assert!(passes["deliveredBytes"] >= bytes_of("passes/in/flow", subscriber.numbers()));
    assert!(passes["cpuNs"] > 0 && passes["fuel"] > 0, "{passes:?}");
    let fails = total(&site, "fails");
    assert_eq!((fails["received"], fails["delivered"], fails["dead"]), (100, 0, 100));
    let idle = total(&site, "idle");
    assert_eq!((idle["received"], idle["memoryByteSeconds"] > 0), (0, true), "{idle:?}");

    // Rows and totals of every form are the same numbers.
    let document = json(&usage(&site, &["--json", "--by", "hour", "--from", "1h"]));
    for name in ["received", "delivered", "dead", "cpuNs", "memoryByteSeconds"] {
        let rows = document["rows"].as_array().expect("rows");
        let sum: u64 = rows.iter().map(|row| row[name].as_u64().expect("a number")).sum();
        assert_eq!(document["total"][name], sum, "{name}");
    }
    let csv = usage(&site, &["--csv", "--from", "1h"]);
    csv.expect_success();
    let mut lines = csv.stdout.lines();
    assert_eq!(
        lines.next(),
        Some(
            "from,to,tenant,cpu_ns,fuel,memory_byte_seconds,received,received_bytes,delivered,delivered_bytes,\
             dead,host_calls"
        )
    );
    let lines: Vec<Vec<_>> = lines.map(|line| line.split(',').collect()).collect();
    let tenants: Vec<_> = lines.iter().map(|line| line[2]).collect();
    assert_eq!(tenants, ["fails", "idle", "passes"]);
    assert_eq!((lines[2][6], lines[2][8], lines[0][10]), ("1000", "1000", "100"));
    assert!(lines.iter().all(|line| line[0].ends_with(":00:00Z") && line.len() == 12), "{lines:?}");
    for by in ["hour", "day", "total"] {
        let table = usage(&site, &["--by", by]);
        table.expect_success();
        assert!(table.stdout.lines().all(|line| line.chars().count() <= 100), "{}", table.stdout);
        let last = table.stdout.lines().last().expect("totals");
        assert!(last.starts_with("TOTAL") && last.contains(" 1100 "), "{}", table.stdout);
    }
    let one = usage(&site, &["passes", "--csv"]);
    assert_eq!(one.stdout.lines().count(), 2, "{one:?}");
    for (arguments, code, words) in [
        (&["passes", "--csv", "--json"][..], 2, "say one of them"),
        (&["--from", "1h", "--to", "3h"], 2, "--from is to be the earlier"),
        (&["--from", "noon"], 2, "nor a time ago, such as `10m`"),
        (&["--by", "week"], 2, "possible values: hour, day, total"),
        (&["pases"], 1, "did you mean `passes`?"),
        (&["passes", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z"], 1, "neither has any"),
    ] {
        let wrong = usage(&site, arguments);
        assert_eq!(wrong.code, Some(code), "{arguments:?}: {wrong:?}");
        assert!(wrong.stderr.contains(words), "{arguments:?}: {}", wrong.stderr);
    }
    let nowhere = output(tidegate().args(["usage", "--data", "/nowhere"]));
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("no host has run on /nowhere yet"), "{}", nowhere.stderr);

    // What a tenant has used stays when it has left.
    site.remove("platform/tenant-passes.yaml");
    site.remove("tenants/passes");
    let host = Host::up(site.path());
    assert_eq!(total(&site, "passes"), passes);
    host.stop();
    assert_eq!(total(&site, "passes"), passes);
}

#[test]
fn mqtt_dataflows_replaced_and_removed_under_load_lose_nothing_of_the_count() {
    const COUNT: u64 = 20_000;
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let site = SiteFolder::new("{ shards: 2 }", &broker.address());
    site.tenant("a", "standard");
    site.dataflow("a", "flow", &[PASS]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let host = Host::up(site.path());
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, numbers("a/in/flow", 0..COUNT)));
    // Of the same dataflow, and of the whole tenant: a policy of its own makes it another.
    for round in 1..=6_usize {
        eventually("messages come", || subscriber.len() >= round * COUNT as usize / 8);
        site.dataflow("a", "flow", &[PASS, PASS][..1 + round % 2]);
        if round == 3 {
            site.policy("other", &[GOES_ON]);
            site.tenant("a", "other");
        }
        assert_eq!(host.apply_well(site.path()), ["replaced a/flow"]);
    }
    publisher.join().expect("publishing does not fail");
    eventually("all arrive", || subscriber.len() as u64 >= COUNT);
    host.wait_for("all is settled", |status| status.sum("settled") == status.sum("deliveries"));
    site.remove("tenants/a/dataflows/flow.yaml");
    assert_eq!(host.apply_well(site.path()), ["removed a/flow"]);
    let (received, delivered) = (count(&site, "a", "received"), count(&site, "a", "delivered"));
    assert_eq!((received, delivered), (COUNT, subscriber.len() as u64));
    host.stop();
    assert_eq!((count(&site, "a", "received"), count(&site, "a", "delivered")), (received, delivered));
}

/// What is compared over kills: of a tenant whose messages pass, and of one in a storm of
/// faults.
const COUNTS: [(&str, &str); 4] = [("a", "received"), ("a", "delivered"), ("b", "received"), ("b", "dead")];

/// What dataflows have counted in this life of their host.
fn seen(host: &Host) -> [u64; 4] {
    let status = host.status();
    COUNTS.map(|(tenant, name)| status.count(&format!("{tenant}/flow"), name))
}

#[test]
fn mqtt_hosts_killed_in_a_storm_lose_no_more_than_the_last_seconds_and_count_nothing_twice() {
    const COUNT: u64 = 30_000;
    const KILLS: usize = 4;
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let site = SiteFolder::new("{ shards: 2 }", &broker.address());
    site.policy("goes-on", &[GOES_ON, "deadLetters: { count: 1000000, bytes: 1Gi }"]);
    for (tenant, link) in [("a", BUSY), ("b", NOTHING)] {
        site.tenant(tenant, "goes-on");
        site.dataflow(tenant, "flow", &[link]);
    }
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let mut host = Host::up(site.path());
    publish_all(
        broker.port,
        (0..COUNT).flat_map(|number| {
            ["a/in/flow", "b/in/flow"].into_iter().flat_map(move |topic| numbers(topic, number..number + 1))
        }),
    );
    let in_ledger = || COUNTS.map(|(tenant, name)| count(&site, tenant, name));
    let mut base = [0; 4];
    for kill in 1..KILLS {
        host.wait_for("messages run", |status| status.count("a/flow", "delivered") > 100);
        let least = seen(&host);
        let began = Instant::now();
        eventually("what may be lost is of later", || began.elapsed() > LOST);
        assert!(seen(&host)[1] > least[1], "it is under load");
        host.kill();
        // Without a host, and with the next one.
        let found = in_ledger();
        let kept =
            found.iter().zip(base.iter().zip(least)).all(|(found, (base, least))| *found >= base + least);
        assert!(kept, "kill {kill}: {found:?} of {base:?} and {least:?}");
        base = found;
        host = Host::up(site.path());
        let next = in_ledger();
        assert!(next.iter().zip(base).all(|(next, base)| *next >= base), "{next:?} of {base:?}");
    }
    // What was shown is on disk, whenever the host is killed after that.
    let shown = in_ledger();
    host.kill();
    let found = in_ledger();
    assert!(found.iter().zip(shown).all(|(found, shown)| *found >= shown), "{found:?} of {shown:?}");

    // A sink's confirmation comes after the broker has the message, and of each delivery
    // that was under way when a host was killed a letter may be missing.
    let [_, delivered, _, dead] = found;
    eventually("all that was confirmed arrives", || subscriber.len() as u64 >= delivered);
    let data = site.path().join(".tidegate");
    let listed = output(tidegate().args(["dead-letters", "list", "--json", "--data"]).arg(data));
    listed.expect_success();
    let letters = listed.stdout.lines().count() as u64;
    eprintln!("{found:?} in the ledger, {} outside, {letters} letters", subscriber.len());
    assert!(dead <= letters + KILLS as u64 * UNDER_WAY, "{dead} of {letters}");
}

/// Messages of one delivery, at most.
const UNDER_WAY: u64 = 256;

const QUIET: u64 = 500;

/// Kills the host several times, each time when nothing more comes; gives what the ledger
/// had before and after each.
fn killed_while_quiet(plant: &str) -> Option<Vec<[BTreeMap<String, u64>; 4]>> {
    let broker = Mosquitto::start(&[])?;
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    site.policy("goes-on", &[GOES_ON]);
    for (tenant, link) in [("a", PASS), ("b", NOTHING)] {
        site.tenant(tenant, "goes-on");
        site.dataflow(tenant, "flow", &[link]);
    }
    let life = |_| {
        let host = Host::up_with(site.path(), plant);
        publish_all(broker.port, numbers("a/in/flow", 0..QUIET).chain(numbers("b/in/flow", 0..QUIET)));
        host.wait_for("all is settled", |status| {
            status.count("a/flow", "delivered") == QUIET
                && status.count("b/flow", "dead") == QUIET
                && status.sum("settled") == status.sum("deliveries")
        });
        let asked = ["a", "b"].map(|tenant| total(&site, tenant));
        host.kill();
        let left = ["a", "b"].map(|tenant| total(&site, tenant));
        let ([a, b], [a_left, b_left]) = (asked, left);
        [a, b, a_left, b_left]
    };
    Some((0..3).map(life).collect())
}

#[test]
fn mqtt_a_host_killed_while_it_is_quiet_has_counted_each_message_once() {
    let Some(lives) = killed_while_quiet("") else { return };
    for (life, [a, b, a_left, b_left]) in (1..).zip(lives) {
        for name in ["received", "receivedBytes", "delivered", "deliveredBytes", "dead", "cpuNs", "fuel"] {
            assert_eq!((a_left[name], b_left[name]), (a[name], b[name]), "{name}");
        }
        assert_eq!((a["received"], a["delivered"], a["dead"]), (life * QUIET, life * QUIET, 0));
        assert_eq!((b["received"], b["delivered"], b["dead"]), (life * QUIET, 0, life * QUIET));
    }
}

#[test]
fn mqtt_the_same_count_finds_a_ledger_that_forgets() {
    let Some(lives) = killed_while_quiet("usage-anew") else { return };
    // Two lives may be of one hour each, but not three.
    let last = lives.last().expect("it ran");
    assert!(last[0]["received"] < lives.len() as u64 * QUIET, "the count cannot fail: {last:?}");
}
