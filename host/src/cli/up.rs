//! `tidegate up`: the host, its control socket, and its state on a terminal, or in plain
//! lines now and then.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use super::{
    data_of, log_to_stderr,
    print::{self, out},
    report,
    status::{self, BUSIEST, CLEAR, status_lines},
    tail::Tail,
};
use crate::{
    control::{self, Ask, Lock, Question},
    dead_letter::filter::Filter,
    deploy::chain,
    host::{self, Host, HostError, OverTotal, ResumeError, Which, replay::Outcome},
    resource::{Diagnostics, Site},
    usage::Query,
};

#[derive(Args)]
pub struct UpArgs {
    /// The site folder. Without it the host goes on with what was applied last to
    /// the data folder, whatever has become of the folder that it came from.
    #[arg(required_unless_present = "data")]
    dir: Option<PathBuf>,
    /// Where state is kept [default: DIR/.tidegate, or what the Host resource says].
    #[arg(long)]
    data: Option<PathBuf>,
    /// End by itself after this time, such as `30s`.
    #[arg(long, value_name = "DUR")]
    r#for: Option<humantime::Duration>,
    /// How often to print a line for each dataflow; `0s` for never. Without it, a terminal
    /// shows a live table, and anything else has lines every 5s.
    #[arg(long, value_name = "DUR")]
    every: Option<humantime::Duration>,
}

impl UpArgs {
    /// Whether a live table is shown rather than lines.
    fn is_live(&self) -> bool {
        self.every.is_none() && std::io::stdout().is_terminal()
    }

    fn every(&self) -> Duration {
        match self.every {
            Some(every) if every.is_zero() => NEVER,
            Some(every) => every.into(),
            None if self.is_live() => LOOK_EVERY,
            None => Duration::from_secs(5),
        }
    }
}

/// As far away as a timer may be set.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// Questions that may wait for the host.
const QUESTIONS_MAX: usize = 16;

pub fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let log = log_to_stderr("info,rumqttd=error,sled=warn");
    let runtime = host::runtime()?;
    runtime.block_on(async {
        let Some(Found { site, data, listener, lock }) = find_site(&args)? else {
            return Ok(ExitCode::FAILURE);
        };
        let code = run(args, site, &data, listener, &log).await;
        // The folder is somebody else's from here on.
        drop(lock);
        code
    })
}

/// A site to run, and the data folder that this process now holds.
struct Found {
    site: Site,
    data: PathBuf,
    listener: UnixListener,
    lock: Lock,
}

/// What is to run, from the site folder or from the data folder; `None` if it has
/// errors, which were said. The socket is taken first: it says whose data it is.
fn find_site(args: &UpArgs) -> anyhow::Result<Option<Found>> {
    let open = |data: &Path| -> anyhow::Result<(UnixListener, Lock)> {
        std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        Ok(control::listen(data)?)
    };
    if let Some(dir) = &args.dir {
        let (site, diagnostics) = Site::load(dir);
        report(&diagnostics, false);
        let Some(site) = site else { return Ok(None) };
        let data = data_of(dir, args.data.clone(), &site.host);
        let (listener, lock) = open(&data)?;
        return Ok(Some(Found { site, data, listener, lock }));
    }
    let data = args.data.clone().expect("the command line has one of both");
    let (listener, lock) = open(&data)?;
    let Some((site, diagnostics)) = host::applied_site(&data)? else {
        anyhow::bail!("nothing was applied to {} yet: start with `tidegate up DIR`", data.display());
    };
    report(&diagnostics, false);
    Ok(site.map(|site| Found { site, data, listener, lock }))
}

async fn run(
    args: UpArgs,
    site: Site,
    data: &Path,
    listener: UnixListener,
    log: &Tail,
) -> anyhow::Result<ExitCode> {
    // From here on a signal is kept until there is something to end in order.
    let mut stop = std::pin::pin!(stop_signal()?);
    let reload = signal(SignalKind::hangup())?;
    let before = applied_before(data)?;
    let mut host = Host::start(&site.host, data, std::env::current_exe()?)?;
    out!("host: {}", host.name());
    if let Some(ports) = host.broker() {
        out!("broker: mqtt://127.0.0.1:{} (v5), mqtt://127.0.0.1:{} (v3.1.1)", ports.v5, ports.v311);
    }
    let (asks, mut questions) = mpsc::channel(QUESTIONS_MAX);
    let control = tokio::spawn(control::serve(listener, asks));
    match host.apply(&site, OverTotal::Refuse).await {
        Ok((applied, warnings)) => {
            report(&warnings, false);
            if let Some(before) = before {
                host.leave_behind(&before, &site);
            }
            let ready = format!("ready: {} dataflows of {} tenants", applied.added.len(), site.tenants.len());
            let tried = host.tried();
            tokio::spawn(async move {
                match tried.await {
                    0 => out!("{ready}"),
                    missing => out!("{ready}; {}", missing_connections(missing)),
                }
            });
            if host.fuel_per_second().is_none() {
                let measuring = host.calibrate();
                tokio::spawn(async move {
                    if let Err(error) = measuring.await {
                        tracing::warn!(error = %chain(&error), "how much fuel a second is, is not known");
                    }
                });
            }
        }
        Err(diagnostics) => {
            report(&diagnostics, false);
            host.shut_down().await;
            return Ok(ExitCode::FAILURE);
        }
    }
    let home = site.home.clone();
    // Half of what an idle tenant takes would be the text of its resources.
    drop(site);
    supervise(&args, home, &mut host, &mut questions, reload, stop.as_mut(), log).await;
    log.let_go();
    control.abort();
    out!("stopping: taking nothing more, settling what was taken");
    tokio::select! {
        () = host.shut_down() => out!("stopped"),
        () = stop_signal()? => {
            out!("stopped at once; what is unsettled is delivered again");
            std::process::exit(1);
        }
    }
    // Whoever looks for a host here should find none.
    let _ = std::fs::remove_file(control::socket_of(data));
    Ok(ExitCode::SUCCESS)
}

/// What the host ran before. If it cannot be read, what replaces it need not wait.
fn applied_before(data: &Path) -> anyhow::Result<Option<Site>> {
    match host::applied_site(data) {
        Ok(before) => Ok(before.and_then(|(site, _)| site)),
        Err(error @ HostError::Applied(_)) => {
            tracing::warn!(error = %chain(&error), "what was applied before is not known");
            Ok(None)
        }
        Err(other) => Err(other.into()),
    }
}

/// How exactly `status` says since when a dataflow does as it does.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Until a signal or the end of `--for`: answers questions and prints lines.
async fn supervise(
    args: &UpArgs,
    // What SIGHUP reads again: the folder that was applied last.
    mut home: PathBuf,
    host: &mut Host,
    questions: &mut mpsc::Receiver<Question>,
    mut reload: Signal,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    log: &Tail,
) {
    let end = args.r#for.map_or(Duration::MAX, Into::into);
    let mut end = std::pin::pin!(tokio::time::sleep(end.min(NEVER)));
    let mut lines = tokio::time::interval(args.every());
    lines.tick().await;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = &mut end => return,
            _ = looks.tick() => host.observe(),
            _ = lines.tick() => {
                host.observe();
                if args.is_live() {
                    let status = host.status_of(Which::Busiest(BUSIEST)).await;
                    let log = log.draw().join("\n");
                    print::to_out(format_args!("{CLEAR}{}\n{log}\n", status::text(&status, false)));
                } else {
                    let status = host.status(None).await;
                    status_lines(&status).iter().for_each(|line| out!("{line}"));
                }
            }
            _ = reload.recv() => {
                let (_, answer) = apply(host, &home, OverTotal::Refuse).await;
                print::to_err(format_args!("{}", answer["text"].as_str().unwrap_or_default()));
                match answer.get("applied") {
                    Some(applied) => out!("reloaded: {applied}"),
                    None => out!("nothing was changed: {} has errors", home.display()),
                }
            }
            Some((ask, reply)) = questions.recv() => {
                let answer = match ask {
                    Ask::Apply { dir, force } => {
                        let over_total = if force { OverTotal::Drain } else { OverTotal::Refuse };
                        let (code, mut answer) = apply(host, &dir, over_total).await;
                        if code.is_success() {
                            home = dir;
                            let tried = host.tried();
                            // Others need not wait for these connections.
                            tokio::spawn(async move {
                                answer["missingConnections"] = tried.await.into();
                                let _ = reply.send((code, answer));
                            });
                            continue;
                        }
                        (code, answer)
                    }
                    Ask::Resume { tenant, dataflow } => match host.resume(&tenant, &dataflow).await {
                        Ok(()) => (StatusCode::OK, json!({ "resumed": format!("{tenant}/{dataflow}") })),
                        Err(error @ ResumeError::Unknown { .. }) => {
                            (StatusCode::NOT_FOUND, json!({ "error": error.to_string() }))
                        }
                        Err(error) => (StatusCode::CONFLICT, json!({ "error": error.to_string() })),
                    },
                    Ask::Status { tenant, busiest } => status_of(host, tenant.as_deref(), busiest).await,
                    Ask::Why { tenant, dataflow } => why(host, &tenant, &dataflow).await,
                    Ask::Usage { query } => {
                        usage(host, query, reply);
                        continue;
                    }
                    Ask::Calibrate => {
                        calibrate(host, reply);
                        continue;
                    }
                    Ask::Discard { filter } => {
                        discard(host, filter, reply);
                        continue;
                    }
                    Ask::Replay { filter } => {
                        replay(host, filter, reply);
                        continue;
                    }
                };
                // Whoever asked may have gone away.
                let _ = reply.send(answer);
            }
        }
    }
}

async fn status_of(host: &mut Host, tenant: Option<&str>, busiest: Option<usize>) -> (StatusCode, Value) {
    if let Some(tenant) = tenant.filter(|tenant| !host.has_tenant(tenant)) {
        let error = format!("there is no tenant `{tenant}` on this host");
        return (StatusCode::NOT_FOUND, json!({ "error": error }));
    }
    host.observe();
    let which = match (tenant, busiest) {
        (Some(tenant), _) => Which::One(tenant),
        (None, Some(most)) => Which::Busiest(most),
        (None, None) => Which::All,
    };
    (StatusCode::OK, host.status_of(which).await)
}

async fn why(host: &Host, tenant: &str, dataflow: &str) -> (StatusCode, Value) {
    let Some((mut document, text)) = host.why(tenant, dataflow).await else {
        let error = format!("there is no dataflow `{tenant}/{dataflow}` on this host");
        return (StatusCode::NOT_FOUND, json!({ "error": error }));
    };
    document["text"] = text.into();
    (StatusCode::OK, document)
}

/// Reads beside everything else: it waits for the disk.
fn usage(host: &Host, query: Query, reply: oneshot::Sender<(StatusCode, Value)>) {
    let reading = host.usage(query);
    tokio::spawn(async move {
        let answer = match reading.await {
            Ok(page) => (StatusCode::OK, page.to_json()),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": chain(&error) })),
        };
        let _ = reply.send(answer);
    });
}

/// Measures beside everything else: it takes a while.
fn calibrate(host: &Host, reply: oneshot::Sender<(StatusCode, Value)>) {
    let (before, measuring) = (host.fuel_per_second(), host.calibrate());
    tokio::spawn(async move {
        let answer = match measuring.await {
            Ok(fuel) => (StatusCode::OK, json!({ "before": before, "fuelPerCpuSecond": fuel })),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": chain(&error) })),
        };
        let _ = reply.send(answer);
    });
}

/// Discards beside everything else, since it may take long; so does a replay.
fn discard(host: &Host, filter: Filter, reply: oneshot::Sender<(StatusCode, Value)>) {
    let discarding = host.discard(filter);
    tokio::spawn(async move {
        let answer = match discarding.await {
            Ok(count) => (StatusCode::OK, json!({ "discarded": count })),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": chain(&error) })),
        };
        let _ = reply.send(answer);
    });
}

/// Goes on for as long as somebody waits for the answer.
fn replay(host: &Host, filter: Filter, reply: oneshot::Sender<(StatusCode, Value)>) {
    let replay = host.replay(filter);
    tokio::spawn(async move {
        let answer = match replay.run(|| !reply.is_closed()).await {
            Ok(Outcome { settled, again, refused }) => {
                let refused = refused.into_iter().map(|(id, error)| json!({ "id": id, "error": error }));
                let refused: Vec<_> = refused.collect();
                (StatusCode::OK, json!({ "settled": settled, "again": again, "refused": refused }))
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": chain(&error) })),
        };
        let _ = reply.send(answer);
    });
}

/// Says that connections are not there yet.
pub(super) fn missing_connections(count: u64) -> String {
    format!("{count} connections are not there yet, see `tidegate status`")
}

async fn apply(host: &mut Host, dir: &Path, over_total: OverTotal) -> (StatusCode, Value) {
    let refused = |diagnostics: Diagnostics| {
        let body = json!({ "diagnostics": diagnostics.to_json(), "text": diagnostics.to_text(false) });
        (StatusCode::UNPROCESSABLE_ENTITY, body)
    };
    let (site, mut diagnostics) = Site::load_since(dir, host.seen());
    let Some(site) = site else { return refused(diagnostics) };
    match host.apply(&site, over_total).await {
        Ok((applied, warnings)) => {
            diagnostics.extend(warnings);
            let applied = json!({
                "added": applied.added, "replaced": applied.replaced,
                "removed": applied.removed, "unchanged": applied.unchanged,
            });
            let json = diagnostics.to_json();
            let text = diagnostics.to_text(false);
            (StatusCode::OK, json!({ "applied": applied, "diagnostics": json, "text": text }))
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
