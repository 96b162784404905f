//! A mosquitto for a bench, on a free loopback port, without limits of its own.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, bail};

use crate::site::{Process, eventually};

/// A running broker.
pub struct Broker {
    pub process: Process,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Broker {
    pub fn start() -> anyhow::Result<Self> {
        let binary = binary()?;
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
        let libraries = libraries(&binary);
        if !libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
        }
        let process = Process::start(&mut command, None)?;
        eventually("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Broker { process, port, _folder: folder })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// `TIDEGATE_MOSQUITTO`, which `cargo xtask bench` sets, or one on the PATH.
fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_MOSQUITTO") {
        return Ok(path.into());
    }
    let folders = std::env::var_os("PATH").context("no PATH")?;
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin".into()]);
    match folders.map(|folder| folder.join("mosquitto")).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => {
            bail!("no mosquitto: run `cargo xtask bench`, which fetches it, or `apt-get install mosquitto`")
        }
    }
}

/// Folders of libraries that were unpacked beside the binary.
fn libraries(binary: &std::path::Path) -> Vec<String> {
    let Some(root) = binary.ancestors().nth(3).filter(|root| root.parent().is_some()) else {
        return Vec::new();
    };
    let below = |folder: &str| std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let folders = below("usr/lib").chain(below("lib")).map(|entry| entry.path());
    folders.filter(|path| path.is_dir()).map(|path| path.display().to_string()).collect()
}
