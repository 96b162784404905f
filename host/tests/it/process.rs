//! The host's real binary: commands that end, and a host that runs.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::Value;
use tidegate::dead_letter::Record;

use crate::mosquitto::{WITHIN, eventually};

/// The binary, with a cache of compiled components that runs of this test share.
pub fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// What a command that has ended said.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn expect_success(&self) {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
    }
}

pub fn output(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A running host; killed when dropped.
pub struct Host {
    child: Child,
    data: PathBuf,
}

impl Host {
    /// On a site folder, with its state inside; returns once it is ready.
    pub fn up(site: &Path) -> Self {
        Self::up_with(site, "")
    }

    /// With a bug planted.
    pub fn up_with(site: &Path, plant: &str) -> Self {
        let mut command = tidegate();
        command.env("TIDEGATE_PLANT", plant);
        Self::started(command, site)
    }

    /// By a command that ends with the program's name.
    pub fn started(mut command: Command, site: &Path) -> Self {
        let mut child = command
            .args(["up", "--every", "0s"])
            .arg(site)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.starts_with("ready") {
                    _ = tx.send(());
                }
            }
        });
        let host = Host { child, data: site.join(".tidegate") };
        rx.recv_timeout(WITHIN).expect("the host is ready in time");
        host
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What `tidegate status --json` shows.
    pub fn status(&self) -> Status {
        let shown = output(tidegate().args(["status", "--json", "--data"]).arg(&self.data));
        shown.expect_success();
        Status(serde_json::from_str(&shown.stdout).expect("one JSON document"))
    }

    /// `tidegate dead-letters` with these arguments.
    pub fn letters(&self, arguments: &[&str]) -> Output {
        output(tidegate().arg("dead-letters").args(arguments).arg("--data").arg(&self.data))
    }

    /// What `tidegate dead-letters list --json` shows.
    pub fn dead_letters(&self) -> Vec<Record> {
        let shown = output(tidegate().args(["dead-letters", "list", "--json", "--data"]).arg(&self.data));
        shown.expect_success();
        shown
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("one JSON document a line"))
            .collect()
    }

    /// Until the state holds what is wanted; gives it.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.status();
        eventually(what, || {
            let held = holds(&status);
            if !held {
                status = self.status();
            }
            held
        });
        status
    }

    /// `tidegate apply` of the folder.
    pub fn apply(&self, site: &Path) -> Output {
        output(tidegate().arg("apply").arg(site).arg("--data").arg(&self.data))
    }

    /// The same, when nothing is wrong with it; gives the names of what it changed.
    pub fn apply_well(&self, site: &Path) -> Vec<String> {
        let applied = self.apply(site);
        applied.expect_success();
        let lines = applied.stdout.lines().filter(|line| !line.starts_with("unchanged"));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM: drains, settles, closes.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A host's state, as its socket gives it.
#[derive(Debug)]
pub struct Status(pub Value);

impl Status {
    /// The document of `tenant/dataflow`.
    pub fn dataflow(&self, name: &str) -> &Value {
        let (tenant, dataflow) = name.split_once('/').expect("tenant/dataflow");
        let named = |list: &'_ Value, name: &str| {
            list.as_array().and_then(|list| list.iter().position(|it| it["name"] == name))
        };
        let tenants = &self.0["tenants"];
        let tenant = named(tenants, tenant).unwrap_or_else(|| panic!("no {tenant} in {}", self.0));
        let dataflows = &tenants[tenant]["dataflows"];
        let dataflow = named(dataflows, dataflow).unwrap_or_else(|| panic!("no {dataflow} in {dataflows}"));
        &dataflows[dataflow]
    }

    /// A counter of `tenant/dataflow`.
    pub fn count(&self, name: &str, counter: &str) -> u64 {
        let counters = &self.dataflow(name)["counters"];
        counters[counter].as_u64().unwrap_or_else(|| panic!("no {counter} in {counters}"))
    }

    fn dataflows(&self) -> impl Iterator<Item = &Value> {
        let tenants = self.0["tenants"].as_array().into_iter().flatten();
        tenants.flat_map(|tenant| tenant["dataflows"].as_array().into_iter().flatten())
    }

    /// Every end of every tenant's connections.
    pub fn connections(&self) -> impl Iterator<Item = &Value> {
        let sources = self.dataflows().flat_map(|flow| flow["sources"].as_array().into_iter().flatten());
        let tenants = self.0["tenants"].as_array().into_iter().flatten();
        sources.chain(tenants.flat_map(|tenant| tenant["sinks"].as_array().into_iter().flatten()))
    }

    /// A counter of all dataflows together.
    pub fn sum(&self, counter: &str) -> u64 {
        self.dataflows().filter_map(|flow| flow["counters"][counter].as_u64()).sum()
    }

    /// A counter of all operators together.
    pub fn sum_of_operators(&self, counter: &str) -> u64 {
        let operators = self.dataflows().flat_map(|flow| flow["operators"].as_array().into_iter().flatten());
        operators.filter_map(|operator| operator["counters"][counter].as_u64()).sum()
    }
}

/// A pipe that nobody reads any more.
fn unread() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().expect("a pipe");
    writer
}

#[test]
fn nobody_has_to_read_what_is_printed() {
    let mut inspect = tidegate();
    inspect.arg("inspect").arg(tidegate_benches::rig::guest_path("pass_through")).stdout(unread());
    let inspected = output(&mut inspect);
    assert_eq!((inspected.code, inspected.stderr.as_str()), (Some(0), ""));
    let refused = output(tidegate().args(["check", "/nowhere"]).stderr(unread()));
    assert_eq!(refused.code, Some(1));

    let site = crate::folder::SiteFolder::new("{}", "127.0.0.1:1");
    site.tenant("a", "standard");
    site.dataflow("a", "flow", &[("map", "pass_through", &[])]);
    let mut command = tidegate();
    command.args(["up", "--every", "1ms"]).arg(site.path()).stdout(unread()).stderr(unread());
    let child = command.spawn().expect("the host starts");
    let host = Host { child, data: site.path().join(".tidegate") };
    let applied = || host.apply(site.path()).code == Some(0);
    eventually("it answers", applied);
    // By now it has said that it is ready, and a line for the tenant many times.
    assert!(applied());
    host.stop();
}
