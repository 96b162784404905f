//! What operators keep: requests of a guest through AIO's `state-store`, in AIO's
//! types, to the key space of its tenant.

use std::{fs::File, io::Write as _, path::Path, sync::Arc};

use tidegate::{guest::OperatorKind::Map, resource::Limits, store::StateLimits, tenant::Tenant};
use tidegate_benches::rig::{Rig, tenant};

use crate::{
    mosquitto::eventually,
    site::{Flow, Site, payloads},
};

/// What one tenant's operator answers to requests, in order.
fn answers(tenant: &Arc<Tenant>, requests: &[&str]) -> Vec<String> {
    let mut rig = Rig::new(4, 4);
    let mut flow = rig.install(tenant, "flow", &[("aio_state", Map, &[])]);
    flow.send(requests);
    rig.settle();
    flow.receive()
}

fn check(tenant: &Arc<Tenant>, steps: &[(&str, &str)]) {
    let requests: Vec<_> = steps.iter().map(|(request, _)| *request).collect();
    for ((request, expected), answer) in steps.iter().zip(answers(tenant, &requests)) {
        assert_eq!(answer, *expected, "{request}");
    }
}

/// Seconds since the epoch, so many from now.
fn token(ahead: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs() as i64 + ahead
}

#[test]
fn a_guest_reads_writes_and_deletes_through_aios_interface() {
    check(
        &tenant("weather"),
        &[
            ("get a", "none"),
            ("set a 1", "true"),
            ("get a", "1"),
            ("set a 2 nx", "false"),
            ("set a 2 nex", "false"),
            ("set a 1 nex", "true"),
            ("set b 2 nx", "true"),
            ("get a", "1"),
            ("vdel a 2", "-1"),
            ("vdel a 1", "1"),
            ("vdel a 1", "0"),
            ("del b", "1"),
            ("del b", "0"),
            ("get b", "none"),
            ("set c 1 expires=1000", "true"),
            ("get c", "1"),
            ("set c 1 expires=0", "request-error: an expiry of zero"),
            ("get ", "request-error: the key length is zero"),
        ],
    );
}

#[test]
fn a_guests_fencing_tokens_are_held_against_each_other() {
    let (older, newer, ahead) = (token(-20), token(-10), token(1000));
    let stale = "request-error: the request fencing token is a lower version than the fencing token \
                 protecting the resource";
    let missing = "request-error: a fencing token is required for this request";
    check(
        &tenant("weather"),
        &[
            (&format!("set a 1 token={newer}"), "true"),
            (&format!("set a 2 token={older}"), stale),
            ("set a 2", missing),
            (&format!("del a token={older}"), stale),
            ("del a", missing),
            (&format!("vdel a 1 token={older}"), stale),
            ("vdel a 1", missing),
            ("get a", "1"),
            (
                &format!("set a 2 token={ahead}"),
                "request-error: the request fencing token timestamp is too far in the future",
            ),
            (&format!("set a 2 token={newer}"), "true"),
            (&format!("vdel a 2 token={newer}"), "1"),
            ("set a 3", "true"),
        ],
    );
}

#[test]
fn limits_of_state_are_said_to_the_guest_and_raised_they_let_it_pass() {
    let steps = ["fill a 600", "fill b 300", "set c 1"];
    let big = StateLimits { keys_max: 3, bytes_max: 10_000, value_bytes_max: 600 };
    for (state, expected) in [
        (big, ["true", "true", "true"]),
        (
            StateLimits { keys_max: 2, ..big },
            ["true", "true", "request-error: the quota has been exceeded: 2 keys are allowed"],
        ),
        (
            StateLimits { bytes_max: 700, ..big },
            ["true", "request-error: the quota has been exceeded: 700 bytes of state are allowed", "true"],
        ),
        (
            StateLimits { value_bytes_max: 599, ..big },
            ["request-error: the value has 600 bytes, 599 are allowed", "true", "true"],
        ),
    ] {
        let tenant = Tenant::new("weather", Limits { state, ..Limits::default() });
        assert_eq!(answers(&tenant, &steps), expected);
        assert_eq!(tenant.keys.refused(), u64::from(expected != ["true"; 3]));
    }
}

const FLOW: Flow<'_> = Flow {
    tenant: "a",
    name: "ask",
    from: ("in", "a/in"),
    to: ("out", "a/out"),
    operators: &[("map", "aio_state")],
};

/// Text of the answers so far.
fn said(path: &Path) -> Vec<String> {
    payloads(path).iter().map(|text| text.trim_matches('"').to_owned()).collect()
}

fn ask(path: &Path, request: &str) {
    let mut file = File::options().create(true).append(true).open(path).expect("it can be written");
    writeln!(file, "\"{request}\"").expect("it can be written");
}

#[test]
fn what_tenants_keep_is_their_own_and_outlives_a_kill() {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
        ("in2", "{ endpointType: File, fileSettings: { path: in2.jsonl } }"),
        ("out2", "{ endpointType: File, fileSettings: { path: out2.jsonl } }"),
    ];
    let site = Site::new("{ shards: 2 }", &endpoints);
    site.flow(&FLOW);
    site.flow(&Flow { tenant: "b", from: ("in2", "b/in"), to: ("out2", "b/out"), ..FLOW });
    let path = |name: &str| site.dir().join(name);
    let mut host = site.up();
    for round in 0..5 {
        for (tenant, input, output) in [("a", "in.jsonl", "out.jsonl"), ("b", "in2.jsonl", "out2.jsonl")] {
            let before = if round == 0 { "none".to_owned() } else { format!("{tenant}{}", round - 1) };
            ask(&path(input), "get key");
            ask(&path(input), &format!("set key {tenant}{round}"));
            // Lines may come again after a kill; a request of the round's own ends it.
            ask(&path(input), &format!("get none{round}"));
            ask(&path(input), "get key");
            let last = format!("{tenant}{round}");
            eventually("all are answered", || said(&path(output)).last() == Some(&last));
            let said = said(&path(output));
            let first_of_round = said.iter().rposition(|it| it == "true").expect("it was set");
            assert!(
                said[..first_of_round].last() == Some(&before) || said.contains(&before),
                "round {round} of {tenant}: {said:?}"
            );
            let other = if tenant == "a" { "b" } else { "a" };
            assert!(!said.iter().any(|it| it.starts_with(other)), "{tenant} sees the other's: {said:?}");
        }
        host.kill();
        host = site.up();
    }
    let status = site.status();
    assert_eq!(status["tenants"][0]["stateRefused"], 0, "{status}");
    host.stop();
}
