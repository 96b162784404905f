//! What a site asks of the machine: `tidegate plan` says it, and a host holds to it.

use std::os::unix::process::CommandExt as _;

use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

use crate::{
    folder::SiteFolder,
    process::{Host, Output, output, tidegate},
};

/// A site with so many dataflows of one tenant, each with two connections at most.
fn site(host: &str, dataflows: usize) -> SiteFolder {
    let site = SiteFolder::new(host, "127.0.0.1:1");
    site.policy("p", &["connections: 2000"]);
    site.tenant("a", "p");
    for index in 0..dataflows {
        site.dataflow("a", &format!("flow-{index}"), &[("map", "pass_through", &[])]);
    }
    site
}

/// A command of a process that may open no more files.
#[allow(unsafe_code, reason = "a limit that only the child has is set between fork and exec")]
fn with_files(command: &mut std::process::Command, files: u64) -> Output {
    let limit = Rlimit { current: Some(files), maximum: Some(files) };
    // SAFETY: setrlimit is a system call alone: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit.clone())?)) };
    output(command)
}

fn line<'a>(plan: &'a Value, rule: &str) -> &'a Value {
    let lines = plan["lines"].as_array().expect("a list");
    lines.iter().find(|line| line["rule"] == rule).unwrap_or_else(|| panic!("no {rule} in {plan}"))
}
