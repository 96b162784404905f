//! Chaos: what can fail around a host, and the host itself, is made to fail under load, and an
//! outside client says by id what became of every message. Each fault is a row: what was sent
//! around it, delivered, lost and duplicated, and how long until what was sent after it came.

mod fault;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, Plan, QUIET_MAX, Servers, Tools, site::Shape},
    connector::Connector,
    count::Count,
    host::Launch,
    ledger::PhaseId,
};

/// How long it may take until what is sent after a fault comes. An open transaction of a host
/// that does not come back holds up who reads committed records for a minute; and the CI machine
/// is slow.
const RECOVER_WITHIN: Duration = Duration::from_secs(150);

/// What is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of the host, and a start on what it has on disk.
    HostKilled,
    /// kill -9 of the broker.
    BrokerKilled,
    /// The broker ends in order and starts again.
    BrokerRestarted,
    /// SIGSTOP of the broker.
    BrokerFrozen,
    /// Every connection is cut.
    LinksCut,
    /// Nobody comes through for a while.
    LinksRefused,
    /// All comes later for a while.
    LinksDelayed,
    /// Little comes through for a while.
    LinksSlowed,
    /// One direction of every connection ends: what the host is told, or what it says.
    LinksHalfClosed,
    /// A write comes through in part, and the connection ends.
    LinksTruncated,
    /// Servers hear nothing for a while, and are heard.
    LinksDeafened,
    /// A deploy of another component, again and again.
    Redeployed,
    /// Members of the source's consumer group come and go.
    GroupRebalanced,
    /// Of two hosts that share a subscription or a group, one is killed, and comes back.
    OneOfTwoKilled,
    /// The disk of the data folder is full for a while.
    DiskFull,
    /// The host's clock jumps, forwards and back.
    ClockStepped,
}

impl Fault {
    pub const ALL: [Fault; 16] = [
        Fault::HostKilled,
        Fault::BrokerKilled,
        Fault::BrokerRestarted,
        Fault::BrokerFrozen,
        Fault::LinksCut,
        Fault::LinksRefused,
        Fault::LinksDelayed,
        Fault::LinksSlowed,
        Fault::LinksHalfClosed,
        Fault::LinksTruncated,
        Fault::LinksDeafened,
        Fault::Redeployed,
        Fault::GroupRebalanced,
        Fault::OneOfTwoKilled,
        Fault::DiskFull,
        Fault::ClockStepped,
    ];

    fn name(self) -> &'static str {
        match self {
            Fault::HostKilled => "host killed",
            Fault::BrokerKilled => "broker killed",
            Fault::BrokerRestarted => "broker restarted",
            Fault::BrokerFrozen => "broker frozen",
            Fault::LinksCut => "links cut",
            Fault::LinksRefused => "links refused",
            Fault::LinksDelayed => "links delayed",
            Fault::LinksSlowed => "links slowed",
            Fault::LinksHalfClosed => "links half-closed",
            Fault::LinksTruncated => "links truncated",
            Fault::LinksDeafened => "links deafened",
            Fault::Redeployed => "redeployed",
            Fault::GroupRebalanced => "group rebalanced",
            Fault::OneOfTwoKilled => "one of two hosts killed",
            Fault::DiskFull => "disk full",
            Fault::ClockStepped => "clock stepped",
        }
    }

    /// Whether it can happen there.
    fn is_of(self, connector: Connector) -> bool {
        match self {
            Fault::GroupRebalanced => connector.is_kafka(),
            // Of Kafka it is what a kill is, and longer.
            Fault::BrokerRestarted => connector == Connector::Mqtt,
            Fault::BrokerKilled | Fault::BrokerFrozen | Fault::OneOfTwoKilled => connector != Connector::Http,
            // A dataflow with transactions has no windows, so that it needs no disk.
            Fault::DiskFull => matches!(connector, Connector::Mqtt | Connector::Kafka),
            _ => true,
        }
    }

    /// The bed that it needs.
    fn plan(self, connector: Connector, effort: &Effort) -> Plan {
        let plan = Plan {
            connector,
            shape: Shape::Passing,
            hosts: 1,
            rate: effort.rate,
            launch: Launch::default(),
            disk_bytes: None,
            quiet: effort.quiet,
        };
        match self {
            Fault::OneOfTwoKilled => Plan { shape: Shape::Sharing, hosts: 2, ..plan },
            Fault::DiskFull => Plan { shape: Shape::Delaying, disk_bytes: Some(DISK_BYTES), ..plan },
            _ => plan,
        }
    }

    /// Whether a bed may have gone through other faults before.
    fn needs_own_bed(self) -> bool {
        matches!(self, Fault::OneOfTwoKilled | Fault::DiskFull | Fault::ClockStepped)
    }

    fn times(self, effort: &Effort) -> u32 {
        match self {
            Fault::HostKilled => effort.kills,
            Fault::Redeployed => effort.redeploys,
            Fault::GroupRebalanced => effort.rebalances,
            // Either half.
            Fault::LinksHalfClosed => 2 * effort.times,
            // Forwards and back.
            Fault::ClockStepped => 4,
            _ => effort.times,
        }
    }
}

/// Room for the data of a host, with what a full disk is filled up from.
const DISK_BYTES: u64 = 96 << 20;

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Messages a second.
    pub rate: u64,
    /// kill -9 of the host, per connector.
    pub kills: u32,
    /// SIGSTOP of the broker.
    pub freeze: Duration,
    /// How long a fault of links or of the disk lasts.
    pub lasts: Duration,
    pub redeploys: u32,
    pub rebalances: u32,
    /// How often everything else is done.
    pub times: u32,
    /// Connectors have their faults at the same time rather than one after the other.
    pub side_by_side: bool,
    /// Once nothing has come for so long, what is missing in the end is lost.
    pub quiet: Duration,
}

impl Effort {
    pub fn full() -> Self {
        Effort {
            rate: 2_000,
            kills: 100,
            freeze: Duration::from_secs(30),
            lasts: Duration::from_secs(10),
            redeploys: 100,
            rebalances: 20,
            times: 3,
            side_by_side: false,
            quiet: QUIET_MAX,
        }
    }

    pub fn quick() -> Self {
        Effort {
            rate: 1_000,
            kills: 3,
            freeze: Duration::from_secs(3),
            lasts: Duration::from_secs(1),
            redeploys: 5,
            rebalances: 2,
            times: 1,
            side_by_side: true,
            quiet: QUIET_MAX,
        }
    }

    /// What is less than in full, for people.
    pub fn shortened(&self) -> Option<String> {
        let full = Effort::full();
        if self.kills >= full.kills {
            return None;
        }
        let Effort { rate, kills, freeze, lasts, redeploys, rebalances, times, side_by_side, quiet: _ } =
            self;
        let mut text = format!(
            "shortened: {rate} instead of {} messages/s, {kills} instead of {} kills of the host per connector, a \
             broker frozen {freeze:?} instead of {:?}, faults of {lasts:?} instead of {:?}, {redeploys} instead of \
             {} redeploys, {rebalances} instead of {} rebalances, all else {times} instead of {} times",
            full.rate, full.kills, full.freeze, full.lasts, full.redeploys, full.rebalances, full.times
        );
        if *side_by_side {
            text +=
                "; MQTT and HTTP, Kafka, and transactions side by side, so that times to recover are longer";
        }
        Some(text)
    }
}

/// A fault at a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub connector: Connector,
    pub fault: Fault,
}

impl Scenario {
    /// All, in the order in which they are run.
    pub fn all() -> Vec<Scenario> {
        let of = |connector: Connector| {
            let faults = Fault::ALL.into_iter().filter(move |fault| fault.is_of(connector));
            faults.map(move |fault| Scenario { connector, fault })
        };
        Connector::ALL.into_iter().flat_map(of).collect()
    }

    pub fn name(self) -> String {
        format!("{}: {}", self.connector.name(), self.fault.name())
    }
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Row {
    pub scenario: Scenario,
    pub came_of_it: Came,
}

#[derive(Debug)]
pub enum Came {
    Counted(Figures),
    /// It did not end as it should: why.
    Failed(String),
    /// This machine cannot: what it lacks.
    NotRun(String),
}

#[derive(Debug)]
pub struct Figures {
    /// Sent around the fault, and acknowledged.
    pub sent: u64,
    pub delivered: u64,
    pub duplicated: u64,
    /// Came where or as nobody sent it, in the whole life of the bed.
    pub unexpected: u64,
    /// The first of those that are lost, by their numbers.
    pub missing: Vec<u64>,
    /// From the end of each fault to the first message that was sent after it and came.
    pub recovered: Vec<Duration>,
    /// Messages that the broker had acknowledged and may have forgotten.
    pub sent_again: u64,
    /// All of it, but for what beds are started and ended with.
    pub took: Duration,
}

impl Figures {
    pub fn lost(&self) -> u64 {
        self.sent - self.delivered
    }

    /// The median and the worst.
    pub fn recovery(&self) -> (Duration, Duration) {
        let mut sorted = self.recovered.clone();
        sorted.sort();
        let worst = sorted.last().copied().unwrap_or_default();
        (sorted.get(sorted.len() / 2).copied().unwrap_or_default(), worst)
    }
}

impl Row {
    /// Whether nothing was lost, and with transactions nothing came twice. What was not run holds
    /// where it need not be.
    pub fn holds(&self, must_run: bool) -> bool {
        match &self.came_of_it {
            Came::Counted(figures) => {
                let once = self.scenario.connector != Connector::Transactions || figures.duplicated == 0;
                figures.lost() == 0 && figures.unexpected == 0 && once
            }
            Came::Failed(_) => false,
            Came::NotRun(_) => !must_run,
        }
    }
}

/// The rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<44}{:>9}{:>11}{:>6}{:>12}  {:<28}{:>7}\n",
        "scenario", "sent", "delivered", "lost", "duplicated", "to recover: median, worst", "took"
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
    for row in rows {
        let name = row.scenario.name();
        match &row.came_of_it {
            Came::Counted(figures) => {
                let Figures { sent, delivered, duplicated, missing, unexpected, .. } = figures;
                let (median, worst) = figures.recovery();
                let (median, worst) = (median.as_secs_f64(), worst.as_secs_f64());
                let (lost, took) = (figures.lost(), figures.took.as_secs());
                let recovery = format!("{median:.2} s, {worst:.2} s");
                line(format!(
                    "{name:<44}{sent:>9}{delivered:>11}{lost:>6}{duplicated:>12}  {recovery:<28}{took:>5} s"
                ));
                if lost > 0 {
                    line(format!("    LOST, the first of them: {missing:?}"));
                }
                if figures.sent_again > 0 {
                    line(format!(
                        "    {} were sent again: the broker may have forgotten them",
                        figures.sent_again
                    ));
                }
                if *unexpected > 0 {
                    line(format!("    {unexpected} came that nobody sent so"));
                }
            }
            Came::Failed(why) => {
                line(format!("{name:<44}FAILED: {}", why.lines().next().unwrap_or_default()))
            }
            Came::NotRun(why) => line(format!("{name:<44}NOT RUN: {why}")),
        }
    }
    text
}

/// Runs scenarios. Each row is said as soon as it is known, and so is all of why one failed.
pub fn run(tools: &Tools, effort: &Effort, scenarios: &[Scenario]) -> Vec<Row> {
    let lane = |connectors: &[Connector]| {
        let of = |scenario: &&Scenario| connectors.contains(&scenario.connector);
        scenarios.iter().filter(of).copied().collect::<Vec<_>>()
    };
    let lanes = match effort.side_by_side {
        true => vec![
            lane(&[Connector::Mqtt, Connector::Http]),
            lane(&[Connector::Kafka]),
            lane(&[Connector::Transactions]),
        ],
        false => vec![scenarios.to_vec()],
    };
    let (tx, rx) = mpsc::channel();
    let mut rows = std::thread::scope(|scope| {
        for lane in lanes {
            let tx = tx.clone();
            scope.spawn(move || run_lane(tools, effort, lane, |row| tx.send(row).expect("it is awaited")));
        }
        drop(tx);
        let said = |row: &Row| {
            eprint!("{}", table(std::slice::from_ref(row)).split_once('\n').expect("it has a head").1);
            if let Came::Failed(why) = &row.came_of_it {
                eprintln!("{why}");
            }
        };
        rx.into_iter().inspect(said).collect::<Vec<_>>()
    });
    rows.sort_by_key(|row| scenarios.iter().position(|scenario| *scenario == row.scenario));
    rows
}

fn run_lane(tools: &Tools, effort: &Effort, scenarios: Vec<Scenario>, mut say: impl FnMut(Row)) {
    let mut servers = Servers::default();
    let mut left: VecDeque<Scenario> = scenarios.into();
    while let Some(first) = left.pop_front() {
        // One bed for as many as can share it.
        let mut together = VecDeque::from([first]);
        if !first.fault.needs_own_bed() {
            let fits = |it: &Scenario| it.connector == first.connector && !it.fault.needs_own_bed();
            let (with, after) = left.into_iter().partition(fits);
            (together, left) = (VecDeque::from_iter(together.into_iter().chain::<VecDeque<_>>(with)), after);
        }
        while !together.is_empty() {
            run_together(tools, effort, &mut servers, &mut together, &mut say);
        }
    }
}

/// A scenario that has had its faults, and in which phases.
struct Suffered {
    scenario: Scenario,
    phases: Vec<PhaseId>,
    recovered: Vec<Duration>,
    sent_again: u64,
    took: Duration,
}

/// Runs scenarios on one bed until one fails; what is left then is for another bed.
fn run_together(
    tools: &Tools,
    effort: &Effort,
    servers: &mut Servers,
    scenarios: &mut VecDeque<Scenario>,
    mut say: impl FnMut(Row),
) {
    let first = scenarios[0];
    let mut plan = first.fault.plan(first.connector, effort);
    let folder = tempfile::tempdir().expect("a temporary folder");
    if let Err(why) = fault::prepare(first.fault, tools, folder.path(), &mut plan) {
        scenarios.pop_front();
        return say(Row { scenario: first, came_of_it: Came::NotRun(why) });
    }
    let failed = |scenario: Scenario, error: String| Row { scenario, came_of_it: Came::Failed(error) };
    let mut bed = match Bed::start(tools, servers, plan) {
        Ok(bed) => bed,
        Err(error) => {
            scenarios.pop_front();
            return say(failed(first, format!("no bed: {error:#}")));
        }
    };
    let mut suffered = Vec::new();
    while let Some(scenario) = scenarios.pop_front() {
        let mut it = Suffered {
            scenario,
            phases: Vec::new(),
            recovered: Vec::new(),
            sent_again: 0,
            took: Duration::ZERO,
        };
        match suffer(&mut bed, effort, folder.path(), &mut it) {
            Ok(()) => suffered.push(it),
            Err(error) => {
                say(failed(scenario, format!("{error:#}\n{}", bed.diagnosis())));
                break;
            }
        }
    }
    match bed.finish(servers) {
        Ok(count) => suffered.into_iter().for_each(|it| say(counted(it, &count))),
        Err(error) => {
            let error = format!("{error:#}");
            suffered.into_iter().for_each(|it| say(failed(it.scenario, error.clone())));
        }
    }
}

/// One scenario on a bed that is well: all its faults, each until it is over.
fn suffer(
    bed: &mut Bed,
    effort: &Effort,
    folder: &std::path::Path,
    suffered: &mut Suffered,
) -> anyhow::Result<()> {
    let (fault, begun) = (suffered.scenario.fault, Instant::now());
    for time in 0..fault.times(effort) {
        // What is under way when it happens was sent in this phase.
        let before = bed.count.begin_phase();
        suffered.phases.push(before);
        recovered(bed, before, Instant::now()).map_err(|error| error.context("before the fault"))?;
        // At some moment under load, wherever that finds the host.
        let some = rand::random_range(1..=effort.rate / 4);
        bed.count.wait(effort.lasts, |ledger| ledger.tally(before).came >= some);
        let end = fault::act(fault, bed, effort, folder, time)?;
        let after = bed.count.begin_phase();
        suffered.phases.push(after);
        suffered.recovered.push(recovered(bed, after, end)?);
        if fault == Fault::BrokerKilled {
            // Mosquitto answers before it has written down. What it forgets is no loss of the host's.
            suffered.sent_again += bed.send_again(&[before, after])?;
        }
        bed.check()?;
    }
    suffered.took = begun.elapsed();
    Ok(())
}

fn recovered(bed: &Bed, phase: PhaseId, since: Instant) -> anyhow::Result<Duration> {
    let came = bed.count.first_of(phase, since, RECOVER_WITHIN);
    came.ok_or_else(|| anyhow::anyhow!("it never recovered: nothing came within {RECOVER_WITHIN:?}"))
}

fn counted(suffered: Suffered, count: &Count) -> Row {
    let Suffered { scenario, phases, recovered, sent_again, took } = suffered;
    let (tally, missing) = count.of(&phases);
    let figures = Figures {
        sent: tally.sent,
        delivered: tally.came,
        duplicated: tally.duplicated,
        unexpected: count.look(|ledger| ledger.unexpected()),
        missing,
        recovered,
        sent_again,
        took,
    };
    Row { scenario, came_of_it: Came::Counted(figures) }
}

#[cfg(test)]
mod tests;
