//! `tidegate dead-letters`: what dataflows gave up on: read where it lies in the data
//! folder, removed, or sent through its dataflow again by the host that runs.

use std::{
    fs::File,
    io::{self, BufRead as _, BufWriter, IsTerminal as _, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    print::{err, out},
    print_json, runtime,
};
use crate::{
    control::{self, ControlError},
    dead_letter::{
        Archive, ArchiveError, Reason, Record,
        filter::{self, Filter},
        reader,
    },
};

/// The dead letters of a data folder.
///
/// Each has a number that stays its own, as long as it is kept and after; `list` shows it.
/// All of these but `replay` work whether the host runs or not. docs/quotas.md says how
/// many are kept, and what is promised of them.
#[derive(Args)]
pub struct DeadLettersArgs {
    /// The host's data folder.
    #[arg(long, global = true, default_value = ".tidegate")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A line for each: number, time, dataflow and operation, reason, detail.
    ///
    /// By tenant and dataflow, and of these the oldest first. With `--json` a document
    /// a line.
    List {
        /// Only this tenant's, as with --tenant.
        #[arg(id = "of", value_name = "TENANT", conflicts_with = "tenant")]
        of: Option<String>,
        #[command(flatten)]
        which: Which,
        /// No more than so many, the first in this order.
        #[arg(long)]
        limit: Option<usize>,
    },
    /// One of them whole, by its number in `list`.
    Show {
        #[arg(value_name = "ID")]
        id: u64,
        /// It must be this tenant's.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Write them as JSON lines that `tidegate run --input` and a File endpoint read.
    ///
    /// The message is in the keys that such lines have, why it was given up in
    /// `deadLetter`. They stay in the data folder.
    Export {
        /// Only these; all if there are none.
        #[arg(value_name = "ID")]
        ids: Vec<u64>,
        #[command(flatten)]
        which: Which,
        /// No more than so many, the first in the order of `list`.
        #[arg(long)]
        limit: Option<usize>,
        /// The file to write, in whose place it comes when it is whole; `-` for
        /// standard output.
        #[arg(long, short, default_value = "-", value_name = "FILE")]
        output: PathBuf,
    },
    /// Send them through the dataflow that gave them up, as it runs now.
    ///
    /// They go in as deliveries of their own, on the tenant's credit and with the user
    /// property `tidegate-replay: ID`, and are removed once these are settled. One that is
    /// given up again is one letter again, under a new number. Ctrl-C ends it after what is
    /// under way.
    Replay {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Remove them for good.
    Discard {
        #[command(flatten)]
        chosen: Chosen,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// All that is said must hold.
#[derive(Args, Default)]
struct Which {
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this dataflow.
    #[arg(long)]
    dataflow: Option<String>,
    /// Given up by this operation of a graph.
    #[arg(long, value_name = "OPERATION")]
    operator: Option<String>,
    /// Given up for this reason, as `list` shows it, such as `trap` or `out-of-fuel`.
    #[arg(long, value_parser = filter::reason)]
    reason: Option<Reason>,
    /// Given up at this time or later: RFC 3339, or so long ago, such as `10m`.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    since: Option<u64>,
    /// Given up before this time.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    until: Option<u64>,
}

/// Some of them, and never all by accident.
#[derive(Args)]
struct Chosen {
    /// These, by their number in `list`.
    #[arg(value_name = "ID")]
    ids: Vec<u64>,
    #[command(flatten)]
    which: Which,
    /// All there are.
    #[arg(long, conflicts_with_all = ["ids", "tenant", "dataflow", "operator", "reason", "since", "until"])]
    all: bool,
}

/// RFC 3339, or so long ago, in ms since the Unix epoch.
pub(super) fn moment_ms(text: &str) -> Result<u64, filter::NoMoment> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    filter::moment_ms(text, now)
}

impl Which {
    fn filter(self, ids: Vec<u64>) -> Filter {
        let Which { tenant, dataflow, operator, reason, since, until } = self;
        let (since_ms, until_ms) = (since, until);
        let ids = ids.into_iter().collect();
        Filter { tenant, dataflow, operation: operator, reason, since_ms, until_ms, ids, id_max: None }
    }
}

impl Chosen {
    /// `None` if nothing is said at all.
    fn filter(self) -> Option<Filter> {
        let filter = self.which.filter(self.ids);
        (self.all || !filter.is_empty()).then_some(filter)
    }
}

/// Wrong usage that clap does not see.
const WRONG_USAGE: u8 = 2;

pub fn dead_letters(args: DeadLettersArgs, json: bool) -> anyhow::Result<ExitCode> {
    let data = args.data;
    if !data.is_dir() {
        anyhow::bail!(
            "there is no data folder {}; say where the host keeps its data with --data",
            data.display()
        );
    }
    let dir = data.join("dead-letters");
    match args.command {
        Command::List { of, which, limit } => {
            let which = Which { tenant: of.or(which.tenant), ..which };
            list(&dir, &which.filter(Vec::new()), limit, json)
        }
        Command::Show { id, tenant } => show(&dir, id, tenant, json),
        Command::Export { ids, which, limit, output } => {
            export(&dir, &which.filter(ids), limit, &output, json)
        }
        Command::Replay { chosen } => match chosen.filter() {
            Some(filter) => replay(&data, &filter, json),
            None => Ok(nothing_chosen("replay")),
        },
        Command::Discard { chosen, yes } => match chosen.filter() {
            Some(filter) => discard(&data, &dir, filter, yes, json),
            None => Ok(nothing_chosen("discard")),
        },
    }
}

fn nothing_chosen(command: &str) -> ExitCode {
    err!("error: `{command}` needs numbers of dead letters, a filter such as --tenant, or --all");
    ExitCode::from(WRONG_USAGE)
}

/// Calls `each` with what `filter` takes, up to a limit.
fn read(
    dir: &Path,
    filter: &Filter,
    limit: Option<usize>,
    mut each: impl FnMut(Record) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if limit == Some(0) {
        return Ok(());
    }
    let context = || format!("cannot read {}", dir.display());
    if dir.is_dir() {
        match Archive::open(dir) {
            // Puts right what a crash has left, and lets go of them.
            Ok(_) => {}
            // Whoever has them keeps them right.
            Err(ArchiveError::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (mut count, mut result) = (0, Ok(()));
    reader::read(dir, filter, |record| {
        count += 1;
        result = each(record);
        if result.is_err() || Some(count) == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .with_context(context)?;
    result
}

fn list(dir: &Path, filter: &Filter, limit: Option<usize>, json: bool) -> anyhow::Result<ExitCode> {
    let mut is_first = true;
    read(dir, filter, limit, |record| {
        if json {
            print_json(&serde_json::to_value(record)?);
            return Ok(());
        }
        if std::mem::take(&mut is_first) {
            out!("{}", columns(["ID", "TIME", "TENANT/DATAFLOW/OPERATION", "REASON", "DETAIL"]));
        }
        out!("{}", line(&record));
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn line(record: &Record) -> String {
    let operation = record.operation.as_deref().unwrap_or("-");
    let place = format!("{}/{}/{operation}", record.tenant, record.dataflow);
    let at = record.at.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let detail = match record.attempts {
        1 => record.detail.clone(),
        attempts => format!("({attempts} times) {}", record.detail),
    };
    columns([&record.id.to_string(), &format!("{at}Z"), &place, record.reason.name(), &detail])
}

/// A line of the table, which is 100 columns wide.
fn columns(cells: [&str; 5]) -> String {
    let [id, at, place, reason, detail] = cells;
    let (place, detail) = (fit_both_ends(place, 30), fit(detail, 22));
    format!("{id:>7}  {at:<20}  {place:<30}  {reason:<13}  {detail}").trim_end().to_owned()
}

/// At most so many columns, on one line.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let text = text.replace(char::is_control, " ");
    if text.chars().count() <= columns {
        return text;
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}

/// The same, but the end is worth as much as the beginning.
fn fit_both_ends(text: &str, columns: usize) -> String {
    let chars: Vec<_> = text.chars().collect();
    if chars.len() <= columns {
        return text.to_owned();
    }
    let end = columns / 2;
    let begin = columns - end - 1;
    chars[..begin].iter().chain(&['…']).chain(&chars[chars.len() - end..]).collect()
}

/// So many of them, in words.
fn letters(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

fn show(dir: &Path, id: u64, tenant: Option<String>, json: bool) -> anyhow::Result<ExitCode> {
    let filter = Filter { ids: [id].into(), tenant, ..Filter::default() };
    let mut found = None;
    read(dir, &filter, Some(1), |record| {
        found = Some(record);
        Ok(())
    })?;
    let Some(record) = found else {
        let of = filter.tenant.map(|tenant| format!(" of `{tenant}`")).unwrap_or_default();
        anyhow::bail!("there is no dead letter {id}{of}; `tidegate dead-letters list` shows their numbers");
    };
    if json {
        print_json(&serde_json::to_value(record)?);
    } else {
        out!("{}", serde_json::to_string_pretty(&record)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn export(
    dir: &Path,
    filter: &Filter,
    limit: Option<usize>,
    output: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let to_stdout = output == Path::new("-");
    let context = || format!("cannot write {}", output.display());
    // Whoever reads the file finds all of it, or what was there before.
    let folder = output.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = folder.join(format!(".tidegate-export-{}", std::process::id()));
    let mut out: Box<dyn Write> = match to_stdout {
        true => Box::new(BufWriter::new(io::stdout())),
        false => Box::new(BufWriter::new(File::create(&beside).with_context(context)?)),
    };
    let mut count = 0;
    let written = read(dir, filter, limit, |record| {
        count += 1;
        serde_json::to_writer(&mut out, &exported(record)).map_err(io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    });
    let written = written.and_then(|()| Ok(out.flush()?));
    drop(out);
    if to_stdout {
        return match written {
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            other => other.map(|()| ExitCode::SUCCESS),
        };
    }
    let placed = written.and_then(|()| Ok(std::fs::rename(&beside, output)?));
    if placed.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    placed.with_context(context)?;
    match json {
        true => print_json(&json!({ "exported": count, "file": output })),
        false => out!("{} in {}", letters(count), output.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// A reader that has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
}

/// A letter in the keys of a line that is a message.
fn exported(record: Record) -> Value {
    let mut message = serde_json::Map::new();
    let mut letter = match serde_json::to_value(record).expect("a record is JSON") {
        Value::Object(keys) => keys,
        _ => unreachable!("a record is an object"),
    };
    for key in ["topic", "payload", "payloadBase64", "contentType", "properties", "timestamp"] {
        if let Some(value) = letter.remove(key) {
            message.insert(key.to_owned(), value);
        }
    }
    message.insert("deadLetter".to_owned(), Value::Object(letter));
    Value::Object(message)
}

fn discard(data: &Path, dir: &Path, mut filter: Filter, yes: bool, json: bool) -> anyhow::Result<ExitCode> {
    if !yes && io::stdin().is_terminal() {
        let mut ids = Vec::new();
        read(dir, &filter, None, |record| {
            ids.push(record.id);
            Ok(())
        })?;
        // What comes while somebody thinks about it is not meant.
        filter.id_max = ids.iter().max().copied();
        if ids.is_empty() || !confirm(ids.len() as u64)? {
            out!("{} discarded", letters(0));
            return Ok(ExitCode::SUCCESS);
        }
    }
    let count = match Archive::open(dir) {
        Ok(mut archive) => archive.discard(&filter).context("nothing was discarded")?,
        Err(ArchiveError::Taken { .. }) => ask_discard(data, &filter)?,
        Err(error) => return Err(error.into()),
    };
    match json {
        true => print_json(&json!({ "discarded": count })),
        false => out!("{} discarded", letters(count)),
    }
    Ok(if filter.ids.is_empty() || count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn confirm(count: u64) -> io::Result<bool> {
    let mut stderr = io::stderr();
    write!(stderr, "discard {} for good? [y/N] ", letters(count))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How long a host that starts may take until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(5);

/// The host that has the letters discards them.
fn ask_discard(data: &Path, filter: &Filter) -> anyhow::Result<u64> {
    let until = std::time::Instant::now() + STARTS_WITHIN;
    loop {
        match ask(data, "/dead-letters/discard", filter) {
            Ok(answer) => return answer["discarded"].as_u64().context("the host gave no count"),
            // It has them before it listens, or another command has them for a moment.
            Err(error)
                if error.downcast_ref().is_some_and(|it| matches!(it, ControlError::NoHost { .. }))
                    && std::time::Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(50));
                if let Ok(mut archive) = Archive::open(&data.join("dead-letters")) {
                    return archive.discard(filter).context("nothing was discarded");
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn ask(data: &Path, path: &str, filter: &Filter) -> anyhow::Result<Value> {
    let (status, answer) = runtime()?.block_on(control::ask(data, path, serde_json::to_value(filter)?))?;
    if !status.is_success() {
        anyhow::bail!("{}", answer["error"].as_str().unwrap_or("the host refused to answer"));
    }
    Ok(answer)
}

fn replay(data: &Path, filter: &Filter, json: bool) -> anyhow::Result<ExitCode> {
    let answer = ask(data, "/dead-letters/replay", filter)
        .context("dead letters are replayed by the host that runs their dataflows")?;
    let refused = answer["refused"].as_array().cloned().unwrap_or_default();
    if json {
        print_json(&answer);
    } else {
        for letter in &refused {
            err!("error: letter {}: {}", letter["id"], letter["error"].as_str().unwrap_or_default());
        }
        let again = match answer["again"].as_u64() {
            None | Some(0) => String::new(),
            Some(again) => format!(", {again} of them given up again"),
        };
        let kept = match refused.len() {
            0 => String::new(),
            1 => "; 1 stays as it was".to_owned(),
            kept => format!("; {kept} stay as they were"),
        };
        let settled = answer["settled"].as_u64().unwrap_or_default();
        out!("{} replayed{again}{kept}", letters(settled));
    }
    Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
