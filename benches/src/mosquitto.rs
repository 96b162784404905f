//! A mosquitto for a bench, on a free loopback port, without limits of its own.

use std::{
    net::{TcpListener, TcpStream},
    process::Command,
};

use anyhow::Context;

pub use tidegate_loadtest::broker::{find, library_path};

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
