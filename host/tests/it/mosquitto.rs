//! A real mosquitto on a loopback port of its own, with a data folder of its own,
//! that a test can stop, kill and start again; and a proxy before it that changes what
//! clients ask for.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tidegate_benches::mosquitto::{find, library_path};
use tidegate_loadtest::proxy::Proxy;

/// How long anything on this machine may take before a test gives up.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Where the broker is. `None` only where `cargo xtask test` has said so.
pub fn binary() -> Option<PathBuf> {
    let found = find();
    if found.is_none() && std::env::var_os("TIDEGATE_WITHOUT_MOSQUITTO").is_none() {
        panic!("no mosquitto: run `cargo xtask test`, which fetches it, or `apt-get install mosquitto`");
    }
    found
}

/// A running broker; killed when dropped.
pub struct Mosquitto {
    binary: PathBuf,
    folder: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// With these lines besides what every test needs; `None` where there is no
    /// mosquitto to be had.
    pub fn start(options: &[&str]) -> Option<Self> {
        let Some(binary) = binary() else {
            eprintln!("SKIPPED: no mosquitto");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut config = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n");
        config += &format!("max_queued_messages 0\npersistence_location {}/\n", folder.path().display());
        if rustix::process::geteuid().is_root() {
            // It would otherwise become a user that cannot write the folder.
            config += "user root\n";
        }
        for option in options {
            config += &format!("{option}\n");
        }
        fs::write(folder.path().join("mosquitto.conf"), config).expect("the folder can be written");
        let mut mosquitto = Mosquitto { binary, folder, port, child: None };
        mosquitto.restart();
        Some(mosquitto)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it on the same port and folder, after [`Self::stop`] or [`Self::kill`].
    pub fn restart(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        command.stdout(Stdio::null()).stderr(log.expect("the folder can be written"));
        if let Some(path) = library_path(&self.binary) {
            command.env("LD_LIBRARY_PATH", path);
        }
        self.child = Some(command.spawn().expect("mosquitto starts"));
        // It listens before it is ready: what SIGTERM says until then, it forgets.
        eventually("mosquitto answers", || self.answers().is_ok_and(|it| it));
    }

    /// Whether it accepts a client.
    fn answers(&self) -> io::Result<bool> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(WITHIN))?;
        // CONNECT of MQTT 3.1.1 with a clean session, and DISCONNECT.
        stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack)?;
        stream.write_all(b"\xe0\x00")?;
        Ok(connack == [0x20, 2, 0, 0])
    }

    /// Ends it in order: it saves what persistence says.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
        eventually("mosquitto ends", || child.try_wait().expect("it is our child").is_some());
    }

    /// kill -9: what it has not saved is gone.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    listener.local_addr().expect("it is bound").port()
}

/// Looks again and again until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < until, "not within {WITHIN:?}: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// A proxy before a broker that lets clients of MQTT v5 be sent 65,535 messages at once,
/// whatever they want.
pub fn widening(to: u16) -> Proxy {
    const CONNECT: u8 = 0x10;
    const RECEIVE_MAXIMUM: u8 = 0x21;
    Proxy::editing(to, |said| {
        if said[0] == CONNECT {
            // Behind the fixed and the variable header; nothing before it is like it.
            let properties = &mut said[12..];
            if let Some(at) = properties.iter().position(|&byte| byte == RECEIVE_MAXIMUM) {
                properties[at + 1..at + 3].fill(0xff);
            }
        }
    })
}
