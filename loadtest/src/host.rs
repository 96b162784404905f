//! The host under test, as its users see it: its binary and its commands.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::process::{Process, output_within};

/// How long a host may take to start: thousands of tenants take a while.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// How long it may take to answer a command: a deploy of what compiles slowly takes a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// A host that this run started.
pub struct Host {
    binary: PathBuf,
    site: PathBuf,
    data: PathBuf,
    log: PathBuf,
    launch: Launch,
    process: Option<Process>,
    /// Whose memory and CPU are looked at; another after each start.
    id: Arc<AtomicU32>,
}

/// How it is started, besides what all are.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Cores that it is bound to, if any.
    pub cores: Vec<usize>,
    pub variables: Vec<(String, String)>,
    /// A program and its arguments that become the host, given its command line.
    pub through: Vec<String>,
}

/// What became of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// With what the host said.
    Refused(String),
}

impl Host {
    /// Starts it on the site folder and waits until it is ready.
    pub fn start(binary: PathBuf, folder: &Path, site: &Path, launch: Launch) -> anyhow::Result<Self> {
        let mut host = Host {
            binary,
            site: site.to_owned(),
            data: folder.join("data"),
            log: folder.join("host.log"),
            launch,
            process: None,
            id: Arc::default(),
        };
        host.run(true)?;
        Ok(host)
    }

    fn run(&mut self, first: bool) -> anyhow::Result<()> {
        let mut words = self.launch.through.iter().map(OsStr::new).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).envs(self.launch.variables.iter().cloned());
        command.args(["up", "--every", "0s", "--data"]).arg(&self.data);
        if first {
            command.arg(&self.site);
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process::start(&mut command, &self.launch.cores)?;
        self.wait_until_ready(process.child().stdout.take().context("piped")?)?;
        self.id.store(process.id(), Ordering::SeqCst);
        self.process = Some(process);
        Ok(())
    }

    fn wait_until_ready(&self, stdout: ChildStdout) -> anyhow::Result<()> {
        let (ready, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let _ = ready.send(lines.any(|line| line.starts_with("ready")));
            // The rest is read all the same: a full pipe would stop it.
            lines.for_each(drop);
        });
        match said.recv_timeout(READY_WITHIN) {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the host ended before it was ready\n{}", self.last_words()),
            Err(_) => bail!("the host is not ready within {READY_WITHIN:?}\n{}", self.last_words()),
        }
    }

    /// The end of what it wrote to standard error.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Its process's number, kept up to date.
    pub fn id(&self) -> Arc<AtomicU32> {
        self.id.clone()
    }

    /// An error if it is no longer there, with what it said last.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.process.as_mut().and_then(Process::ended);
        match ended {
            None => Ok(()),
            Some(status) => bail!("the host ended by itself, with {status}\n{}", self.last_words()),
        }
    }

    /// SIGKILL; [`Self::start_again`] brings it back.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it runs")?.kill()
    }

    /// Starts on what it has on disk, after [`Self::kill`].
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.run(false)
    }

    /// SIGKILL, and a start on what it has on disk.
    pub fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.start_again()
    }

    /// Where its data is.
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn apply(&self) -> anyhow::Result<Applied> {
        let mut command = Command::new(&self.binary);
        command.args(["apply", "--data"]).arg(&self.data).arg(&self.site);
        let output = output_within(&mut command, ANSWER_WITHIN)?;
        if output.status.success() {
            return Ok(Applied::Done);
        }
        let said =
            String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
        Ok(Applied::Refused(said.trim().to_owned()))
    }

    /// Its live state, as `tidegate status` shows it.
    pub fn status(&self) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.binary);
        command.args(["status", "--json", "--data"]).arg(&self.data);
        let output = output_within(&mut command, ANSWER_WITHIN)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        self.process.take().context("it runs")?.stop()
    }
}

/// Its version, as the binary says.
pub fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// The host's binary: `TIDEGATE_BINARY`, one beside this program, or one on the PATH.
pub fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_BINARY") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "TIDEGATE_BINARY names {}, which is not there", path.display());
        return Ok(path);
    }
    let beside = std::env::current_exe()?.with_file_name("tidegate");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&folders).map(|folder| folder.join("tidegate"));
    std::iter::once(beside.clone()).chain(on_path).find(|path| path.is_file()).with_context(|| {
        format!(
            "there is no host to test: build {} (`cargo build --release -p tidegate`), name one in \
             TIDEGATE_BINARY, or point `--against` at the broker of one that runs",
            beside.display()
        )
    })
}
