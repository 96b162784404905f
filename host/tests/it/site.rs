//! A site folder of few lines and the real binary on it, for tests of what a user
//! types.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
};

use serde_json::Value;
use tidegate_benches::{rig::guest_path, site::chain};

use crate::mosquitto::{WITHIN, eventually};

/// A site below a folder of its own, with its data beside it.
pub struct Site {
    folder: tempfile::TempDir,
}

/// One tenant's dataflow, from an endpoint to an endpoint through operators in a row.
pub struct Flow<'a> {
    pub tenant: &'a str,
    pub name: &'a str,
    /// Endpoint and topic.
    pub from: (&'a str, &'a str),
    pub to: (&'a str, &'a str),
    /// Kind and component, such as `("map", "pass_through")`.
    pub operators: &'a [(&'a str, &'a str)],
}

impl<'a> Flow<'a> {
    /// The dataflow `flow` of the tenant `a`, which passes everything on.
    pub fn passing(from: (&'a str, &'a str), to: (&'a str, &'a str)) -> Self {
        Flow { tenant: "a", name: "flow", from, to, operators: &[("map", "pass_through")] }
    }
}

impl Site {
    /// `host` is a Host's spec; each endpoint a name and its spec.
    pub fn new(host: &str, endpoints: &[(&str, &str)]) -> Self {
        let site = Site { folder: tempfile::tempdir().expect("a folder") };
        let grants: String = endpoints
            .iter()
            .map(|(name, _)| format!("    - {{ name: {name}, read: [\"#\"], write: [\"#\"] }}\n"))
            .collect();
        let mut platform = format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: team }}\nspec:\n  \
             world: tidegate:policy/standard@0.1.0\n  endpoints:\n{grants}"
        );
        for (name, spec) in endpoints {
            platform += &format!(
                "---\napiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
            );
        }
        site.write("platform/all.yaml", &platform);
        site.write(
            "platform/host.yaml",
            &format!("apiVersion: tidegate.dev/v1\nkind: Host\nmetadata: {{ name: test }}\nspec: {host}\n"),
        );
        site
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().expect("below the site")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    pub fn remove(&self, path: &str) {
        let path = self.dir().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it is there");
    }

    /// Adds lines to the policy.
    pub fn limit(&self, lines: &str) {
        let platform = fs::read_to_string(self.dir().join("platform/all.yaml")).expect("it is there");
        let limited = platform.replace("  endpoints:\n", &format!("  {lines}\n  endpoints:\n"));
        self.write("platform/all.yaml", &limited);
    }

    /// Adds a tenant with one dataflow, or puts another in its place.
    pub fn flow<'a>(&self, flow: &Flow<'a>) {
        let Flow { tenant, name, from, to, operators } = flow;
        self.write(
            &format!("platform/{tenant}.yaml"),
            &format!(
                "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\nspec: {{ policy: team }}\n"
            ),
        );
        for (_, component) in *operators {
            let place = self.dir().join(format!("tenants/{tenant}/artifacts/{component}/1.wasm"));
            fs::create_dir_all(place.parent().expect("below the site")).expect("a folder");
            fs::copy(guest_path(component), place).expect("the component is built");
        }
        let link = |&(kind, module): &(&'a str, &'a str)| chain::Link { kind, module, configuration: &[] };
        let graph = chain::graph(name, &operators.iter().map(link).collect::<Vec<_>>());
        self.write(&format!("tenants/{tenant}/artifacts/{name}/1.yaml"), &graph);
        let dataflow = chain::dataflow(name, name, *from, *to);
        self.write(&format!("tenants/{tenant}/dataflows/{name}.yaml"), &dataflow);
    }

    /// Starts the host on the folder.
    pub fn up(&self) -> Up {
        Up::start(tidegate().arg("up").arg(self.dir()).arg("--data").arg(self.data())).expect("it starts")
    }

    /// Starts the host on the folder, with a bug on purpose.
    pub fn up_planted(&self, plant: &str) -> Up {
        let mut command = tidegate();
        command.env("TIDEGATE_PLANT", plant).arg("up").arg(self.dir());
        Up::start(command.arg("--data").arg(self.data())).expect("it starts")
    }

    /// Starts the host on what was applied last.
    pub fn up_from_data(&self) -> Up {
        Up::start(tidegate().args(["up", "--data"]).arg(self.data())).expect("it starts")
    }

    /// Runs a command on the host's data folder.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(tidegate().args(arguments).arg("--data").arg(self.data()).output().expect("it runs"))
    }

    pub fn apply(&self) -> Ran {
        self.run(&["apply", self.dir().to_str().expect("UTF-8")])
    }

    /// The status document of the running host.
    pub fn status(&self) -> Value {
        let ran = self.run(&["status", "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("a JSON document")
    }

    /// A counter of the first dataflow of a tenant.
    pub fn counter(&self, tenant: &str, name: &str) -> u64 {
        let status = self.status();
        let tenants = status["tenants"].as_array().expect("a list");
        let tenant = tenants.iter().find(|it| it["name"] == tenant).expect("it runs");
        tenant["dataflows"][0]["counters"][name].as_u64().expect("a count")
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

pub fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("NO_COLOR", "1");
    command
}

/// A running host; killed when dropped.
pub struct Up {
    pub child: Child,
    pub lines: Arc<Mutex<Vec<String>>>,
    pub log: Arc<Mutex<String>>,
}

impl Up {
    /// Returns once it is ready, or how it ended instead.
    pub fn start(command: &mut Command) -> Result<Self, Ran> {
        let mut child = command
            .args(["--every", "0s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let (lines, log) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<String>>::default());
        let (tx, rx) = mpsc::channel();
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let is_ready = line.starts_with("ready");
                kept.lock().expect("no panic").push(line);
                if is_ready {
                    _ = tx.send(());
                }
            }
        });
        let kept = log.clone();
        let logging = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut bytes) {
                kept.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
        });
        match rx.recv_timeout(WITHIN) {
            Ok(()) => Ok(Up { child, lines, log }),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let code = child.wait().expect("it ends").code().unwrap_or(-1);
                logging.join().expect("no panic");
                let stdout = lines.lock().expect("no panic").join("\n");
                let stderr = log.lock().expect("no panic").clone();
                Err(Ran { code, stdout, stderr })
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("the host is not ready in time: {}", log.lock().expect("no panic"))
            }
        }
    }

    pub fn line(&self, start: &str) -> Option<String> {
        self.lines.lock().expect("no panic").iter().find(|line| line.starts_with(start)).cloned()
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM: drains, settles, closes.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let mut status = None;
        eventually("the host stops", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{}", self.log());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The payloads of a file of JSON lines, as text.
pub fn payloads(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["payload"].to_string()).collect()
}
