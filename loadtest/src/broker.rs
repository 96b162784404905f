//! A mosquitto for a run, on a free loopback port, without limits of its own and with
//! sessions that outlast it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::process::Process;

/// How long it may take to listen.
const LISTEN_WITHIN: Duration = Duration::from_secs(30);

pub struct Mosquitto {
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    cores: Vec<usize>,
    process: Option<Process>,
}

impl Mosquitto {
    pub fn start(binary: PathBuf, folder: &Path, cores: &[usize]) -> anyhow::Result<Self> {
        let folder = folder.join("mosquitto");
        std::fs::create_dir_all(&folder)?;
        let port = free_port()?;
        let mut config = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n");
        config += "max_inflight_messages 0\nmax_queued_messages 0\nlog_type error\n";
        config += &format!("persistence true\npersistence_location {}/\n", folder.display());
        if rustix::process::geteuid().is_root() {
            config += "user root\n";
        }
        std::fs::write(folder.join("mosquitto.conf"), config)?;
        let mut broker = Mosquitto { binary, folder, port, cores: cores.to_vec(), process: None };
        broker.run()?;
        Ok(broker)
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        if let Some(path) = library_path(&self.binary) {
            command.env("LD_LIBRARY_PATH", path);
        }
        let log = self.folder.join("mosquitto.log");
        let process = Process::start_server(&mut command, &self.cores, &[self.port], &log, LISTEN_WITHIN)?;
        self.process = Some(process);
        Ok(())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its kind and version, as it says.
    pub fn version(&self) -> String {
        let mut command = Command::new(&self.binary);
        command.arg("-h");
        if let Some(path) = library_path(&self.binary) {
            command.env("LD_LIBRARY_PATH", path);
        }
        let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let first = output.ok().and_then(|text| text.lines().next().map(str::to_owned));
        first.unwrap_or_else(|| "mosquitto".into())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it, so that it writes down what it holds, and starts it again.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.process.take() {
            process.stop()?;
        }
        self.run()
    }

    /// Has it write down what it holds while it runs.
    pub fn save(&self, within: Duration) -> anyhow::Result<()> {
        let file = self.folder.join("mosquitto.db");
        let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
        let (before, until) = (written(), Instant::now() + within);
        self.process()?.signal(Signal::USR1)?;
        // It writes another file and puts that in the place of the one before.
        while written() == before {
            ensure!(Instant::now() < until, "mosquitto wrote nothing down within {within:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// kill -9: what it has not written down is gone. [`Self::restart`] brings it back.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// The running process.
    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("it runs")
    }
}

/// A port that is free now.
pub fn free_port() -> anyhow::Result<u16> {
    let [port] = free_ports()?;
    Ok(port)
}

/// Ports that are free now, no two of them the same: asked for one after the other, the system
/// may give one again.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// Where the broker is: `TIDEGATE_MOSQUITTO`, what `cargo xtask` fetched, or one on
/// the PATH.
pub fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_MOSQUITTO") {
        return Some(path.into());
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/mosquitto/usr/sbin/mosquitto");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs it where only root's PATH leads.
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin".into()]);
    let on_path = folders.map(|folder| folder.join("mosquitto"));
    std::iter::once(fetched).chain(on_path).find(|path| path.is_file())
}

/// How to get one, for messages.
pub const INSTALL: &str = "install it (`sudo apt-get install mosquitto`), or name one in TIDEGATE_MOSQUITTO; `cargo xtask bench` fetches it as well";

/// Folders of libraries that were unpacked beside the binary, for `LD_LIBRARY_PATH`.
pub fn library_path(binary: &Path) -> Option<String> {
    let root = binary.ancestors().nth(3).filter(|root| root.parent().is_some())?;
    let below = |folder: &str| std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let folders = below("usr/lib").chain(below("lib")).map(|entry| entry.path());
    let folders: Vec<String> =
        folders.filter(|path| path.is_dir()).map(|path| path.display().to_string()).collect();
    (!folders.is_empty()).then(|| folders.join(":"))
}
