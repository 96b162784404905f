//! `tidegate usage`: the usage ledger for people, for spreadsheets and for programs that
//! bill, from the host that runs or from its data folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{
    dead_letters::{fit, moment_ms},
    print::err,
    runtime,
};
use crate::{
    control::{self, ControlError},
    host::{self, HostError},
    resource::diagnostic::nearest,
    store::StoreError,
    usage::{Hour, Page, Query, Row},
};

#[derive(Args)]
pub struct UsageArgs {
    /// Only this tenant's.
    #[arg(value_name = "TENANT")]
    tenant: Option<String>,
    /// From the hour on in which this time lies: RFC 3339, or so long ago, such as `24h`.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = moment_ms)]
    from: u64,
    /// Before this time, or to the end of the hour in which it lies [default: now].
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    to: Option<u64>,
    /// One line for a tenant and so long.
    #[arg(long, value_enum, default_value = "total")]
    by: By,
    /// Print comma-separated values with a line of names, and no totals.
    #[arg(long)]
    csv: bool,
    /// The host's data folder.
    #[arg(long, default_value = ".tidegate")]
    data: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Hour,
    Day,
    Total,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Hour => "hour",
            By::Day => "day",
            By::Total => "total",
        }
    }

    /// Where the line of an hour begins and ends, within what was asked for.
    fn span(self, hour: Hour, all: (Hour, Hour)) -> (Hour, Hour) {
        let (begin, end) = match self {
            By::Hour => (hour, hour.plus(1)),
            By::Day => (hour.day(), hour.day().plus(24)),
            By::Total => all,
        };
        (begin.max(all.0), end.min(all.1))
    }
}

/// Wrong usage that clap does not see.
const WRONG_USAGE: u8 = 2;

pub fn usage(args: UsageArgs, json: bool) -> anyhow::Result<ExitCode> {
    let UsageArgs { tenant, from, to, by, csv, data } = args;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let to = to.unwrap_or(now.as_millis() as u64);
    if csv && json {
        err!("error: --csv and --json are two forms of one result: say one of them");
        return Ok(ExitCode::from(WRONG_USAGE));
    }
    // An hour that has begun is one of those that are meant.
    let all = (Hour::of_ms(from), Hour::behind_ms(to));
    if all.0 >= all.1 {
        err!("error: there is no time between --from and --to: --from is to be the earlier of them");
        return Ok(ExitCode::from(WRONG_USAGE));
    }
    if !data.join("store").is_dir() {
        anyhow::bail!(
            "no host has run on {} yet; say where the host keeps its data with --data",
            data.display()
        );
    }
    let form = match (json, csv) {
        (true, _) => Form::Json,
        (_, true) => Form::Csv,
        _ => Form::Table,
    };
    let query = Query { tenant, from: all.0, to: all.1, after: None };
    let mut printer =
        Printer { out: BufWriter::new(io::stdout()), form, by, all, lines: 0, total: Row::default() };
    match print_all(&data, &query, &mut printer) {
        Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        other => other?,
    }
    match &query.tenant {
        Some(tenant) if printer.lines == 0 => Err(nothing_of(&data, &query, tenant)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A reader that has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
}

/// Lines come as soon as they are complete: of many tenants and days there may be more
/// rows than fit in memory.
fn print_all(data: &Path, query: &Query, printer: &mut Printer) -> anyhow::Result<()> {
    let mut lines = Lines::default();
    let mut is_first = true;
    each_page(data, query, |page| {
        if std::mem::take(&mut is_first) {
            printer.begin()?;
        }
        for (hour, tenant, row) in page.rows {
            let span = printer.by.span(hour, printer.all);
            if lines.span != Some(span) {
                printer.lines(&mut lines)?;
                lines.span = Some(span);
            }
            lines.rows.entry(tenant).or_default().add(&row);
        }
        Ok(true)
    })?;
    printer.lines(&mut lines)?;
    printer.end()
}

/// Why a tenant has no line.
fn nothing_of(data: &Path, query: &Query, tenant: &str) -> anyhow::Error {
    let mut names = BTreeSet::new();
    let others = Query { tenant: None, ..query.clone() };
    // The names of a few pages are all there are, unless tenants come and go.
    let mut pages = 0;
    let read = each_page(data, &others, |page| {
        names.extend(page.rows.into_iter().map(|(_, tenant, _)| tenant));
        pages += 1;
        Ok(pages < 5)
    });
    let what = format!("`{tenant}` has used nothing from {} to {}", query.from.to_text(), query.to.to_text());
    let hint = match nearest(tenant, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None if read.is_ok() && names.is_empty() => {
            "neither has any other tenant; --from says how far back to look".to_owned()
        }
        None => "`tidegate usage` without a name shows who has".to_owned(),
    };
    anyhow::anyhow!("{what}; {hint}")
}

/// Rows of one span, by tenant.
#[derive(Default)]
struct Lines {
    span: Option<(Hour, Hour)>,
    rows: BTreeMap<String, Row>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Csv,
    Json,
}

struct Printer {
    out: BufWriter<io::Stdout>,
    form: Form,
    by: By,
    all: (Hour, Hour),
    lines: u64,
    total: Row,
}

impl Printer {
    fn begin(&mut self) -> anyhow::Result<()> {
        let (from, to) = (self.all.0.to_text(), self.all.1.to_text());
        match self.form {
            Form::Table => {
                writeln!(self.out, "from {from} to {to}, in whole hours")?;
                let name = if self.by == By::Total { "TENANT" } else { "TIME (UTC)" };
                writeln!(self.out, "{}", self.columns(name, "TENANT", HEADS.map(str::to_owned)))?;
            }
            Form::Csv => writeln!(self.out, "from,to,tenant,{}", Row::COLUMNS.join(","))?,
            // One document, a piece at a time.
            Form::Json => {
                let by = self.by.name();
                write!(self.out, r#"{{"from":"{from}","to":"{to}","by":"{by}","rows":["#)?;
            }
        }
        Ok(())
    }

    fn lines(&mut self, lines: &mut Lines) -> anyhow::Result<()> {
        let Some(span) = lines.span else { return Ok(()) };
        for (tenant, row) in std::mem::take(&mut lines.rows) {
            self.line(span, &tenant, &row)?;
        }
        Ok(())
    }

    fn line(&mut self, (from, to): (Hour, Hour), tenant: &str, row: &Row) -> anyhow::Result<()> {
        let (begin, end) = (from.to_text(), to.to_text());
        match self.form {
            Form::Table => {
                // To the minute, or the day.
                let time = match self.by {
                    By::Day => begin[..10].to_owned(),
                    By::Hour | By::Total => begin[..16].replace('T', " "),
                };
                writeln!(self.out, "{}", self.columns(&time, tenant, cells(row)))?;
            }
            Form::Csv => {
                let values = row.values().map(|value| value.to_string()).join(",");
                writeln!(self.out, "{begin},{end},{},{values}", csv_text(tenant))?;
            }
            Form::Json => {
                let mut object = json!({ "from": begin, "to": end, "tenant": tenant });
                object.as_object_mut().expect("it is one").extend(named(row));
                write!(self.out, "{}{object}", if self.lines == 0 { "" } else { "," })?;
            }
        }
        self.lines += 1;
        self.total.add(row);
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        match self.form {
            Form::Table => writeln!(self.out, "{}", self.columns("TOTAL", "", cells(&self.total)))?,
            Form::Csv => {}
            Form::Json => writeln!(self.out, r#"],"total":{}}}"#, Value::Object(named(&self.total)))?,
        }
        Ok(self.out.flush()?)
    }

    /// A line of the table, which is 100 columns wide.
    fn columns(&self, time: &str, tenant: &str, cells: [String; 9]) -> String {
        let name = match (self.by, tenant) {
            (By::Total, "") => format!("{time:<36}"),
            (By::Total, tenant) => format!("{:<36}", fit(tenant, 36)),
            (By::Hour | By::Day, tenant) => format!("{time:<16} {:<19}", fit(tenant, 19)),
        };
        let cells = cells.map(|cell| format!("{cell:>6}")).join(" ");
        format!("{name} {cells}").trim_end().to_owned()
    }
}

fn named(row: &Row) -> Map<String, Value> {
    Row::NAMES.iter().zip(row.values()).map(|(name, value)| ((*name).to_owned(), value.into())).collect()
}

/// What the cells below are: CPU time in seconds, memory in GiB times seconds.
const HEADS: [&str; 9] = ["CPU s", "FUEL", "GiB s", "IN", "IN B", "OUT", "OUT B", "DEAD", "CALLS"];

fn cells(row: &Row) -> [String; 9] {
    let Row {
        cpu_ns,
        fuel,
        memory_byte_seconds,
        received,
        received_bytes,
        delivered,
        delivered_bytes,
        dead,
        host_calls,
    } = *row;
    [
        measure(cpu_ns as f64 / 1e9),
        count(fuel),
        measure(memory_byte_seconds as f64 / f64::from(1 << 30)),
        count(received),
        count(received_bytes),
        count(delivered),
        count(delivered_bytes),
        count(dead),
        count(host_calls),
    ]
}

/// In six columns, as it is while it has four digits.
fn count(value: u64) -> String {
    if value < 10_000 { value.to_string() } else { measure(value as f64) }
}

/// In six columns: three digits and a unit.
fn measure(mut value: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    if value == 0.0 {
        return "0".to_owned();
    }
    if value < 0.001 {
        return "<0.001".to_owned();
    }
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if value < 0.9995 => 3,
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

/// A name as a field: one with a comma or a quote is quoted.
fn csv_text(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

/// How long a host that starts may take until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
/// How long the store of a host that does not run is held: one that starts waits for it.
const HELD_MAX: Duration = Duration::from_millis(300);

/// Calls `each` with every page, until it says that it has enough.
fn each_page(
    data: &Path,
    query: &Query,
    mut each: impl FnMut(Page) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut query = query.clone();
    loop {
        let page = read(data, &query)?;
        query.after = page.next.clone();
        if !each(page)? || query.after.is_none() {
            return Ok(());
        }
    }
}

/// From the host that runs, or else from its data folder.
fn read(data: &Path, query: &Query) -> anyhow::Result<Page> {
    let until = Instant::now() + STARTS_WITHIN;
    loop {
        match ask(data, query) {
            Err(error)
                if error.downcast_ref().is_some_and(|it| matches!(it, ControlError::NoHost { .. })) => {}
            answered => return answered,
        }
        match read_stored(data, query) {
            // A host has it before it listens, and after.
            Err(HostError::Store(StoreError::Database { .. })) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            read => return Ok(read?),
        }
    }
}

fn ask(data: &Path, query: &Query) -> anyhow::Result<Page> {
    let (status, answer) = runtime()?.block_on(control::ask(data, "/usage", serde_json::to_value(query)?))?;
    if !status.is_success() {
        anyhow::bail!("{}", answer["error"].as_str().unwrap_or("the host refused to answer"));
    }
    Page::from_json(answer).context("the host gave no usage; is it of another version?")
}

/// As many pages as there are in a short time, as one.
fn read_stored(data: &Path, query: &Query) -> Result<Page, HostError> {
    let store = host::stored(data)?;
    let (mut query, until) = (query.clone(), Instant::now() + HELD_MAX);
    let mut all = Page::default();
    loop {
        let page = store.usage_page(&query)?;
        all.rows.extend(page.rows);
        all.next = page.next;
        if all.next.is_none() || Instant::now() >= until {
            return Ok(all);
        }
        query.after = all.next.clone();
    }
}

#[cfg(test)]
mod tests;
