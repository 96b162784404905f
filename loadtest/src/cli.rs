//! The commands. stdout is the result, stderr is everything else.

use std::{
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tidegate_loadtest::{
    attack::{self, Attack},
    connector::Connector,
    diagnostic::{SourceFile, nearest},
    page, run,
    scenario::{Beside, SHIPPED, Scenario},
    scorecard::Scorecard,
    site::{ServerAt, Site, guests_built},
};

const AFTER_HELP: &str = "\
A first look, with a host that was built before (`cargo build --release`):

  tidegate-loadtest run smoke
  tidegate-loadtest run smoke --connector kafka
  tidegate-loadtest run noisy-neighbour --seconds 3 --out target/loadtest

`run` starts a server for both ends and the host, sends messages when they are due whatever the host
does, follows each by its id, and prints a scorecard. Latency counts from the moment at
which a message was due. `--out` keeps result.json and scorecard.html, one page that
opens without a network.

A host that runs already is tested through its broker. Its site must have the
scenario's tenants, which `site` writes:

  tidegate-loadtest site steady /tmp/site --broker 127.0.0.1:1883
  tidegate up /tmp/site
  tidegate-loadtest run steady --against 127.0.0.1:1883

Ends with 0 if every threshold of the scenario was kept, 1 if one was missed or
something failed, 2 for wrong usage, 130 when stopped by Ctrl-C.

  TIDEGATE_BINARY      the host; else `tidegate` beside this program, or on the PATH
  TIDEGATE_MOSQUITTO   the broker; else what `cargo xtask` fetched, or one on the PATH,
                       or the host's own
  TIDEGATE_KAFKA       Kafka's jars; else what `cargo xtask test` fetched";

/// Load and attacks on a Tidegate host from outside, and a scorecard of what they did to
/// quiet tenants: latency, losses, order, memory.
#[derive(Parser)]
#[command(name = "tidegate-loadtest", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario and print its scorecard.
    Run(RunArgs),
    /// List scenarios and attacks.
    List {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Find everything that is wrong in scenario files, without running them.
    Check {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Make the page again from a result, beside it.
    Report {
        /// A `result.json` of `run --out`, or what `run --json` printed.
        result: PathBuf,
        /// Where the page goes [default: scorecard.html beside the result].
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Write the site folder that a scenario needs, for a host of your own.
    Site {
        /// Its name, or a file.
        scenario: String,
        /// A folder that is not there yet.
        dir: PathBuf,
        /// Instead of the scenario's: mqtt, kafka, kafka-transactions.
        #[arg(long, value_name = "NAME", value_parser = connector)]
        connector: Option<Connector>,
        /// The broker that the host is to use.
        #[arg(long, value_name = "HOST:PORT")]
        broker: String,
        #[command(flatten)]
        lists: Lists,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Its name, as `list` shows it, or a file.
    scenario: String,
    /// Instead of the scenario's: mqtt, kafka, kafka-transactions, http.
    #[arg(long, value_name = "NAME", value_parser = connector)]
    connector: Option<Connector>,
    /// Test a host that runs already, through its broker: MQTT v5, or Kafka.
    #[arg(long, value_name = "HOST:PORT")]
    against: Option<String>,
    /// Keep result.json and scorecard.html in this folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the scorecard as one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Length of each phase, instead of the scenario's.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Only this attack; may be said several times.
    #[arg(long, value_name = "NAME")]
    attack: Vec<String>,
    /// Keep the temporary folder with site, data and logs.
    #[arg(long)]
    keep: bool,
    /// Say nothing while it runs.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    lists: Lists,
}

#[derive(Args)]
struct Lists {
    /// Where the components are [default: where `cargo xtask guests` puts them].
    #[arg(long, value_name = "DIR")]
    guests: Option<PathBuf>,
    /// Another list of attacks [default: tenants/hostile/attacks.yaml, as it was built in].
    #[arg(long, value_name = "FILE")]
    attacks: Option<PathBuf>,
}

const MISSED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const STOPPED: u8 = 130;

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Command::Run(args) => run_scenario(&args),
        Command::List { json } => list(json),
        Command::Check { files, json } => check(&files, json),
        Command::Report { result, output } => report(&result, output),
        Command::Site { scenario, dir, connector, broker, lists } => {
            write_site(&scenario, &dir, connector, broker, &lists)
        }
    };
    match ended {
        Ok(code) => code,
        Err(Failed::Usage(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(WRONG_USAGE)
        }
        Err(Failed::Files(text)) => {
            eprint!("{text}");
            ExitCode::from(WRONG_USAGE)
        }
        Err(Failed::Other(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(MISSED)
        }
    }
}

enum Failed {
    Usage(String),
    /// Errors in files, as they are shown.
    Files(String),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed::Other(error.into())
    }
}

fn run_scenario(args: &RunArgs) -> Result<ExitCode, Failed> {
    let mut scenario = scenario(&args.scenario, args.connector)?;
    if let Some(seconds) = args.seconds {
        scenario = scenario.with_phase(Duration::from_secs(seconds)).map_err(Failed::Usage)?;
    }
    let attacks = args.lists.attacks()?;
    choose_attacks(&mut scenario, &args.attack, &attacks)?;
    if let Some(address) = &args.against
        && address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        return Err(Failed::Usage(format!("`--against {address}`: write HOST:PORT, such as 127.0.0.1:1883")));
    }
    if let Some(out) = &args.out {
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    }
    let options = run::Options {
        against: args.against.clone(),
        guests: args.lists.guests(),
        attacks,
        stop: stop_on_signals()?,
        quiet: args.quiet,
        keep: args.keep,
    };
    run::refuse(&scenario, &options).map_err(|error| Failed::Usage(format!("{error:#}")))?;
    let scorecard = run::run(&scenario, options)?;
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let json = serde_json::to_string(&scorecard)?;
    if args.json {
        println!("{json}");
    } else {
        print!("{}", scorecard.to_text(colour));
    }
    if let Some(out) = &args.out {
        write(&out.join("result.json"), &json)?;
        write(&out.join("scorecard.html"), &page::page(&scorecard))?;
        eprintln!("the page: {}", out.join("scorecard.html").display());
    }
    Ok(match (scorecard.interrupted, scorecard.holds) {
        (true, _) => ExitCode::from(STOPPED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(MISSED),
    })
}

fn choose_attacks(scenario: &mut Scenario, chosen: &[String], attacks: &[Attack]) -> Result<(), Failed> {
    if chosen.is_empty() {
        return Ok(());
    }
    let Some(Beside::Attacks { only, .. }) = &mut scenario.beside else {
        return Err(Failed::Usage(format!("`{}` makes no attacks to choose from", scenario.name)));
    };
    for name in chosen {
        if !attacks.iter().any(|attack| attack.name == *name) {
            let known = attacks.iter().map(|attack| attack.name.as_str());
            let help =
                nearest(name, known).map(|meant| format!(": did you mean `{meant}`?")).unwrap_or_default();
            return Err(Failed::Usage(format!("there is no attack `{name}`{help}")));
        }
    }
    *only = chosen.to_vec();
    Ok(())
}

/// Set by Ctrl-C, SIGTERM or SIGHUP: the run then sums up what ran and stops what it
/// started, within some seconds.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn list(as_json: bool) -> Result<ExitCode, Failed> {
    let scenarios: Vec<Scenario> =
        SHIPPED.iter().map(|(name, _)| scenario(name, None)).collect::<Result<_, _>>()?;
    let attacks = Lists { guests: None, attacks: None }.attacks()?;
    if as_json {
        let scenarios: Vec<_> =
            scenarios.iter().map(|it| json!({ "name": it.name, "about": it.about })).collect();
        let attacks: Vec<_> =
            attacks.iter().map(|it| json!({ "name": it.name, "gets": it.gets, "like": it.like })).collect();
        println!("{}", json!({ "scenarios": scenarios, "attacks": attacks }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("scenarios");
    for scenario in &scenarios {
        println!("  {:16} {}", scenario.name, scenario.about);
    }
    println!("\nattacks, each made by `noisy-neighbour`");
    for attack in attacks.iter().filter(|attack| attack.like.is_none()) {
        println!("  {:30} {}", attack.name, attack.gets);
    }
    println!("\nvariants of these, made only when named with `--attack`");
    for attack in &attacks {
        if let Some(like) = &attack.like {
            println!("  {:36} like {like}", attack.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(files: &[PathBuf], as_json: bool) -> Result<ExitCode, Failed> {
    let mut found = Vec::new();
    let mut text = String::new();
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for path in files {
        if let Err(problems) = Scenario::parse(&read(path)?, path.parent()) {
            text += &problems.to_text(colour);
            found.extend(problems.to_json().as_array().cloned().unwrap_or_default());
        }
    }
    if as_json {
        println!("{}", json!({ "errors": found.len(), "diagnostics": found }));
    } else {
        eprint!("{text}");
        println!("{} checked, {}", plural(files.len(), "file"), plural(found.len(), "error"));
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(MISSED) })
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn report(result: &Path, output: Option<PathBuf>) -> Result<ExitCode, Failed> {
    let text = fs::read_to_string(result).with_context(|| format!("cannot read {}", result.display()))?;
    let scorecard: Scorecard = serde_json::from_str(&text)
        .with_context(|| format!("{} is no result of this version", result.display()))?;
    let output = output.unwrap_or_else(|| result.with_file_name("scorecard.html"));
    write(&output, &page::page(&scorecard))?;
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}

fn write_site(
    name: &str,
    dir: &Path,
    connector: Option<Connector>,
    broker: String,
    lists: &Lists,
) -> Result<ExitCode, Failed> {
    let scenario = scenario(name, connector)?;
    run::refuse_other_host(&scenario).map_err(|error| Failed::Usage(format!("{error:#}")))?;
    if dir.exists() {
        return Err(Failed::Usage(format!("{} is there already: name a folder that is not", dir.display())));
    }
    let site = Site::new(dir, &lists.guests(), &scenario, &ServerAt::Broker(broker))?;
    site.quiet(&scenario.tenants.names())?;
    if let Some(Beside::Attacks { attackers, only }) = &scenario.beside {
        let attacks = lists.attacks()?;
        for attack in run::chosen(&attacks, only).filter(|attack| !attack.at.is_deploy()) {
            site.attackers(attack, *attackers, None)?;
        }
    }
    println!("{}", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn connector(name: &str) -> Result<Connector, String> {
    let known = Connector::ALL.into_iter().find(|connector| connector.name() == name);
    known.ok_or_else(|| format!("there are {}", Connector::ALL.map(Connector::name).join(", ")))
}

/// One that came with the program, or a file.
fn scenario(name: &str, connector: Option<Connector>) -> Result<Scenario, Failed> {
    let path = Path::new(name);
    let (file, folder) = match SHIPPED.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => {
            let path = format!("loadtest/scenarios/{name}.yaml");
            (Arc::new(SourceFile { path, text: (*text).to_owned() }), None)
        }
        None if path.exists() => (read(path)?, path.parent()),
        None => {
            let known: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            let help = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}, or name a file", known.join(", ")),
            };
            return Err(Failed::Usage(format!("there is no scenario `{name}`: {help}")));
        }
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let scenario = Scenario::parse(&file, folder);
    let scenario = scenario.map_err(|problems| Failed::Files(problems.to_text(colour)))?;
    match connector {
        Some(connector) => scenario.with_connector(connector).map_err(Failed::Usage),
        None => Ok(scenario),
    }
}

impl Lists {
    fn guests(&self) -> PathBuf {
        self.guests.clone().unwrap_or_else(guests_built)
    }

    fn attacks(&self) -> Result<Vec<Attack>, Failed> {
        let file = match &self.attacks {
            Some(path) => read(path)?,
            None => {
                let path = "tenants/hostile/attacks.yaml".into();
                Arc::new(SourceFile { path, text: attack::LIST.to_owned() })
            }
        };
        attack::parse(&file).map_err(|problems| Failed::Files(problems.to_text(false)))
    }
}

fn read(path: &Path) -> Result<Arc<SourceFile>, Failed> {
    let text = fs::read_to_string(path);
    match text {
        Ok(text) => Ok(Arc::new(SourceFile { path: path.display().to_string(), text })),
        Err(error) => Err(Failed::Usage(format!("cannot read {}: {error}", path.display()))),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
