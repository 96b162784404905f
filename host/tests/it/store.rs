//! The store under a disk that refuses writes for a while: the host goes on, says
//! so, and keeps what it had once the disk takes writes again. And the host's name.

use std::{fs::File, io::Write as _, process::Command};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    mosquitto::eventually,
    site::{Flow, Site, Up},
};

/// Lets the process write files up to this size, or none at all: what a full disk
/// does to it, with another number.
fn let_write(pid: Pid, bytes_max: Option<u64>) {
    let limit = Rlimit { current: bytes_max, maximum: None };
    prlimit(Some(pid), Resource::Fsize, limit).expect("the limit can be set");
}

#[test]
fn the_store_recovers_by_itself_when_the_disk_takes_writes_again() {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("memory", "{ endpointType: Memory }"),
    ];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&Flow::passing(("in", "in"), ("memory", "out")));
    let append = |text: &str| {
        let mut file =
            File::options().create(true).append(true).open(site.dir().join("in.jsonl")).expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
    };
    append("1\n");
    // The signal of that limit is ignored, as it is for a disk that is full.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tidegate"), "up"]);
    let host = Up::start(command.arg(site.dir()).arg("--data").arg(site.data())).expect("it starts");
    let pid = Pid::from_child(&host.child);
    eventually("the first line is settled", || site.counter("a", "delivered") == 1);
    let_write(pid, Some(0));
    append("2\n");
    eventually("the failure is said", || site.status()["storeFailure"].is_string());
    // Messages go on; the change is refused, since it could not be kept.
    append("3\n");
    eventually("lines are taken all the same", || site.counter("a", "delivered") == 3);
    site.write(
        "platform/b.yaml",
        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: { name: b }\nspec: { policy: team }\n",
    );
    let ran = site.apply();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    assert!(site.run(&["status"]).stdout.contains("the store cannot be written"));
    // What was used cannot be kept either, so that nothing is shown that may be lost.
    let used = site.run(&["usage"]);
    assert!(used.code == 1 && used.stderr.contains("cannot use the store"), "{}", used.stderr);
    let_write(pid, None);
    eventually("it recovers", || site.status()["storeFailure"].is_null());
    // None of it is missing then.
    let used = site.run(&["usage", "a", "--csv"]).stdout;
    let row: Vec<_> = used.lines().nth(1).expect("a row").split(',').collect();
    assert_eq!(row[6], "3", "{used}");
    assert_eq!(site.apply().code, 0);
    assert!(host.log().contains("the store works again"), "{}", host.log());
    host.kill();
    append("4\n");
    let host = site.up_from_data();
    eventually("it goes on", || site.counter("a", "delivered") >= 1);
    // Lines settled while the disk refused may come again; what was kept before does not.
    let received = site.counter("a", "received");
    assert!((1..=3).contains(&received), "{received} lines of four came again");
    host.stop();
}

#[test]
fn a_host_without_a_name_draws_one_and_keeps_it() {
    let site = Site::new("{ shards: 1 }", &[("memory", "{ endpointType: Memory }")]);
    site.remove("platform/host.yaml");
    let name = |host: Up| {
        let name = host.line("host: ").expect("it says its name");
        assert_eq!(site.status()["host"], name["host: ".len()..]);
        host.kill();
        name
    };
    let first = name(site.up());
    assert!(first.starts_with("host: host-"), "{first}");
    assert_eq!(name(site.up()), first);
    assert_eq!(name(site.up_from_data()), first);
}
