//! A site folder written by a bench or a test, and hosts on it: the release binary as
//! a process of its own, or the library's host in this one.

pub mod chain;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

pub use self::chain::Link;
use crate::rig::guest_path;

/// How long anything on this machine may take before a bench gives up.
pub const WITHIN: Duration = Duration::from_secs(600);

/// Looks again and again until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + WITHIN;
    while !holds() {
        ensure!(Instant::now() < until, "not within {WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

const TENANTS_PER_FILE: usize = 1_000;
const STANDARD: &str = include_str!("../../policies/standard.yaml");

/// For those who are to go on whatever happens to them.
pub const PATIENT: &str = "faults: { retries: 2, coolDown: 0s, quarantineAfter: 10000, within: 1ms }";

/// A site folder in the making.
pub struct SiteFolder {
    dir: PathBuf,
}

impl SiteFolder {
    /// Writes the Host and the endpoint `local`, which all tenants use.
    pub fn new(dir: &Path, host: &str, endpoint: &str) -> anyhow::Result<Self> {
        let platform = format!(
            "apiVersion: tidegate.dev/v1\nkind: Host\nmetadata: {{ name: bench }}\nspec: {{ {host} }}\n---\n{endpoint}"
        );
        let site = SiteFolder { dir: dir.to_owned() };
        site.write("platform/host.yaml", &platform)?;
        site.tenants([])?;
        Ok(site)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file of the site, below folders that may not be there yet.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().context("below the site")?)?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Names the tenants that there are, of those that were added, under `standard`.
    pub fn tenants<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
        self.tenants_under(names.into_iter().map(|name| (name, "standard")))
    }

    /// Names the tenants that there are, each with its policy.
    pub fn tenants_under<'a>(
        &self,
        tenants: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> anyhow::Result<()> {
        let tenants: Vec<_> = tenants.into_iter().collect();
        // At least one file, so that the one of an earlier call does not stay; and none
        // of more values than the host reads in one.
        let files = tenants.len().div_ceil(TENANTS_PER_FILE).max(1);
        for file in 0..files {
            let named = tenants.iter().skip(file * TENANTS_PER_FILE).take(TENANTS_PER_FILE);
            let documents: String = named
                .map(|(name, policy)| {
                    format!(
                        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {{ policy: {policy} }}\n---\n"
                    )
                })
                .collect();
            self.write(&format!("platform/tenants-{file}.yaml"), &documents)?;
        }
        Ok(())
    }

    /// Writes the policy `name`: `standard`, with these lines in the place of its own.
    pub fn policy(&self, name: &str, lines: &[&str]) -> anyhow::Result<()> {
        let key = |line: &str| line.split(':').next().map(|key| key.trim().to_owned());
        let keys: Vec<_> = lines.iter().filter_map(|line| key(line)).collect();
        let standard = STANDARD.replace("name: standard", &format!("name: {name}"));
        let kept = standard.lines().filter(|line| !key(line).is_some_and(|key| keys.contains(&key)));
        let mut text = String::new();
        for line in kept {
            text.push_str(line);
            text.push('\n');
            if line == "spec:" {
                lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
            }
        }
        self.write(&format!("platform/policy-{name}.yaml"), &text)
    }

    /// The folder of a tenant with one dataflow `flow`, from `TENANT/in` through the
    /// links in a row to `TENANT/out/t`.
    pub fn tenant(&self, name: &str, links: &[Link<'_>]) -> anyhow::Result<()> {
        self.tenant_on("local", name, links)
    }

    /// The same, from and to another endpoint than `local`.
    pub fn tenant_on(&self, endpoint: &str, name: &str, links: &[Link<'_>]) -> anyhow::Result<()> {
        self.dataflow_on(endpoint, name, "flow", links)
    }

    /// A dataflow of a tenant: as [`Self::tenant`], with a name of its own.
    pub fn dataflow(&self, tenant: &str, flow: &str, links: &[Link<'_>]) -> anyhow::Result<()> {
        self.dataflow_on("local", tenant, flow, links)
    }

    fn dataflow_on(
        &self,
        endpoint: &str,
        tenant: &str,
        flow: &str,
        links: &[Link<'_>],
    ) -> anyhow::Result<()> {
        let graph = if flow == "flow" { "graph".to_owned() } else { format!("graph-{flow}") };
        self.write(&format!("tenants/{tenant}/artifacts/{graph}/1.yaml"), &chain::graph(&graph, links))?;
        let (from, to) = (format!("{tenant}/in"), format!("{tenant}/out/t"));
        let dataflow = chain::dataflow(flow, &graph, (endpoint, &from), (endpoint, &to));
        self.write(&format!("tenants/{tenant}/dataflows/{flow}.yaml"), &dataflow)
    }

    /// Gives a tenant the component of `guest` as `module:1`. With a `variant`, one
    /// that no other variant is equal to, though it does the same.
    pub fn component(
        &self,
        tenant: &str,
        module: &str,
        guest: &str,
        variant: Option<u32>,
    ) -> anyhow::Result<()> {
        // One file for all tenants that share it.
        let shared = self.dir.join(format!(".components/{guest}-{}.wasm", variant.unwrap_or_default()));
        if !shared.exists() {
            fs::create_dir_all(shared.parent().context("below the site")?)?;
            let path = guest_path(guest);
            let mut bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            if let Some(variant) = variant {
                // A custom section: id, size, length of the name, name, content.
                bytes.extend_from_slice(&[0, 9, 4]);
                bytes.extend_from_slice(b"copy");
                bytes.extend_from_slice(&variant.to_le_bytes());
            }
            fs::write(&shared, bytes)?;
        }
        let path = self.dir.join(format!("tenants/{tenant}/artifacts/{module}/1.wasm"));
        fs::create_dir_all(path.parent().context("below the site")?)?;
        fs::hard_link(&shared, &path).with_context(|| path.display().to_string())
    }
}

/// The policy `name`: `standard` with some lines in place of others, and all topics of
/// some endpoints. What none of them touches is as `standard` has it.
pub fn policy_like_standard(
    name: &str,
    instead: &[(&str, &str)],
    endpoints: &[&str],
) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/standard.yaml");
    let standard = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, _) = standard.split_once("  endpoints:\n").context("it grants endpoints")?;
    let mut text = before.to_owned();
    let named = format!("metadata: {{ name: {name} }}");
    for (old, new) in [("metadata: { name: standard }", named.as_str())].iter().chain(instead) {
        ensure!(text.contains(old), "the policy `standard` has no `{old}`");
        text = text.replace(old, new);
    }
    text += "  endpoints:\n";
    for endpoint in endpoints {
        text += &format!("    - {{ name: {endpoint}, read: [ \"#\" ], write: [ \"#\" ] }}\n");
    }
    Ok(text)
}

/// An endpoint on a file, whose path is below the site.
pub fn file(name: &str, path: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\n\
         spec: {{ endpointType: File, fileSettings: {{ path: {path} }} }}\n"
    )
}

/// An endpoint `local` in memory.
pub const MEMORY: &str = "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: { name: local }\nspec: { endpointType: Memory }\n";

/// An endpoint `local` on an MQTT broker.
pub fn mqtt(address: &str) -> String {
    mqtt_with(address, "")
}

/// The same, with more settings.
pub fn mqtt_with(address: &str, more: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: local }}\n\
         spec: {{ endpointType: Mqtt, mqttSettings: {{ host: \"{address}\"{more} }} }}\n"
    )
}

/// The release binary, which `cargo xtask bench` builds: `TIDEGATE_BINARY`, or where
/// this program is.
pub fn tidegate() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_BINARY") {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("tidegate");
    ensure!(path.exists(), "{} is not there: cargo build --release", path.display());
    Ok(path)
}

/// A program that was started for a bench; killed when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Runs `command` until its output has a line that begins with `ready`.
    pub fn start(command: &mut Command, ready: Option<&str>) -> anyhow::Result<Self> {
        if ready.is_some() {
            command.stdout(Stdio::piped());
        }
        let mut process = Process { child: command.spawn().with_context(|| format!("{command:?}"))? };
        let Some(ready) = ready else { return Ok(process) };
        let mut lines = BufReader::new(process.child.stdout.take().context("piped")?);
        let mut line = String::new();
        while !line.starts_with(ready) {
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "{command:?} ended before it was ready");
        }
        // Nobody reads the rest, and a full pipe would stop the program.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(process)
    }

    /// A host on a site folder.
    pub fn host(site: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(tidegate()?);
        command.args(["up", "--every", "0s"]).arg(site).env("RUST_LOG", "warn");
        Self::start(&mut command, Some("ready"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds so far, user and system.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&format!("/proc/{}/stat", self.id()))
    }

    /// KiB resident, page tables included.
    pub fn resident_kib(&self) -> anyhow::Result<f64> {
        resident_kib(&format!("/proc/{}/status", self.id()))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The same now, whatever the allocator may still give back.
    pub fn resident_now_kib(&self) -> anyhow::Result<f64> {
        resident_kib_now(&format!("/proc/{}/status", self.id()))
    }

    /// SIGTERM, then waits.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of a process or thread, by its `stat`.
pub fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(stat)?;
    // The name, in brackets, may hold spaces.
    let fields: Vec<&str> =
        text.rsplit_once(')').context("stat without a name")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `VmRSS` and `VmPTE` of a process, by its `status`, in KiB, once the allocator has
/// given back what it does not use: when it has not shrunk for a while.
pub fn resident_kib(status: &str) -> anyhow::Result<f64> {
    let mut least = f64::INFINITY;
    loop {
        let kib = resident_kib_now(status)?;
        if kib > least * 0.998 {
            return Ok(kib.min(least));
        }
        least = kib;
        std::thread::sleep(Duration::from_millis(1500));
    }
}

fn resident_kib_now(status: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(status)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        number.with_context(|| format!("no {name} in {status}"))
    };
    Ok(field("VmRSS")? + field("VmPTE")?)
}

/// Asks a host over its control socket.
pub fn ask(data: &Path, path: &str, body: &str) -> anyhow::Result<serde_json::Value> {
    use std::io::Write as _;
    let mut stream = UnixStream::connect(data.join("control.sock"))?;
    let len = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: tidegate\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8(answer)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("no answer: {text}") };
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    Ok(serde_json::from_str(body)?)
}
