//! OpenTelemetry's own programs for a run: a Collector on a folder and free loopback ports of
//! its own, and the generator of telemetry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{broker::free_ports, process::Process};

const LISTEN_WITHIN: Duration = Duration::from_secs(60);

/// How to get them, for messages.
pub const INSTALL: &str = "`cargo xtask test` builds the OpenTelemetry Collector, with Go";

/// A running Collector, which keeps what it is sent in a file, or passes it on.
pub struct Collector {
    program: PathBuf,
    folder: PathBuf,
    grpc: u16,
    http: u16,
    cores: Vec<usize>,
    process: Option<Process>,
}

/// What a Collector does with what it takes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its processors, in the form of its settings, and their names in order.
    pub processors: Option<(String, String)>,
    /// `host:port` of whom it sends all to by gRPC, in place of its file.
    pub export: Option<String>,
    /// TLS of its gRPC receiver, in the form of its settings.
    pub tls: Option<String>,
}

impl Collector {
    /// On a folder of its own below `folder`.
    pub fn start(bin: &Path, folder: &Path, cores: &[usize], options: &Options) -> anyhow::Result<Self> {
        let [grpc, http] = free_ports()?;
        let folder = folder.join(format!("collector-{grpc}"));
        fs::create_dir_all(&folder)?;
        let tls = options.tls.as_ref().map_or(String::new(), |tls| format!(", tls: {tls}"));
        let (processors, names) = options.processors.clone().unwrap_or_default();
        let out = folder.join("out.jsonl");
        let exporter = match &options.export {
            Some(endpoint) => format!(
                "otlp: {{ endpoint: \"{endpoint}\", tls: {{ insecure: true }}, compression: none, \
                 sending_queue: {{ enabled: false }}, retry_on_failure: {{ enabled: true }} }}"
            ),
            // Whole lines, soon.
            None => format!("file: {{ path: \"{}\", flush_interval: 50ms, append: true }}", out.display()),
        };
        let name = if options.export.is_some() { "otlp" } else { "file" };
        let pipeline = format!("{{ receivers: [otlp], processors: [{names}], exporters: [{name}] }}");
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      \
             grpc: {{ endpoint: \"127.0.0.1:{grpc}\"{tls} }}\n      http: {{ endpoint: \"127.0.0.1:{http}\" }}\n\
             processors: {{ {processors} }}\nexporters:\n  {exporter}\nservice:\n  \
             telemetry: {{ metrics: {{ level: none }}, logs: {{ level: warn }} }}\n  pipelines:\n    \
             traces: {pipeline}\n    metrics: {pipeline}\n    logs: {pipeline}\n"
        );
        fs::write(folder.join("config.yaml"), config)?;
        let program = bin.join("otelcol");
        let mut collector = Collector { program, folder, grpc, http, cores: cores.to_vec(), process: None };
        collector.restart()?;
        Ok(collector)
    }

    /// On the same ports and folder, after [`Self::kill`] or [`Self::stop`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join("config.yaml"));
        let (ports, log) = ([self.grpc, self.http], self.folder.join("log"));
        let process = Process::start_server(&mut command, &self.cores, &ports, &log, LISTEN_WITHIN)?;
        self.process = Some(process);
        Ok(())
    }

    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// Lets it write what it has.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    pub fn grpc(&self) -> u16 {
        self.grpc
    }

    pub fn http(&self) -> u16 {
        self.http
    }

    /// What it has written: OTLP in JSON, a request a line.
    pub fn written(&self) -> String {
        fs::read_to_string(self.folder.join("out.jsonl")).unwrap_or_default()
    }
}

/// One run of telemetrygen: its signal, and whatever else it is told.
pub fn telemetrygen(bin: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(bin.join("telemetrygen")).args(arguments).output();
    let output = output.context("cannot run telemetrygen")?;
    ensure!(output.status.success(), "telemetrygen: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Where they are: `TIDEGATE_OTEL`, or what `cargo xtask` has built.
pub fn find() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/otel/bin");
    let bin = std::env::var_os("TIDEGATE_OTEL").map_or(built, PathBuf::from);
    (bin.join("otelcol").is_file() && bin.join("telemetrygen").is_file()).then_some(bin)
}
