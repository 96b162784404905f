//! `tidegate test`: AIO's `*.test.yaml`, each on a shard of its own and a virtual
//! clock: milliseconds where a runner on a real clock waits for minutes.

mod difference;
mod junit;
mod stage;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use self::{
    difference::{Difference, differences},
    stage::{Play, Stage},
};
use super::{
    policy_of,
    print::{err, out},
    print_json, report, run,
};
use crate::{
    dataflow::{plan::Plan, shard::install_panic_hook},
    dead_letter::{Reason, Record},
    deploy::{self, Ends, known::Known},
    guest::{
        compile::{Cache, Compiler},
        component::Components,
        engine::{Engines, PoolSize},
    },
    resource::{
        Diagnostics, OnError, Policy,
        site::{self, TenantSite},
        test_case::{self, Expected, TestCase},
    },
    store::WindowSpace,
    tenant::Tenant,
    write::SinkQueue,
};

#[derive(Args)]
pub struct TestArgs {
    /// A test file, or a folder in which and below which files end in `.test.yaml`.
    path: PathBuf,
    /// Folder with the components: `NAME/TAG.wasm`, or `NAME.wasm` as it was built
    /// [default: the next `artifacts` in a folder above the test].
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// `standard`, `large` (for Python and JavaScript), `inference` (for models), or a file
    /// with a Policy.
    #[arg(long, value_name = "P", default_value = "standard")]
    policy: PathBuf,
    /// Also write the results as JUnit XML.
    #[arg(long, value_name = "F")]
    junit: Option<PathBuf>,
}

/// Instances, and components in memory, that one test may have at once.
const SLOTS: usize = 64;
/// Room for writes between the graph and its sink.
const SINK_BYTES: usize = 1 << 20;
/// Most differences of one test that are shown.
const SHOWN_MAX: usize = 20;

/// How a test ended.
#[derive(Debug)]
enum Verdict {
    Passed,
    /// It ran, and not as expected.
    Failed(Failure),
    /// It could not run: what is wrong, as text for people and for programs.
    Broken {
        text: String,
        diagnostics: Value,
    },
}

#[derive(Debug, Default)]
struct Failure {
    differences: Vec<Difference>,
    /// Faults of the graph that no difference shows.
    faults: Vec<String>,
}

/// What is said about one test.
#[derive(Debug)]
struct Report {
    name: String,
    file: PathBuf,
    /// As the clock on the wall goes.
    took: Duration,
    /// Virtual time until the last output.
    last_output: Duration,
    outputs: usize,
    /// Warnings, and messages that operators refused.
    notes: Vec<String>,
    verdict: Verdict,
}

pub fn test(args: TestArgs, json: bool) -> anyhow::Result<ExitCode> {
    let files = match test_case::find(&args.path) {
        Ok(files) if files.is_empty() => {
            err!("error: no file in {} ends in `.test.yaml`", args.path.display());
            return Ok(ExitCode::from(2));
        }
        Ok(files) => files,
        Err(error) => {
            err!("error: cannot read {}: {error}", args.path.display());
            return Ok(ExitCode::from(2));
        }
    };
    let mut diagnostics = Diagnostics::default();
    let Some(policy) = policy_of(&args.policy, &mut diagnostics) else {
        report(&diagnostics, json);
        return Ok(ExitCode::FAILURE);
    };
    let mut runner = Runner::new(policy, args.artifacts)?;
    let began = Instant::now();
    let mut reports = Vec::new();
    for file in &files {
        let report = runner.run(file);
        match json {
            true => err!("{}", report.headline()),
            false => out!("{}{}", report.headline(), report.details()),
        }
        reports.push(report);
    }
    if let Some(path) = &args.junit {
        let xml = junit::document(&reports)?;
        std::fs::write(path, xml)
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    }
    let summary = Summary::of(&reports, began.elapsed());
    match json {
        true => print_json(&summary.to_json(&reports)),
        false => out!("{summary}"),
    }
    Ok(if summary.passed == reports.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs tests one after the other; they share only what is compiled.
struct Runner {
    tenant: TenantSite,
    artifacts: Option<PathBuf>,
    components: Components,
    known: Known,
}

impl Runner {
    fn new(policy: Policy, artifacts: Option<PathBuf>) -> anyhow::Result<Self> {
        install_panic_hook();
        let engines = Engines::new(PoolSize::small(SLOTS as u32))?;
        let compiler = Compiler::Child { program: std::env::current_exe()? };
        let cache = Cache::open(&run::cache_dir(), &engines, compiler)?;
        let mut tenant = run::tenant_under(&policy);
        // Dropped all the same, but with its text, so that a test can say why.
        tenant.limits.on_error = OnError::DeadLetter;
        Ok(Runner {
            tenant,
            artifacts,
            components: Components::inline(engines, cache),
            known: Known::default(),
        })
    }

    fn run(&mut self, file: &Path) -> Report {
        let began = Instant::now();
        let mut diagnostics = Diagnostics::default();
        let case = TestCase::read(file, &mut diagnostics);
        let name = case.as_ref().map_or_else(|| file.display().to_string(), |case| case.name.clone());
        let mut report = Report {
            name,
            file: file.to_owned(),
            took: Duration::ZERO,
            last_output: Duration::ZERO,
            outputs: 0,
            notes: Vec::new(),
            verdict: Verdict::Passed,
        };
        let plan = case.as_ref().and_then(|case| self.plan(file, case, &mut diagnostics));
        if let (Some(case), Some((plan, sink))) = (&case, plan) {
            report.notes = diagnostics.iter().map(|it| it.message.clone()).collect();
            report.verdict = match self.play(case, &plan, &sink) {
                Ok(outcome) => report.take(case, outcome),
                Err(error) => Verdict::Broken { text: format!("error: {error:#}\n"), diagnostics: json!([]) },
            };
        } else {
            report.verdict =
                Verdict::Broken { text: diagnostics.to_text(false), diagnostics: diagnostics.to_json() };
        }
        report.took = began.elapsed();
        report
    }

    /// What a shard would run; nothing if there is any error.
    fn plan(
        &mut self,
        file: &Path,
        case: &TestCase,
        diagnostics: &mut Diagnostics,
    ) -> Option<(Arc<Plan>, Arc<SinkQueue>)> {
        let artifacts = self.artifacts.clone().or_else(|| artifacts_above(file)).unwrap_or_default();
        let (graph, found) = site::load_graph(&case.graph, &artifacts, &case.settings, &[]);
        diagnostics.extend(found);
        let mut graph = graph?;
        for module in graph.modules.values_mut() {
            module.schemas.extend(case.schema.clone());
        }
        let flow = run::around(graph);
        let admitted = deploy::admit(&self.tenant, &flow, &mut self.known, diagnostics);
        deploy::compile(&self.tenant, &flow, &admitted, self.components.cache(), diagnostics);
        if diagnostics.has_errors() {
            return None;
        }
        let sink = SinkQueue::new(SINK_BYTES);
        let sinks = BTreeMap::from([(run::NAME.to_owned(), sink.clone())]);
        let running = Tenant::new(run::NAME, self.tenant.limits.clone());
        let ends = Ends { endpoints: &BTreeMap::new(), sinks: &sinks, commands: None };
        let plan = deploy::plan(&running, &self.tenant, &flow, &admitted, WindowSpace::memory(), ends);
        Some((Arc::new(plan), sink))
    }

    fn play(
        &self,
        case: &TestCase,
        plan: &Arc<Plan>,
        sink: &Arc<SinkQueue>,
    ) -> anyhow::Result<stage::Outcome> {
        stage::check_sizes(&case.messages, self.tenant.limits.payload_bytes_max)?;
        let outputs = match &case.expected {
            Expected::Last(_) => 1,
            Expected::All(all) => all.len(),
        };
        let play = Play { messages: &case.messages, outputs, timeout: case.timeout };
        Stage::new(self.components.clone()).play(plan, sink, &play)
    }
}

/// The next folder `artifacts` at or above a file's: in a site, the tenant's.
fn artifacts_above(file: &Path) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    file.ancestors().skip(1).map(|folder| folder.join("artifacts")).find(|folder| folder.is_dir())
}

impl Report {
    /// Takes over what came of the test, and judges it.
    fn take(&mut self, case: &TestCase, outcome: stage::Outcome) -> Verdict {
        let stage::Outcome { outputs, last_output, dead, unsettled } = outcome;
        self.last_output = last_output;
        self.outputs = outputs.len();
        let mut failure = Failure {
            differences: differences(&case.expected, &case.compared, &outputs),
            faults: Vec::new(),
        };
        for Record { operation, reason, detail, .. } in dead {
            let operation = operation.unwrap_or_default();
            match reason {
                // An operator's own error is AIO's way to drop a message.
                Reason::OperatorError => {
                    self.notes.push(format!("`{operation}` dropped a message: {detail}"))
                }
                _ => failure.faults.push(format!("`{operation}` lost a message: {detail}")),
            }
        }
        if unsettled > 0 {
            let timeout = humantime::format_duration(case.timeout);
            failure.faults.push(format!("{unsettled} inputs are not settled after {timeout}"));
        }
        if failure.differences.is_empty() && failure.faults.is_empty() {
            return Verdict::Passed;
        }
        Verdict::Failed(failure)
    }

    fn status(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Broken { .. } => "broken",
        }
    }

    fn headline(&self) -> String {
        let Report { name, outputs, .. } = self;
        let (took, virtual_time) = (milliseconds(self.took), milliseconds(self.last_output));
        match self.verdict {
            Verdict::Broken { .. } => format!("broken  {name}"),
            _ => format!("{}  {name}  ({outputs} out within {virtual_time}, in {took})", self.status()),
        }
    }

    /// What a person needs to know, on lines of their own after the headline.
    fn details(&self) -> String {
        let mut lines = Vec::new();
        match &self.verdict {
            Verdict::Passed => {}
            Verdict::Broken { text, .. } => return format!("\n{}", text.trim_end()),
            Verdict::Failed(failure) => {
                lines.push(format!("--> {}", self.file.display()));
                lines.extend(failure.lines());
            }
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.iter().map(|line| format!("\n        {}", printable(line))).collect()
    }

    fn to_json(&self) -> Value {
        let (differences, faults): (Value, Value) = match &self.verdict {
            Verdict::Failed(failure) => {
                (failure.differences.iter().map(Difference::to_json).collect(), json!(failure.faults))
            }
            _ => (json!([]), json!([])),
        };
        let diagnostics = match &self.verdict {
            Verdict::Broken { diagnostics, .. } => diagnostics.clone(),
            _ => json!([]),
        };
        let text = match &self.verdict {
            Verdict::Broken { text, .. } => Some(text.trim_end()),
            _ => None,
        };
        json!({
            "name": self.name,
            "file": self.file,
            "status": self.status(),
            "outputs": self.outputs,
            "lastOutputMs": self.last_output.as_millis() as u64,
            "tookMs": self.took.as_secs_f64() * 1e3,
            "differences": differences,
            "faults": faults,
            "notes": self.notes,
            "diagnostics": diagnostics,
            "error": text,
        })
    }
}

impl Failure {
    /// One line for each thing that is wrong.
    fn lines(&self) -> Vec<String> {
        let shown = self.differences.iter().take(SHOWN_MAX).map(Difference::to_string);
        let more = self.differences.len().saturating_sub(SHOWN_MAX);
        let more = (more > 0).then(|| format!("{more} more differences are not shown"));
        shown.chain(more).chain(self.faults.iter().cloned()).collect()
    }
}

/// Results and faults hold what operators write: none of it moves the cursor.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn milliseconds(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds @ 10.0.. => format!("{seconds:.1} s"),
        seconds => format!("{:.0} ms", seconds * 1e3),
    }
}

#[derive(Debug, Default)]
struct Summary {
    passed: usize,
    failed: usize,
    broken: usize,
    took: Duration,
}

impl Summary {
    fn of(reports: &[Report], took: Duration) -> Self {
        let mut summary = Summary { took, ..Summary::default() };
        for report in reports {
            *match report.verdict {
                Verdict::Passed => &mut summary.passed,
                Verdict::Failed(_) => &mut summary.failed,
                Verdict::Broken { .. } => &mut summary.broken,
            } += 1;
        }
        summary
    }

    fn to_json(&self, reports: &[Report]) -> Value {
        json!({
            "passed": self.passed,
            "failed": self.failed,
            "broken": self.broken,
            "tookMs": self.took.as_secs_f64() * 1e3,
            "tests": reports.iter().map(Report::to_json).collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { passed, failed, broken, took } = self;
        write!(f, "{passed} passed, {failed} failed, {broken} broken, in {}", milliseconds(*took))
    }
}
