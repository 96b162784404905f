//! Programs that a run starts: each in a process group of its own, so that Ctrl-C is
//! ours to handle, and none outlives the run.

use std::{
    fs,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cores::Cores;

/// How long a program may take to end when asked.
const END_WITHIN: Duration = Duration::from_secs(20);

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on some cores, or wherever the system likes if none are named.
    pub fn start(command: &mut Command, cores: &[usize]) -> anyhow::Result<Self> {
        command.process_group(0);
        let spawn = || -> anyhow::Result<Child> {
            // A child has the cores of the thread that starts it.
            if !cores.is_empty() {
                Cores::pin(cores)?;
            }
            Ok(command.spawn()?)
        };
        let child = thread::scope(|scope| scope.spawn(spawn).join().expect("it does not panic"));
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Process { child })
    }

    /// Starts a server and waits until it listens on its loopback ports. What it says goes to a
    /// log, and is told if it ends instead.
    pub fn start_server(
        command: &mut Command,
        cores: &[usize],
        ports: &[u16],
        log: &Path,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let name = command.get_program().display().to_string();
        let mut process = Self::start(command, cores)?;
        let until = Instant::now() + within;
        let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        while !ports.iter().all(listens) {
            let log = || fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = process.ended() {
                bail!("{name} ended with {status}: {}", log().trim_end());
            }
            ensure!(Instant::now() < until, "{name} does not listen: {}", log().trim_end());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// Until [`Self::go_on`] it does nothing, and keeps its connections.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL: no time to do anything.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and SIGKILL when that takes too long.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let until = Instant::now() + END_WITHIN;
        while self.ended().is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; an error, and the command killed, when that takes too long.
pub fn output_within(command: &mut Command, within: Duration) -> anyhow::Result<Output> {
    let program = command.get_program().display().to_string();
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let id = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    match end.recv_timeout(within) {
        Ok(output) => Ok(output?),
        Err(_) => {
            kill_process(id, Signal::KILL)?;
            bail!("{command:?} did not end within {within:?}")
        }
    }
}

/// What a program and those that it started take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident, page tables included.
    pub memory_bytes: u64,
    /// Of all cores, user and system, so far.
    pub cpu_seconds: f64,
}

/// Of a process and its children, by their number; nothing once they are gone.
pub fn usage(id: u32) -> Usage {
    let mut usage = of_one(id).unwrap_or_default();
    for child in children(id) {
        let child = self::usage(child);
        usage.memory_bytes += child.memory_bytes;
        usage.cpu_seconds += child.cpu_seconds;
    }
    usage
}

fn of_one(id: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold spaces. Its own time, and that of children that ended.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(Usage {
        // A process that has ended and was not waited for has no memory, but still its time.
        memory_bytes: (field("VmRSS").unwrap_or(0) + field("VmPTE").unwrap_or(0)) << 10,
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    })
}

fn children(id: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let read = |task: &Path| fs::read_to_string(task.join("children")).unwrap_or_default();
    let lists: Vec<String> = tasks.map(|task| read(&task.path())).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_gone() {
        let process = Process::start(Command::new("sleep").arg("600"), &[0]).expect("it starts");
        let id = process.id();
        assert!(usage(id).memory_bytes > 0);
        drop(process);
        assert_eq!(usage(id), Usage::default());
    }

    #[test]
    fn time_of_a_child_that_ended_is_not_lost_on_the_way() {
        // A shell that has a child spend some time, leaves it unwaited for, and goes on.
        let mut command = Command::new("sh");
        command.args(["-c", "(i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done) & exec sleep 600"]);
        let process = Process::start(&mut command, &[0]).expect("it starts");
        let until = Instant::now() + Duration::from_secs(60);
        let is_zombie = |id: u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
        };
        while !children(process.id()).into_iter().any(is_zombie) {
            assert!(Instant::now() < until, "it has no child that ended");
            thread::yield_now();
        }
        let alone = of_one(process.id()).expect("it runs").cpu_seconds;
        assert!(usage(process.id()).cpu_seconds > alone);
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let error = output_within(Command::new("sleep").arg("600"), Duration::from_millis(50));
        assert!(error.expect_err("it sleeps").to_string().contains("did not end within 50ms"));
        let output = output_within(Command::new("echo").arg("x"), Duration::from_secs(20)).expect("it ends");
        assert_eq!((output.status.success(), output.stdout.as_slice()), (true, &b"x\n"[..]));
    }

    #[test]
    fn usage_has_what_children_take() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600 & wait"]);
        let process = Process::start(&mut command, &[0]).expect("it starts");
        let until = Instant::now() + Duration::from_secs(20);
        while children(process.id()).len() < 2 {
            assert!(Instant::now() < until, "it has no children");
            thread::yield_now();
        }
        let ids = children(process.id());
        let alone = of_one(process.id()).expect("it runs").memory_bytes;
        assert!(usage(process.id()).memory_bytes > alone);
        for id in ids {
            let id = Pid::from_raw(id as i32).expect("a child");
            kill_process(id, Signal::KILL).expect("it runs");
        }
    }
}
