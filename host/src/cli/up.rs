//! `tidegate up`: the host, its control socket, and a plain line a tenant now and then.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{data_of, report};
use crate::{
    control::{self, Ask, Question},
    host::Host,
    resource::{Diagnostics, Site},
};

#[derive(Args)]
pub struct UpArgs {
    /// The site folder.
    dir: PathBuf,
    /// Where state is kept [default: DIR/.tidegate, or what the Host resource says].
    #[arg(long)]
    data: Option<PathBuf>,
    /// End by itself after this time, such as `30s`.
    #[arg(long, value_name = "DUR")]
    r#for: Option<humantime::Duration>,
    /// How often to print a line for each tenant; `0s` for never.
    #[arg(long, default_value = "5s", value_name = "DUR")]
    every: humantime::Duration,
}

/// Questions that may wait for the host.
const QUESTIONS_MAX: usize = 16;

pub fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    init_tracing();
    let (site, diagnostics) = Site::load(&args.dir);
    report(&diagnostics, false);
    let Some(site) = site else { return Ok(ExitCode::FAILURE) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("connectors")
        .enable_all()
        .build()?;
    runtime.block_on(run(args, site))
}

fn init_tracing() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,rumqttd=error,sled=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

async fn run(args: UpArgs, site: Site) -> anyhow::Result<ExitCode> {
    let data = data_of(&args.dir, args.data.clone(), &site.host);
    std::fs::create_dir_all(&data)?;
    let listener = control::listen(&data)?;
    let mut host = Host::start(&site.host, &data, std::env::current_exe()?)?;
    if let Some(ports) = host.broker() {
        println!("broker: mqtt://127.0.0.1:{} (v5), mqtt://127.0.0.1:{} (v3.1.1)", ports.v5, ports.v311);
    }
    let (asks, mut questions) = mpsc::channel(QUESTIONS_MAX);
    let control = tokio::spawn(control::serve(listener, asks));
    match host.apply(&site).await {
        Ok((applied, warnings)) => {
            report(&warnings, false);
            println!("ready: {} dataflows of {} tenants", applied.added.len(), site.tenants.len());
        }
        Err(diagnostics) => {
            report(&diagnostics, false);
            host.shut_down().await;
            return Ok(ExitCode::FAILURE);
        }
    }
    supervise(&args, &mut host, &mut questions).await?;
    control.abort();
    println!("stopping: taking nothing more, settling what was taken");
    tokio::select! {
        () = host.shut_down() => println!("stopped"),
        () = stop_signal()? => {
            println!("stopped at once; what is unsettled is delivered again");
            std::process::exit(1);
        }
    }
    // Whoever looks for a host here should find none.
    let _ = std::fs::remove_file(control::socket_of(&data));
    Ok(ExitCode::SUCCESS)
}

/// Until a signal or the end of `--for`: answers questions and prints lines.
async fn supervise(
    args: &UpArgs,
    host: &mut Host,
    questions: &mut mpsc::Receiver<Question>,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop_signal()?);
    let mut reload = signal(SignalKind::hangup())?;
    let end = args.r#for.map_or(Duration::MAX, Into::into);
    let mut end = std::pin::pin!(tokio::time::sleep(end.min(Duration::from_secs(86_400 * 365))));
    let every: Duration = args.every.into();
    let mut lines = tokio::time::interval(if every.is_zero() { Duration::from_secs(86_400) } else { every });
    lines.tick().await;
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = &mut end => return Ok(()),
            _ = lines.tick() => {
                let status = host.status(None).await;
                status_lines(&status).iter().for_each(|line| println!("{line}"));
            }
            _ = reload.recv() => {
                let (_, answer) = apply(host, &args.dir).await;
                eprint!("{}", answer["text"].as_str().unwrap_or_default());
                println!("reloaded: {}", answer["applied"]);
            }
            Some((ask, reply)) = questions.recv() => {
                let answer = match ask {
                    Ask::Apply { dir } => apply(host, &dir).await,
                    Ask::Status { tenant } => (StatusCode::OK, host.status(tenant.as_deref()).await),
                };
                // Whoever asked may have gone away.
                let _ = reply.send(answer);
            }
        }
    }
}

async fn apply(host: &mut Host, dir: &Path) -> (StatusCode, Value) {
    let refused = |diagnostics: Diagnostics| {
        let body = json!({ "diagnostics": diagnostics.to_json(), "text": diagnostics.to_text(false) });
        (StatusCode::UNPROCESSABLE_ENTITY, body)
    };
    let (site, mut diagnostics) = Site::load(dir);
    let Some(site) = site else { return refused(diagnostics) };
    match host.apply(&site).await {
        Ok((applied, warnings)) => {
            diagnostics.extend(warnings);
            let applied = json!({
                "added": applied.added, "replaced": applied.replaced,
                "removed": applied.removed, "unchanged": applied.unchanged,
            });
            let text = diagnostics.to_text(false);
            (
                StatusCode::OK,
                json!({ "applied": applied, "diagnostics": diagnostics.to_json(), "text": text }),
            )
        }
        Err(more) => {
            diagnostics.extend(more);
            refused(diagnostics)
        }
    }
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A line for each dataflow of a status document.
pub fn status_lines(status: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for tenant in status["tenants"].as_array().into_iter().flatten() {
        for flow in tenant["dataflows"].as_array().into_iter().flatten() {
            let count = |key: &str| flow["counters"][key].as_u64().unwrap_or(0);
            let name = format!("{}/{}", text(&tenant["name"]), text(&flow["name"]));
            let mut line = format!(
                "{name:<28} {:<8} in {:>8}  out {:>8}  filtered {:>7}  errors {:>5}  dead {:>5}",
                text(&flow["state"]),
                count("received"),
                count("delivered"),
                count("filtered"),
                count("errors"),
                count("dead")
            );
            let connections =
                flow["sources"].as_array().into_iter().chain(tenant["sinks"].as_array()).flatten();
            for state in connections.filter_map(|end| end["connection"].as_str()) {
                if state != "connected" {
                    line.push_str(&format!("  ({state})"));
                }
            }
            lines.push(line);
        }
    }
    lines
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
