//! The commands. Control side: each parses what was typed, calls the library, and
//! turns the result into text or JSON and an exit status: 0 good, 1 a problem was
//! found or work failed, 2 wrong usage.

mod calibrate;
mod compose;
mod dead_letters;
mod plan;
mod print;
mod resume;
mod run;
mod status;
mod tail;
mod test;
mod up;
mod usage;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use print::{err, out};
use serde_json::{Value, json};

use crate::{
    connector::broker,
    control, deploy,
    guest::{self, compile, component, inspect::Inspection, world::PolicyWorld},
    inference,
    resource::{Diagnostics, HostConfig, Severity, Site, policy, site},
};

/// Runs other teams' sealed WebAssembly operators: dataflows of Azure IoT Operations
/// form, side by side on one machine, none able to hurt another.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
struct Args {
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the host on a site folder, until Ctrl-C or SIGTERM.
    ///
    /// The folder holds `platform/` (hosts, endpoints, policies, tenants) and
    /// `tenants/NAME/` (artifacts and dataflows). With an error in any file nothing starts.
    /// What runs is stored in the data folder. `up DIR` puts DIR in its place; `up --data
    /// FOLDER` alone goes on with it, which is what a service manager should run.
    Up(up::UpArgs),
    /// Read the site folder again into the running host: added dataflows start,
    /// removed ones drain, changed ones are replaced. An error anywhere changes nothing.
    /// What is applied is on disk before anything changes.
    Apply {
        /// The site folder.
        dir: PathBuf,
        /// The host's data folder [default: DIR/.tidegate, or what the Host resource says].
        #[arg(long)]
        data: Option<PathBuf>,
        /// Apply it even if a tenant uses more memory than its policy would allow from now
        /// on: its dataflows are drained and start anew.
        #[arg(long)]
        force: bool,
    },
    /// Run one graph over JSON lines, then end.
    Run(run::RunArgs),
    /// Run tests of graphs: `*.test.yaml` in AIO's form, on a virtual clock.
    ///
    /// A test names a graph, a folder with one message a file, and the messages that
    /// must come out. Its timeout is virtual: a window of a minute takes milliseconds.
    Test(test::TestArgs),
    /// Find everything that `up` would refuse, without starting.
    Check {
        /// Site folders, graph definitions or policies.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Of one site folder, also show what limits this tenant has, and where each comes
        /// from: the tenant's own limits, its policy, or the defaults.
        #[arg(long, value_name = "TENANT")]
        explain: Option<String>,
    },
    /// Show what a site asks of this machine: slots, memory maps, files, memory, CPU.
    ///
    /// What the machine does not have is refused, and ends this with 1; what it cannot give
    /// to all at once is warned of. `up` and `apply` check the same.
    Plan(plan::PlanArgs),
    /// Show what a component imports and exports, and which policies it fits.
    Inspect {
        /// The component.
        file: PathBuf,
        /// The policy world that it is held against.
        #[arg(long, default_value = "tidegate:policy/standard@0.1.0")]
        world: String,
    },
    /// Fuse a map and its provider into one component.
    ///
    /// The map exports an AIO operator and imports a contract, such as `map:custom/custom`;
    /// the provider exports that contract and holds the business logic. Neither source is
    /// needed. What comes out is one component, deployed like any other; what host
    /// interfaces both import are its imports.
    ///
    /// A dataflow may also name the two apart, and the host fuses them when it deploys:
    /// with the annotation `tidegate.dev/provider.OPERATION: ARTIFACT`.
    Compose(compose::ComposeArgs),
    /// Show the live state of a running host.
    Status(status::StatusArgs),
    /// Let a dataflow go on that is paused or in quarantine.
    ///
    /// A dataflow whose guests fail again and again is paused for the policy's
    /// `faults.coolDown`, and goes on by itself; one with `faults.quarantineAfter` faults
    /// `within` a time is in quarantine until this. What its sources hold is processed then.
    Resume(resume::ResumeArgs),
    /// Show what each tenant used: CPU, fuel, memory, messages, bytes, host calls.
    ///
    /// By whole hours (UTC), counted while the host runs and kept in its data folder, also of
    /// tenants that have left. Works whether the host runs or not. docs/quotas.md says what
    /// is counted, how long it is kept, and what a crash may lose.
    Usage(usage::UsageArgs),
    /// List, read, export, replay and discard messages that dataflows gave up on.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Measure again how much fuel a second of CPU time is on this machine. A host measures it
    /// once, when it first starts, and shows it in `status`.
    Calibrate(calibrate::CalibrateArgs),
    /// The process that measures it.
    #[command(hide = true)]
    MeasureFuel,
    /// The compile process: a component on standard input, compiled for an engine on standard
    /// output. Given a map's size, it is that map and then its provider.
    #[command(hide = true)]
    CompileComponent { tuning: String, cpu_ms_max: u64, memory_bytes_max: u64, map_bytes: Option<usize> },
    /// The process that runs one tenant's models: requests on standard input, answers on
    /// standard output.
    #[command(hide = true)]
    Infer { memory_bytes_max: u64, tensor_bytes_max: u64 },
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    let result = match args.command {
        Command::CompileComponent { tuning, cpu_ms_max, memory_bytes_max, map_bytes } => {
            compile::child_main(&tuning, cpu_ms_max, memory_bytes_max, map_bytes)
                .map(|code| ExitCode::from(code as u8))
                .map_err(Into::into)
        }
        Command::Infer { memory_bytes_max, tensor_bytes_max } => {
            inference::child::child_main(memory_bytes_max, tensor_bytes_max)
                .map(|code| ExitCode::from(code as u8))
                .map_err(Into::into)
        }
        Command::MeasureFuel => guest::calibrate::child_main()
            .map(|fuel| {
                print::out!("{fuel}");
                ExitCode::SUCCESS
            })
            .map_err(Into::into),
        Command::Calibrate(args) => calibrate::calibrate(args, json),
        Command::Up(args) => up::up(args),
        Command::Apply { dir, data, force } => apply(&dir, data, force, json),
        Command::Run(args) => run::run(args, json),
        Command::Test(args) => test::test(args, json),
        Command::Check { paths, explain } => check(&paths, explain.as_deref(), json),
        Command::Plan(args) => plan::plan(args, json),
        Command::Inspect { file, world } => inspect(&file, &world, json),
        Command::Compose(args) => compose::compose(args, json),
        Command::Status(args) => status::status(args, json),
        Command::Resume(args) => resume::resume(args, json),
        Command::Usage(args) => usage::usage(args, json),
        Command::DeadLetters(args) => dead_letters::dead_letters(args, json),
    };
    result.unwrap_or_else(|error: anyhow::Error| {
        err!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints diagnostics to standard error, or as JSON to standard output.
fn report(diagnostics: &Diagnostics, json: bool) {
    if json {
        print_json(&json!({ "diagnostics": diagnostics.to_json() }));
        return;
    }
    print::to_err(format_args!("{}", diagnostics.to_text(colour())));
}

/// From here on events go to standard error: those that `RUST_LOG` chooses, else these.
/// Whoever draws a terminal keeps them in what this gives.
fn log_to_stderr(events: &str) -> tail::Tail {
    use tracing_subscriber::{
        EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(events));
    let tail = tail::Tail::default();
    let lines = tracing_subscriber::fmt::layer().with_writer(tail.clone()).with_target(false);
    let lines = lines.with_ansi(colour());
    let lines = lines.with_filter(broker::PeersLeave);
    tracing_subscriber::registry().with(filter).with(lines).init();
    tail
}

/// Whether standard error shows colours.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn print_json(value: &Value) {
    out!("{value}");
}

fn exit(diagnostics: &Diagnostics) -> ExitCode {
    if diagnostics.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Everything that can be wrong with a site, components included.
fn check_site(dir: &Path) -> Diagnostics {
    let (site, mut diagnostics) = Site::load(dir);
    let mut known = deploy::known::Known::default();
    let Some(site) = site else { return diagnostics };
    for tenant in &site.tenants {
        let mut admitted = Vec::new();
        for dataflow in &tenant.dataflows {
            let components = deploy::admit(tenant, dataflow, &mut known, &mut diagnostics);
            deploy::check_layout(tenant, dataflow, &components, site.host.pool, &mut diagnostics);
            admitted.push((dataflow, components));
        }
        let admitted = admitted.iter().map(|(dataflow, components)| (*dataflow, components));
        deploy::check_memory(tenant, admitted.clone(), &mut diagnostics);
        deploy::check_commands(tenant, admitted, &site.endpoints, &mut diagnostics);
    }
    diagnostics
}

fn check(paths: &[PathBuf], explained: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let explanation = match (explained, paths) {
        (None, _) => None,
        (Some(tenant), [dir]) if dir.is_dir() => Some(site::explain(dir, tenant)),
        (Some(_), _) => anyhow::bail!("--explain takes one site folder"),
    };
    let mut diagnostics = Diagnostics::default();
    for path in paths {
        if path.is_dir() {
            diagnostics.extend(check_site(path));
        } else {
            check_file(path, &mut diagnostics);
        }
    }
    if let Some(Err(error)) = &explanation {
        let label = "nothing of it can be explained";
        diagnostics.error("check/explain", None, error.to_string(), label);
    }
    let explanation = explanation.and_then(Result::ok);
    if json {
        let mut document = json!({ "diagnostics": diagnostics.to_json() });
        if let Some(explanation) = explanation {
            document["explained"] = explanation.to_json();
        }
        print_json(&document);
        return Ok(exit(&diagnostics));
    }
    report(&diagnostics, false);
    if let Some(explanation) = explanation {
        print::to_out(format_args!("{}", explanation.to_text()));
    }
    let warnings = diagnostics.iter().filter(|it| it.severity == Severity::Warning).count();
    out!("{} errors, {warnings} warnings", diagnostics.errors());
    Ok(exit(&diagnostics))
}

/// A single file: a Policy by its kind, a graph definition otherwise.
fn check_file(path: &Path, diagnostics: &mut Diagnostics) {
    let Some(file) = site::read_source(Path::new(""), path, diagnostics) else { return };
    for node in crate::resource::yaml::parse(&file, diagnostics) {
        if node.get("kind").and_then(|kind| kind.text()) == Some("Policy") {
            site::policy_of(&file.path, &file.text, diagnostics);
        } else {
            crate::resource::Graph::read(&node, diagnostics);
        }
    }
}

fn inspect(file: &Path, world: &str, json: bool) -> anyhow::Result<ExitCode> {
    let world = PolicyWorld::named(world)?;
    let bytes = component::read_bytes(file, u64::MAX)?;
    let inspection = match Inspection::of(&bytes, world) {
        Ok(inspection) => inspection,
        Err(error) => anyhow::bail!("{}: {error}", file.display()),
    };
    if json {
        print_json(&inspection.to_json());
    } else {
        print::to_out(format_args!("{inspection}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Where a site's host keeps its state.
fn data_of(dir: &Path, given: Option<PathBuf>, config: &HostConfig) -> PathBuf {
    given.unwrap_or_else(|| dir.join(&config.data))
}

fn apply(dir: &Path, data: Option<PathBuf>, force: bool, json: bool) -> anyhow::Result<ExitCode> {
    let (site, diagnostics) = Site::load(dir);
    let Some(site) = site else {
        report(&diagnostics, json);
        return Ok(ExitCode::FAILURE);
    };
    let data = data_of(dir, data, &site.host);
    let dir = std::path::absolute(dir)?;
    let body = json!({ "dir": dir, "force": force });
    let (status, answer) = runtime()?.block_on(control::ask(&data, "/apply", body))?;
    if json {
        print_json(&answer);
    } else if let Some(text) = answer.get("text").and_then(Value::as_str) {
        print::to_err(format_args!("{text}"));
    }
    if let (false, Some(applied)) = (json, answer.get("applied")) {
        for key in ["added", "replaced", "removed"] {
            for name in applied[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
                out!("{key:<9} {name}");
            }
        }
        out!("unchanged {}", applied["unchanged"]);
        if let Some(missing @ 1..) = answer["missingConnections"].as_u64() {
            err!("note: {}", up::missing_connections(missing));
        }
    }
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A policy in a file, or one that is compiled in, by its name.
fn policy_of(path: &Path, diagnostics: &mut Diagnostics) -> Option<policy::Policy> {
    if let Some(shipped) = path.to_str().and_then(site::shipped_policy).filter(|_| !path.is_file()) {
        return Some(shipped);
    }
    let file = site::read_source(Path::new(""), path, diagnostics)?;
    let policy = site::policy_of(&file.path, &file.text, diagnostics);
    if policy.is_none() && !diagnostics.has_errors() {
        diagnostics.error("policy/none", None, format!("{} holds no Policy", path.display()), "");
    }
    policy
}
