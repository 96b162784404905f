//! The telemetry team of the demo, where there is an OpenTelemetry Collector: spans that a
//! generator sends by OTLP, of which those that a filter lets pass come to the Collector.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use tidegate_loadtest::{
    broker::free_port,
    otel::{Collector, INSTALL, find, telemetrygen},
};

use super::{Demo, lay_out_team};

pub const TEAM: &str = "telemetry";
/// A trace of the generator's is a request, seen by its client and by its server.
const SPANS_PER_TRACE: u64 = 2;

/// A Collector of the demo's own, which ends with it.
pub struct Telemetry {
    collector: Collector,
    bin: PathBuf,
    /// Where the host takes OTLP.
    port: u16,
}

impl Telemetry {
    /// Adds the team to the site. `None`, and it says so, where there is no Collector.
    pub fn start(site: &Path, folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(bin) = find() else {
            println!("no telemetry team, for there is no Collector: {INSTALL}");
            return Ok(None);
        };
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let collector = Collector::start(&bin, folder, &[], &Default::default())?;
        let port = free_port()?;
        lay_out_team("otlp", site)?;
        let endpoint = |name: &str, settings: String| {
            format!(
                "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\n\
                 spec: {{ endpointType: OpenTelemetry, openTelemetrySettings: {{ {settings} }} }}\n---\n"
            )
        };
        let taken = endpoint("otlp", format!("listen: \"127.0.0.1:{port}\", encoding: Protobuf"));
        let given = endpoint("collector", format!("host: \"127.0.0.1:{}\", payload: Otlp", collector.grpc()));
        fs::write(site.join("platform/otlp.yaml"), taken + &given)?;
        Ok(Some(Telemetry { collector, bin, port }))
    }

    /// Has spans generated at about the demo's rate; how many that were.
    pub fn publish(&self, demo: Demo) -> JoinHandle<anyhow::Result<(String, u64)>> {
        let (bin, port) = (self.bin.clone(), self.port);
        std::thread::spawn(move || {
            let endpoint = format!("127.0.0.1:{port}");
            let tenant = format!("x-tidegate-tenant=\"{TEAM}\"");
            let rate = demo.rate.to_string();
            let traces = demo.total().map(|spans| spans / SPANS_PER_TRACE);
            let length = match traces {
                Some(traces) => ["--traces".to_owned(), traces.to_string()],
                None => ["--duration".to_owned(), "inf".to_owned()],
            };
            let mut arguments = vec!["traces", "--otlp-insecure", "--otlp-endpoint", &endpoint];
            arguments.extend(["--otlp-header", &tenant, "--rate", &rate]);
            arguments.extend(length.iter().map(String::as_str));
            telemetrygen(&bin, &arguments)?;
            Ok((TEAM.to_owned(), traces.unwrap_or(0) * SPANS_PER_TRACE))
        })
    }

    /// Spans that the Collector has written.
    pub fn delivered(&self) -> u64 {
        self.collector.written().matches("\"spanId\"").count() as u64
    }
}
