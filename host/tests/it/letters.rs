//! Dead letters as a user has them: listed, exported, replayed, discarded, on a host that
//! runs, that was killed, and without one. What a replay delivers is counted outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};
use tidegate::dead_letter::{Reason, Record};

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    process::{Host, Output, output, tidegate},
};

const PASS: Link<'_> = ("map", "pass_through", &[]);
/// Traps on every number with a nine in it.
const NO_NINES: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap"), ("marker", "9")]);
/// Traps on everything.
const NOTHING: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap"), ("every", "1")]);

/// Of a policy under which a dataflow goes on, however many messages it gives up.
const GOES_ON: &str = "faults: { retries: 0, coolDown: 0s, quarantineAfter: 10000, within: 1us }";

/// A tenant `a` with a dataflow `flow` of one operator.
fn site(broker: &Mosquitto, link: Link<'_>) -> SiteFolder {
    let site = SiteFolder::new("{ shards: 2 }", &broker.address());
    site.policy("goes-on", &[GOES_ON]);
    site.tenant("a", "goes-on");
    site.dataflow("a", "flow", &[link]);
    site
}

fn has_nine(number: &u64) -> bool {
    number.to_string().contains('9')
}

fn payloads(letters: &[Record]) -> Vec<u64> {
    let number = |letter: &Record| letter.payload.as_ref().expect("text").parse().expect("a number");
    letters.iter().map(number).collect()
}

/// `tidegate dead-letters` on a data folder without a host.
fn letters_of(site: &SiteFolder, arguments: &[&str]) -> Output {
    let data = site.path().join(".tidegate");
    output(tidegate().arg("dead-letters").args(arguments).arg("--data").arg(data))
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn ids(output: &Output) -> Vec<u64> {
    let id = |line: &str| serde_json::from_str::<Record>(line).expect("a document a line").id;
    output.stdout.lines().map(id).collect()
}

#[test]
fn mqtt_letters_are_replayed_once_their_operator_is_mended() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = site(&broker, NO_NINES);
    site.tenant("b", "goes-on");
    site.dataflow("b", "flow", &[NOTHING]);
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    publish_all(broker.port, numbers("a/in/flow", 0..100).chain(numbers("b/in/flow", 500..503)));
    host.wait_for("all is settled", |status| {
        status.count("a/flow", "delivered") == 81
            && status.count("a/flow", "dead") == 19
            && status.count("b/flow", "dead") == 3
            && status.sum("settled") == status.sum("deliveries")
    });
    let nines: Vec<u64> = (0..100).filter(has_nine).collect();
    let of_a = || host.dead_letters().into_iter().filter(|it| it.tenant == "a").collect::<Vec<_>>();
    let letters = of_a();
    assert_eq!(payloads(&letters), nines);

    // Nothing is mended: each is given up again, and is one letter again.
    let replayed = host.letters(&["replay", "--tenant", "a", "--json"]);
    assert_eq!(json(&replayed), json!({ "settled": 19, "again": 19, "refused": [] }));
    let again = of_a();
    assert_eq!(payloads(&again), nines);
    let newest = letters.iter().map(|it| it.id).max();
    for letter in &again {
        assert!(letter.attempts == 2 && Some(letter.id) > newest, "{letter:?}");
        // The mark is the delivery's.
        assert!(letter.properties.is_empty() && letter.timestamp.is_some(), "{letter:?}");
    }
    assert_eq!(subscriber.len(), 81);

    // Mended, those that are named go first, and then the rest.
    site.dataflow("a", "flow", &[PASS]);
    assert_eq!(host.apply_well(site.path()), ["replaced a/flow"]);
    let [one, other] = [again[0].id.to_string(), again[1].id.to_string()];
    let replayed = host.letters(&["replay", &one, &other]);
    assert_eq!(
        (replayed.code, replayed.stdout.as_str()),
        (Some(0), "2 dead letters replayed\n"),
        "{replayed:?}"
    );
    let replayed = host.letters(&["replay", "--tenant", "a", "--reason", "trap", "--json"]);
    assert_eq!(json(&replayed), json!({ "settled": 17, "again": 0, "refused": [] }));
    eventually("all arrive", || subscriber.len() >= 100);
    let mut arrived = subscriber.numbers();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..100).collect::<Vec<_>>(), "each of them once");
    // Marked, with the number that each had.
    let by_payload: BTreeMap<u64, u64> =
        payloads(&again).into_iter().zip(again.iter().map(|letter| letter.id)).collect();
    for message in subscriber.received() {
        let number = String::from_utf8_lossy(&message.payload).parse().expect("a number");
        let properties = message.properties.map(|it| it.user_properties).unwrap_or_default();
        let marks: Vec<_> = properties.iter().filter(|(key, _)| key == "tidegate-replay").collect();
        let expected = by_payload.get(&number).map(|id| id.to_string());
        assert_eq!(marks.iter().map(|(_, id)| id).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(payloads(&host.dead_letters()), [500, 501, 502], "the neighbour's stay");

    // What cannot be replayed says why, each of them, and stays.
    let unknown = host.letters(&["replay", "9999"]);
    assert_eq!(unknown.code, Some(1));
    assert_eq!(unknown.stderr, "error: letter 9999: there is no such dead letter\n");
    site.remove("tenants/b/dataflows/flow.yaml");
    assert_eq!(host.apply_well(site.path()), ["removed b/flow"]);
    let refused = host.letters(&["replay", "--all"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(refused.stderr.matches("its dataflow `b/flow` does not run here").count(), 3, "{refused:?}");
    assert_eq!(refused.stdout, "0 dead letters replayed; 3 stay as they were\n");
    assert_eq!(host.dead_letters().len(), 3);
    host.stop();
}

#[test]
fn mqtt_letters_whose_message_is_not_whole_or_has_no_way_in_stay() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    site.policy("small", &["payload: 8B", GOES_ON]);
    site.tenant("a", "small");
    site.dataflow("a", "flow", &[NOTHING]);
    let host = Host::up(site.path());
    let message = |text: &str| ("a/in/flow".to_owned(), text.into(), PublishProperties::default());
    publish_all(broker.port, [message("123456789"), message("1234567"), message("12")]);
    host.wait_for("all are given up", |status| status.count("a/flow", "dead") == 3);
    eventually("all are listed", || host.dead_letters().len() == 3);
    // What fitted once is too large now.
    site.policy("small", &["payload: 4B", GOES_ON]);
    let path = "tenants/a/dataflows/flow.yaml";
    let flow = fs::read_to_string(site.path().join(path)).expect("it is there");
    site.dataflow("a", "flow", &[PASS]);
    host.apply_well(site.path());
    let replayed = host.letters(&["replay", "--all"]);
    assert_eq!(replayed.code, Some(1));
    assert_eq!(replayed.stdout, "1 dead letter replayed; 2 stay as they were\n");
    for why in [
        "its payload was over policy's `payload`, and only the beginning is kept",
        "its payload of 7 bytes is over policy's `payload` of 4",
    ] {
        assert!(replayed.stderr.contains(why), "{}", replayed.stderr);
    }
    // A source of another name is another source.
    site.policy("small", &["payload: 8B", GOES_ON]);
    site.write(
        path,
        &flow.replace("name: in,", "name: other,").replace("from: { name: in }", "from: { name: other }"),
    );
    let text = fs::read_to_string(site.path().join(path)).expect("it is there");
    assert_ne!(text, flow, "the source has another name now");
    host.apply_well(site.path());
    let refused = host.letters(&["replay", "--reason", "trap"]);
    assert!(refused.stderr.contains("its dataflow `a/flow` has no source `"), "{refused:?}");
    assert_eq!(host.dead_letters().len(), 2);
    host.stop();
}

#[test]
fn mqtt_a_replay_drops_nothing_that_was_kept_and_puts_nothing_into_windows_but_through_a_source() {
    const ALIGN: Link<'_> = ("delay", "align", &[]);
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    let filter: Link<'_> = ("filter", "json_filter", &[("field", "t"), ("op", "gt"), ("value", "0")]);
    site.policy("keeps", &["onError: deadLetter", GOES_ON]);
    for (tenant, links) in [("a", &[NOTHING, ALIGN][..]), ("b", &[ALIGN, NOTHING]), ("c", &[filter])] {
        site.tenant(tenant, "keeps");
        site.dataflow(tenant, "flow", links);
    }
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());
    let mut old = numbers("a/in/flow", 1..2).next().expect("one");
    old.2.user_properties = vec![("__ts".into(), "001700000000000:00000:old".into())];
    publish_all(broker.port, [old].into_iter().chain(numbers("a/in/flow", 2..3)));
    publish_all(broker.port, numbers("b/in/flow", 3..4).chain(numbers("c/in/flow", 4..5)));
    eventually("all are letters", || host.dead_letters().len() == 4);

    // The policy drops now what is late and what operators refuse; the trap is mended.
    site.policy("keeps", &["onError: drop", "late: drop", GOES_ON]);
    site.dataflow("a", "flow", &[PASS, ALIGN]);
    host.apply_well(site.path());
    publish_all(broker.port, numbers("a/in/flow", 5..6));
    eventually("the window has released the new one", || subscriber.numbers() == [5]);
    let replayed = host.letters(&["replay", "--all", "--json"]);
    let replayed = json(&replayed);
    assert_eq!((&replayed["settled"], &replayed["again"]), (&json!(3), &json!(2)), "{replayed}");
    let refused = replayed["refused"][0]["error"].as_str().expect("one is refused");
    assert!(refused.starts_with("it was released by the window"), "{refused}");
    eventually("what is of now passes the window", || subscriber.numbers() == [5, 2]);
    let letters = host.dead_letters();
    let left: Vec<_> = letters.iter().map(|it| (it.payload.as_deref(), it.reason, it.attempts)).collect();
    let (late, trap, error) = (Reason::Late, Reason::Trap, Reason::OperatorError);
    assert_eq!(left, [(Some("1"), late, 2), (Some("3"), trap, 1), (Some("4"), error, 2)]);
    let status = host.status();
    assert_eq!((status.sum("late"), status.sum("errors")), (0, 0));
    host.stop();
}

#[test]
fn mqtt_letters_are_found_by_what_is_known_of_them_and_fit_the_terminal() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = site(&broker, NO_NINES);
    site.dataflow("a", "other-with-a-name-that-is-rather-long", &[PASS, NOTHING]);
    site.policy("kept", &["onError: deadLetter", GOES_ON]);
    site.tenant("b", "kept");
    site.dataflow("b", "flow", &[("filter", "json_filter", &[("field", "t"), ("op", "gt"), ("value", "0")])]);
    let host = Host::up(site.path());
    let long = "a/in/other-with-a-name-that-is-rather-long";
    let first = numbers("a/in/flow", 90..92).chain(numbers(long, 7..8));
    publish_all(broker.port, first);
    eventually("the first are there", || host.dead_letters().len() == 3);
    let between = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    publish_all(broker.port, numbers("b/in/flow", 1..3));
    eventually("all are there", || host.dead_letters().len() == 5);

    let listed = |arguments: &[&str]| {
        let listed = host.letters(&[&["list", "--json"], arguments].concat());
        assert_eq!(listed.code, Some(0), "{arguments:?}: {listed:?}");
        ids(&listed)
    };
    let all = listed(&[]);
    let (of_a, of_b): (Vec<_>, Vec<_>) = (listed(&["a"]), listed(&["--tenant", "b"]));
    assert_eq!((of_a.len(), of_b.len(), [&of_a[..], &of_b[..]].concat()), (3, 2, all.clone()));
    for (arguments, expected) in [
        (&["--dataflow", "flow"][..], [&of_a[..2], &of_b[..]].concat()),
        (&["--operator", "step-1"], of_a[2..].to_vec()),
        (&["--reason", "trap"], of_a.clone()),
        (&["--reason", "operator-error"], of_b.clone()),
        (&["--reason", "late"], vec![]),
        (&["--until", &between], of_a.clone()),
        (&["--since", &between], of_b.clone()),
        (&["--since", "1h"], all.clone()),
        (&["--until", "1h"], vec![]),
        (&["a", "--limit", "2"], of_a[..2].to_vec()),
        (&["--tenant", "a", "--reason", "trap", "--dataflow", "flow"], of_a[..2].to_vec()),
        (&["nobody"], vec![]),
    ] {
        assert_eq!(listed(arguments), expected, "{arguments:?}");
    }
    for (arguments, words) in [
        (&["list", "--reason", "tarp"][..], "the reasons are trap, memoryRefused"),
        (&["list", "--since", "noon"], "nor a time ago, such as `10m`"),
        (&["list", "a", "--tenant", "b"], "cannot be used with"),
        (&["discard"], "or --all"),
        (&["replay"], "or --all"),
        (&["discard", "--all", "--tenant", "a"], "cannot be used with"),
        (&["show", "first"], "invalid value"),
    ] {
        let wrong = host.letters(arguments);
        assert_eq!(wrong.code, Some(2), "{arguments:?}: {wrong:?}");
        assert!(wrong.stderr.contains(words), "{arguments:?}: {}", wrong.stderr);
    }
    let table = host.letters(&["list"]);
    assert_eq!(table.stdout.lines().count(), 6, "{}", table.stdout);
    assert!(table.stdout.lines().all(|line| line.chars().count() <= 100), "{}", table.stdout);
    let shown = json(&host.letters(&["show", &of_b[1].to_string(), "--json"]));
    assert_eq!((&shown["payload"], &shown["reason"]), (&json!("2"), &json!("operatorError")));

    // An export is what `run` reads, and holds why each was given up.
    let export = site.path().join("export.jsonl");
    let exported = host.letters(&["export", "--tenant", "a", "--output", export.to_str().expect("UTF-8")]);
    assert_eq!(exported.stdout, format!("3 dead letters in {}\n", export.display()));
    let line = fs::read_to_string(&export).expect("it was written");
    let line: Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&line["topic"], &line["deadLetter"]["reason"]), (&json!("a/in/flow"), &json!("trap")));
    let artifacts = site.path().join("tenants/a/artifacts");
    site.dataflow("a", "mended", &[PASS]);
    let run = |input: Stdio| {
        let mut command = tidegate();
        command.arg("run").arg(artifacts.join("mended/1.yaml")).arg("--artifacts").arg(&artifacts);
        output(command.arg("--input").arg("-").stdin(input))
    };
    let ran = run(fs::File::open(&export).expect("it was written").into());
    ran.expect_success();
    let payloads: Vec<_> = ran.stdout.lines().map(json_payload).collect();
    assert_eq!(payloads, ["90", "91", "7"], "{ran:?}");
    // To standard output, the same.
    let exported = host.letters(&["export", "--tenant", "a"]);
    assert_eq!(exported.stdout, fs::read_to_string(&export).expect("it was written"));

    let discarded = host.letters(&["discard", "--tenant", "a", "--dataflow", "flow"]);
    assert_eq!((discarded.code, discarded.stdout.as_str()), (Some(0), "2 dead letters discarded\n"));
    assert_eq!(listed(&[]), [&of_a[2..], &of_b[..]].concat());
    let status = host.status();
    let kept = |tenant: usize| status.0["tenants"][tenant]["deadLetters"]["count"].as_u64();
    assert_eq!((kept(0), kept(1)), (Some(1), Some(2)), "{}", status.0);
    host.stop();

    // Without a host, from the folder alone; a number is never given twice.
    assert_eq!(ids(&letters_of(&site, &["list", "--json"])), [&of_a[2..], &of_b[..]].concat());
    let discarded = letters_of(&site, &["discard", &of_b[0].to_string(), "--json"]);
    assert_eq!(json(&discarded), json!({ "discarded": 1 }));
    assert_eq!(letters_of(&site, &["discard", &of_b[0].to_string()]).code, Some(1));
    let replayed = letters_of(&site, &["replay", "--all"]);
    assert_eq!(replayed.code, Some(1));
    assert!(replayed.stderr.contains("no host runs on"), "{}", replayed.stderr);
    assert_eq!(ids(&letters_of(&site, &["export", "--limit", "0"])), [0; 0]);
    assert_eq!(json(&letters_of(&site, &["discard", "--all", "--json"])), json!({ "discarded": 2 }));
    assert_eq!(letters_of(&site, &["list"]).stdout, "");
    let host = Host::up(site.path());
    publish_all(broker.port, numbers("b/in/flow", 3..4));
    eventually("another is there", || host.dead_letters().len() == 1);
    assert_eq!(Some(host.dead_letters()[0].id), all.iter().max().map(|id| id + 1));
    host.stop();
}

fn json_payload(line: &str) -> String {
    serde_json::from_str::<Value>(line).expect("JSON")["payload"].to_string()
}

/// Numbers that are among the letters or came out.
fn answered(host: &Host, subscriber: &Subscriber) -> BTreeSet<u64> {
    payloads(&host.dead_letters()).into_iter().chain(subscriber.numbers()).collect()
}

#[test]
fn mqtt_a_host_killed_in_a_replay_delivers_letters_twice_at_most_and_loses_none() {
    const COUNT: u64 = 4_000;
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let site = site(&broker, NOTHING);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let host = Host::up(site.path());
    publish_all(broker.port, numbers("a/in/flow", 0..COUNT));
    eventually("all are letters", || host.dead_letters().len() as u64 == COUNT);
    site.dataflow("a", "flow", &[PASS]);
    host.apply_well(site.path());
    let mut host = Some(host);
    let mut lives = 0;
    for quarter in 1..4 {
        let running = host.take().expect("it runs");
        let mut replay = tidegate();
        replay.args(["dead-letters", "replay", "--all", "--data"]).arg(site.path().join(".tidegate"));
        let mut replay = replay.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        eventually("some are replayed", || subscriber.len() as u64 >= quarter * COUNT / 4);
        running.kill();
        lives += 1;
        assert_eq!(replay.wait().expect("it ends").code(), Some(1), "its host is gone");
        tear_last_line(&site.path().join(".tidegate/dead-letters/a/flow"));
        let restarted = Host::up(site.path());
        let answered = answered(&restarted, &subscriber);
        assert!(answered.iter().copied().eq(0..COUNT), "lost: {} of {COUNT}", answered.len());
        host = Some(restarted);
    }
    let host = host.expect("it runs");
    let left = host.dead_letters().len() as u64;
    assert!(left > 0 && left < COUNT, "it was killed in the middle: {left}");
    let replayed = json(&host.letters(&["replay", "--all", "--json"]));
    assert_eq!(replayed, json!({ "settled": left, "again": 0, "refused": [] }));
    eventually("all arrive", || {
        subscriber.numbers().into_iter().collect::<BTreeSet<_>>().len() as u64 == COUNT
    });
    assert_eq!(host.dead_letters(), []);
    // docs/quotas.md: of one replay, what was one delivery.
    let doubled = subscriber.len() as u64 - COUNT;
    assert!(doubled <= lives * 256, "{doubled} came twice");
    host.stop();
}

/// Kills the host while the replay of all letters waits for the broker; how many are left.
fn left_by_a_replay_that_waits(count: u64, plant: &str) -> Option<usize> {
    let mut broker = Mosquitto::start(&[])?;
    let site = site(&broker, NOTHING);
    let host = Host::up(site.path());
    publish_all(broker.port, numbers("a/in/flow", 0..count));
    eventually("all are letters", || host.dead_letters().len() as u64 == count);
    host.stop();
    site.dataflow("a", "flow", &[PASS]);
    let host = Host::up_with(site.path(), plant);
    broker.stop();
    let mut replay = tidegate();
    replay.args(["dead-letters", "replay", "--all", "--data"]).arg(site.path().join(".tidegate"));
    let mut replay = replay.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("its delivery is at the sink", || host.status().count("a/flow", "written") == count);
    if !plant.is_empty() {
        eventually("it counts as done", || host.dead_letters().is_empty());
    }
    host.kill();
    replay.wait().expect("it ends");
    Some(ids(&letters_of(&site, &["list", "--json"])).len())
}

#[test]
fn mqtt_a_replay_removes_nothing_that_did_not_arrive_and_a_broken_settlement_is_found() {
    let Some(left) = left_by_a_replay_that_waits(100, "") else { return };
    assert_eq!(left, 100);
    assert_eq!(left_by_a_replay_that_waits(100, "early-ack"), Some(0), "the count cannot fail");
}

#[test]
fn mqtt_a_replay_that_nobody_waits_for_any_more_ends_after_what_is_under_way() {
    const COUNT: u64 = 1_500;
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = site(&broker, NOTHING);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let host = Host::up(site.path());
    publish_all(broker.port, numbers("a/in/flow", 0..COUNT));
    eventually("all are letters", || host.dead_letters().len() as u64 == COUNT);
    // Half a second for each delivery.
    site.dataflow("a", "flow", &[("map", "hostile_busy", &[("micros", "2000")])]);
    host.apply_well(site.path());
    let mut replay = tidegate();
    replay.args(["dead-letters", "replay", "--all", "--data"]).arg(site.path().join(".tidegate"));
    let mut replay = replay.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("some are replayed", || subscriber.len() > 0);
    replay.kill().expect("it runs");
    replay.wait().expect("it ends");
    let mut left = 0;
    eventually("what was under way is settled", || {
        left = host.dead_letters().len() as u64;
        let status = host.status();
        left + subscriber.len() as u64 == COUNT
            && status.count("a/flow", "settled") == status.count("a/flow", "deliveries")
    });
    assert!(left > 0, "it went on");
    let replayed = json(&host.letters(&["replay", "--all", "--json"]));
    assert_eq!(replayed, json!({ "settled": left, "again": 0, "refused": [] }));
    eventually("all arrive", || subscriber.len() as u64 == COUNT);
    host.stop();
}

#[test]
fn a_discard_that_is_killed_takes_all_that_was_chosen_or_nothing() {
    const COUNT: usize = 6_000;
    let line = |dataflow: &str| {
        let payload = "x".repeat(300);
        format!(
            r#"{{"at":"2026-01-31T12:00:00.000Z","tenant":"a","dataflow":"{dataflow}","source":"in","sequence":4,"reason":"trap","detail":"","fuel":1,"topic":"t","payload":"{payload}"}}"#
        ) + "\n"
    };
    let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
    let old = site.path().join(".tidegate/dead-letters/a");
    fs::create_dir_all(&old).expect("a folder");
    let count = |dataflow: &str| {
        letters_of(&site, &["list", "--json", "--dataflow", dataflow]).stdout.lines().count()
    };
    fs::write(old.join("stays.jsonl"), line("stays").repeat(COUNT)).expect("it can be written");
    let (mut killed, mut ended) = (0, 0);
    for attempt in 0.. {
        if count("goes") == 0 {
            fs::write(old.join("goes.jsonl"), line("goes").repeat(COUNT)).expect("it can be written");
            assert_eq!(count("goes"), COUNT);
        }
        let mut discard = tidegate();
        discard.args(["dead-letters", "discard", "--dataflow", "goes", "--data"]);
        let discard = discard.arg(site.path().join(".tidegate")).stdout(Stdio::null()).spawn();
        let (mut discard, began) = (discard.expect("it starts"), Instant::now());
        // At another moment each time, until it is too late.
        let moment = Duration::from_millis(5 * attempt);
        let mut is_over = false;
        eventually("its moment comes", || {
            is_over = discard.try_wait().expect("it is our child").is_some();
            is_over || began.elapsed() >= moment
        });
        _ = discard.kill();
        discard.wait().expect("it ends");
        *if is_over { &mut ended } else { &mut killed } += 1;
        let left = count("goes");
        assert!(left == COUNT || left == 0, "{left} of {COUNT} are left");
        assert_eq!(count("stays"), COUNT);
        if ended == 2 {
            break;
        }
    }
    assert!(killed > 2, "it was never killed in time: {killed}");
}

/// As if the host had been in the middle of a letter when it was killed.
fn tear_last_line(folder: &Path) {
    let mut segments: Vec<_> = fs::read_dir(folder)
        .expect("letters are left")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    segments.sort();
    let last = segments.pop().expect("a segment");
    let mut file = OpenOptions::new().append(true).open(last).expect("it is there");
    file.write_all(b"{\"id\":1,\"at\":\"2026").expect("it can be written");
}

#[test]
fn mqtt_in_a_storm_of_faults_no_letter_is_lost_and_each_life_of_the_host_adds_one_at_most() {
    const COUNT: u64 = 20_000;
    const KILLS: u64 = 4;
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let site = SiteFolder::new("{ shards: 2 }", &broker.address());
    site.policy("roomy", &[GOES_ON, "deadLetters: { count: 1000000, bytes: 1Gi }"]);
    site.tenant("a", "roomy");
    site.dataflow("a", "flow", &[NOTHING]);
    let mut host = Host::up(site.path());
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, numbers("a/in/flow", 0..COUNT)));
    let lines = || lines_below(&site.path().join(".tidegate/dead-letters/a/flow"));
    for kill in 1..=KILLS {
        eventually("letters come", || lines() >= kill * COUNT / (KILLS + 1));
        host.kill();
        tear_last_line(&site.path().join(".tidegate/dead-letters/a/flow"));
        host = Host::up(site.path());
    }
    publisher.join().expect("publishing does not fail");
    let mut letters = Vec::new();
    eventually("all are letters", || {
        letters = payloads(&host.dead_letters());
        letters.iter().collect::<BTreeSet<_>>().len() as u64 == COUNT
    });
    let mut times = BTreeMap::<_, u64>::new();
    letters.iter().for_each(|number| *times.entry(*number).or_default() += 1);
    assert!(times.keys().copied().eq(0..COUNT), "lost");
    assert!(times.values().all(|times| *times <= 1 + KILLS), "{:?}", times.values().max());
    let ids: BTreeSet<_> = host.dead_letters().iter().map(|letter| letter.id).collect();
    assert_eq!(ids.len(), letters.len(), "each has a number of its own");
    assert!(host.dead_letters().iter().all(|letter| letter.reason == Reason::Trap));
    eprintln!("{} letters twice after {KILLS} kills", letters.len() as u64 - COUNT);
    host.stop();
}

fn lines_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let texts = entries.flatten().filter_map(|entry| fs::read(entry.path()).ok());
    texts.map(|text| text.iter().filter(|byte| **byte == b'\n').count() as u64).sum()
}

#[test]
fn letters_of_an_earlier_host_are_read_and_kept() {
    let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
    let old = site.path().join(".tidegate/dead-letters/a");
    fs::create_dir_all(&old).expect("a folder");
    let line = r#"{"at":"2026-01-31T12:00:00.000Z","tenant":"a","dataflow":"flow","source":"in","sequence":4,"reason":"trap","detail":"it trapped","fuel":1,"topic":"t","payload":"1"}"#;
    fs::write(old.join("flow.jsonl"), format!("{line}\n{line}\n{{\"at\"")).expect("it can be written");
    assert_eq!(ids(&letters_of(&site, &["list", "--json"])), [1, 2]);
    assert_eq!(json(&letters_of(&site, &["discard", "1", "--json"])), json!({ "discarded": 1 }));
    assert_eq!(ids(&letters_of(&site, &["list", "--json"])), [2]);
}
