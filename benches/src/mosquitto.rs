//! A mosquitto for a bench, on a free loopback port, without limits of its own.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::site::{Process, eventually};

/// A running broker.
pub struct Broker {
    pub process: Process,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Broker {
    pub fn start() -> anyhow::Result<Self> {
        let binary = find().context(
            "no mosquitto: run `cargo xtask bench`, which fetches it, or `apt-get install mosquitto`",
        )?;
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut config = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n");
        config += "max_inflight_messages 0\nmax_queued_messages 0\nlog_type error\n";
        if rustix::process::geteuid().is_root() {
            config += "user root\n";
        }
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new(&binary);
        command.arg("-c").arg(file);
        if let Some(path) = library_path(&binary) {
            command.env("LD_LIBRARY_PATH", path);
        }
        let process = Process::start(&mut command, None)?;
        eventually("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Broker { process, port, _folder: folder })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
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

/// Folders of libraries that were unpacked beside the binary, for `LD_LIBRARY_PATH`.
pub fn library_path(binary: &Path) -> Option<String> {
    let root = binary.ancestors().nth(3).filter(|root| root.parent().is_some())?;
    let below = |folder: &str| std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let folders = below("usr/lib").chain(below("lib")).map(|entry| entry.path());
    let folders: Vec<String> =
        folders.filter(|path| path.is_dir()).map(|path| path.display().to_string()).collect();
    (!folders.is_empty()).then(|| folders.join(":"))
}
