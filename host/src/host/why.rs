//! Why nothing comes out of a dataflow: all that is known of it at one moment, and one
//! sentence that names the most likely reason. Reports on the path; what only the shard
//! knows, it was asked for.

use std::time::Duration;

use serde_json::{Value, json};

use super::time;
use crate::{
    bucket::{Level, LevelOf, Passing},
    clock::Instant,
    connector::status::ConnectionState,
    dataflow::{
        circuit::State,
        description::{At, Description, Holding, LastLetter},
        plan::Health,
    },
    resource::quantity::{show_bytes, show_count, show_cpu, show_fuel, show_time},
};

/// All that is seen of one dataflow.
#[derive(Clone, Debug)]
pub struct Facts {
    pub tenant: String,
    pub dataflow: String,
    pub health: Health,
    /// None if it is not on its shard any more.
    pub on_shard: Option<Description>,
    pub sources: Vec<End>,
    pub sinks: Vec<End>,
    pub counts: Counts,
    pub credit: Credit,
}

/// A connection, or a place in memory or in a file.
#[derive(Clone, Debug)]
pub struct End {
    pub name: String,
    /// Nothing where there is no connection to lose.
    pub state: Option<ConnectionState>,
    /// Writes that the sink has not taken.
    pub waiting: usize,
    /// Messages that wait at the far side of the source, where it says so.
    pub lag: Option<u64>,
}

/// Messages of all time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub written: u64,
    pub filtered: u64,
    pub errors: u64,
    pub late: u64,
    pub absorbed: u64,
    pub dead: u64,
}

/// The tenant's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    pub in_flight: u64,
    pub max: u64,
    /// A source waits for some.
    pub is_waited_for: bool,
}

/// A delivery that has been in one place so long is worth a word.
const LONG: Duration = Duration::from_secs(1);

/// So long, as a person reads it.
fn long(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        return format!("{:.1} s", time.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

impl End {
    fn away(&self) -> Option<&str> {
        match &self.state {
            Some(ConnectionState::Degraded { error, .. }) => Some(error),
            Some(ConnectionState::Closed) => Some("it is closed"),
            Some(ConnectionState::Connecting | ConnectionState::Connected) | None => None,
        }
    }

    fn shown(&self) -> String {
        let state = self.state.as_ref().map_or("no connection to lose".to_owned(), ToString::to_string);
        self.lag.map_or(state.clone(), |lag| format!("{state}, {lag} messages behind"))
    }
}

/// Whether the tenant's guests do not run without it.
fn is_needed(level: &Level) -> bool {
    level.of != LevelOf::Cpu { cap: false }
}

fn level_of(level: &Level) -> (String, fn(u64) -> String) {
    match level.of {
        LevelOf::Cpu { .. } => ("CPU time".to_owned(), |ns| show_time(Duration::from_micros(ns / 1_000))),
        LevelOf::Fuel => ("fuel".to_owned(), show_fuel),
        LevelOf::Calls => (format!("host calls ({})", level.name), |calls| calls.to_string()),
        LevelOf::Passing(passing) => {
            let (what, show): (_, fn(u64) -> String) = match passing {
                Passing::MessagesIn => ("messages in", show_count),
                Passing::BytesIn => ("bytes in", show_bytes),
                Passing::MessagesOut => ("messages out", show_count),
                Passing::BytesOut => ("bytes out", show_bytes),
            };
            (format!("{what} at `{}`", level.name), show)
        }
    }
}

/// What comes back a second, as policies write it.
fn rate_of(level: &Level) -> String {
    match level.of {
        LevelOf::Cpu { .. } => show_cpu(level.rate / 1_000_000),
        LevelOf::Fuel => show_fuel(level.rate),
        LevelOf::Calls => level.rate.to_string(),
        LevelOf::Passing(Passing::MessagesIn | Passing::MessagesOut) => show_count(level.rate),
        LevelOf::Passing(Passing::BytesIn | Passing::BytesOut) => show_bytes(level.rate),
    }
}

/// The most likely reason that nothing comes out, from what holds it most for certain to
/// what is only a guess.
pub fn reason(facts: &Facts) -> String {
    let Facts { tenant, dataflow, .. } = facts;
    let name = format!("{tenant}/{dataflow}");
    match &facts.health {
        Health::Failed { cause, .. } => return format!("`{name}` has failed and takes nothing: {cause}."),
        Health::Quarantined { cause } => {
            return format!(
                "`{name}` is in quarantine: {cause}; mend its operator, then `tidegate resume {name}`."
            );
        }
        Health::Paused { cause } => return format!("The circuit of `{name}` is open: {cause}."),
        Health::Draining => return format!("`{name}` takes nothing more, and ends."),
        Health::Running => {}
    }
    let Some(description) = &facts.on_shard else {
        return format!("`{name}` is not on its shard any more.");
    };
    away(facts, description)
        .or_else(|| used_up(facts, description))
        .or_else(|| held(facts, description))
        .or_else(|| no_credit(facts))
        .or_else(|| let_go(facts, description))
        .unwrap_or_else(|| at_rest(facts, description))
}

/// An end that is not there, and something waits for it.
fn away(facts: &Facts, description: &Description) -> Option<String> {
    let is_held = matches!(&description.holding, Some(Holding { at: At::Confirmation | At::Room, .. }));
    let unreached = facts.sinks.iter().filter(|_| is_held).find_map(|end| Some((end, end.away()?)));
    if let Some((End { name, .. }, error)) = unreached {
        let unsettled = description.unsettled;
        let deliveries = if unsettled == 1 { "delivery waits" } else { "deliveries wait" };
        return Some(format!(
            "The sink `{name}` cannot be reached ({error}): {unsettled} {deliveries} for it."
        ));
    }
    let gone: Vec<_> = facts.sources.iter().filter_map(|end| Some((&end.name, end.away()?))).collect();
    match gone.first() {
        Some((name, error)) if gone.len() == facts.sources.len() => {
            Some(format!("The source `{name}` cannot be reached ({error}): nothing can come in."))
        }
        _ => None,
    }
}

fn used_up(facts: &Facts, description: &Description) -> Option<String> {
    if !description.is_throttled {
        return None;
    }
    let closed = description.levels.iter().filter(|level| is_needed(level));
    let level = closed.filter(|level| level.opens_in.is_some()).max_by_key(|level| level.opens_in)?;
    let (what, show) = level_of(level);
    Some(format!(
        "The tenant `{}` has used up its {what}: {} comes back a second, {} are owed, and it goes on in {}.",
        facts.tenant,
        rate_of(level),
        show(level.level.min(0).unsigned_abs()),
        long(level.opens_in.unwrap_or_default()),
    ))
}

/// A delivery that holds all behind it.
fn held(facts: &Facts, description: &Description) -> Option<String> {
    let Holding { sequence, since, at } = description.holding.as_ref()?;
    let held = description.now.since((*since)?);
    if held < LONG {
        return None;
    }
    let held = long(held);
    let sinks: Vec<_> = facts.sinks.iter().map(|end| format!("`{}`", end.name)).collect();
    let sinks = sinks.join(", ");
    match at {
        At::Operator(operator) => {
            Some(format!("The operator `{operator}` holds delivery {sequence}, which came {held} ago."))
        }
        At::Room => Some(format!(
            "A sink is full ({sinks}): delivery {sequence}, which came {held} ago, waits for room."
        )),
        At::Confirmation => {
            Some(format!("Delivery {sequence}, which came {held} ago, waits until {sinks} has confirmed it."))
        }
        At::Windows => None,
    }
}

fn no_credit(facts: &Facts) -> Option<String> {
    let Credit { in_flight, max, is_waited_for } = facts.credit;
    is_waited_for.then(|| {
        format!(
            "The tenant `{}` has no credit left: {} of {} (`inflight`) are in flight over its dataflows, and its sources wait until some of it is settled.",
            facts.tenant,
            show_bytes(in_flight),
            show_bytes(max)
        )
    })
}

/// What came, and went another way than out.
fn let_go(facts: &Facts, description: &Description) -> Option<String> {
    let Counts { received, written, filtered, errors, late, absorbed, dead } = facts.counts;
    let name = format!("{}/{}", facts.tenant, facts.dataflow);
    if received == 0 || written > 0 {
        return None;
    }
    if absorbed > 0 && description.windows_open > 0 {
        return Some(format!(
            "{} times are open in windows ({}): what is in them comes out once they are complete.",
            description.windows_open,
            description.windows.join(", ")
        ));
    }
    let most = [filtered, errors, late, dead].into_iter().max().filter(|most| *most > 0)?;
    if most == dead {
        let last = description.last_letter.as_ref();
        let last = last.map_or(String::new(), |LastLetter { reason, detail, .. }| {
            format!(", the last one because of `{}` ({detail})", reason.name())
        });
        return Some(format!(
            "{dead} of {received} messages were given up{last}; `tidegate dead-letters list {}` shows them.",
            facts.tenant
        ));
    }
    if most == errors {
        return Some(format!(
            "{errors} of {received} messages were dropped because an operator of `{name}` returned an error; `onError: deadLetter` in the policy keeps them."
        ));
    }
    if most == late {
        return Some(format!("{late} of {received} messages came after their time was complete."));
    }
    Some(format!("{filtered} of {received} messages were filtered, and none is left."))
}

/// Nothing holds it.
fn at_rest(facts: &Facts, description: &Description) -> String {
    let sources: Vec<_> = facts.sources.iter().map(|end| format!("`{}`", end.name)).collect();
    let sources = sources.join(", ");
    if facts.sources.iter().any(|end| end.state == Some(ConnectionState::Connecting)) {
        return format!("Its sources are just being connected: {sources}.");
    }
    let ago = |at: Option<Instant>| at.map(|at| long(description.now.since(at)));
    match (ago(description.last_in), ago(description.last_written)) {
        (None, _) => format!("Nothing has come from its source yet: {sources}."),
        (Some(came), None) => {
            format!(
                "Nothing holds it: its last delivery came {came} ago, and nothing of it was to be written."
            )
        }
        (Some(came), Some(wrote)) => {
            format!("Nothing holds it: its last delivery came {came} ago, and it last wrote {wrote} ago.")
        }
    }
}

impl Facts {
    pub fn to_json(&self) -> Value {
        let Facts { tenant, dataflow, health, on_shard, sources, sinks, counts, credit, .. } = self;
        let end = |end: &End| {
            let state = end.state.as_ref().map(ToString::to_string);
            json!({ "name": end.name, "connection": state, "waitingWrites": end.waiting, "lag": end.lag })
        };
        let Counts { received, written, filtered, errors, late, absorbed, dead } = counts;
        let mut document = json!({
            "tenant": tenant, "dataflow": dataflow, "state": health.name(),
            "sources": sources.iter().map(end).collect::<Vec<_>>(),
            "sinks": sinks.iter().map(end).collect::<Vec<_>>(),
            "counters": {
                "received": received, "written": written, "filtered": filtered, "errors": errors,
                "late": late, "absorbed": absorbed, "dead": dead,
            },
            "credit": {
                "inFlight": credit.in_flight, "max": credit.max, "isWaitedFor": credit.is_waited_for,
            },
            "reason": reason(self),
        });
        if let Some(description) = on_shard {
            document["onShard"] = description_json(description);
        }
        document
    }

    /// For people: a line for each thing that is known, and the reason at the end.
    pub fn to_text(&self) -> String {
        let mut lines = vec![format!("{}/{}: {}", self.tenant, self.dataflow, self.health.name())];
        let mut line = |what: &str, text: String| lines.push(format!("  {what:<14} {text}"));
        let sources = self.sources.iter().map(|end| format!("{} ({})", end.name, end.shown()));
        line("sources", sources.collect::<Vec<_>>().join(", "));
        if let Some(description) = &self.on_shard {
            let ago = |at: Option<Instant>| {
                at.map_or("never".to_owned(), |at| format!("{} ago", long(description.now.since(at))))
            };
            line("last in", format!("{}; {} deliveries wait", ago(description.last_in), description.waiting));
            line("last written", ago(description.last_written));
            line("frontier", frontier_text(description));
        }
        let Credit { in_flight, max, is_waited_for } = self.credit;
        let waited = if is_waited_for { ", and a source waits" } else { "" };
        line("credit", format!("{} of {} in flight{waited}", show_bytes(in_flight), show_bytes(max)));
        if let Some(description) = &self.on_shard {
            description.levels.iter().for_each(|level| line("bucket", level_text(level)));
            let open = format!("{} times open", description.windows_open);
            match description.windows.is_empty() {
                true => line("windows", "none".to_owned()),
                false => line("windows", format!("{open} in {}", description.windows.join(", "))),
            }
            line("circuit", circuit_text(description, &self.health));
        }
        for sink in &self.sinks {
            line("sink", format!("{} ({}): {} writes wait", sink.name, sink.shown(), sink.waiting));
        }
        let Counts { received, written, filtered, errors, late, absorbed, dead } = self.counts;
        line(
            "messages",
            format!(
                "in {received}, written {written}, filtered {filtered}, errors {errors}, late {late}, in windows {absorbed}, dead {dead}"
            ),
        );
        let letter = self.on_shard.as_ref().and_then(|it| it.last_letter.as_ref());
        line("last given up", letter.map_or("none since it was started".to_owned(), letter_text));
        lines.push(reason(self));
        lines.join("\n") + "\n"
    }
}

fn letter_text(LastLetter { at, operation, reason, detail }: &LastLetter) -> String {
    let by = operation.as_ref().map_or(String::new(), |operation| format!(" by {operation}"));
    format!("{}{by}: {} ({detail})", time(*at).unwrap_or_default(), reason.name())
}

fn frontier_text(description: &Description) -> String {
    let Some(Holding { sequence, since, at }) = &description.holding else {
        return "nothing is held".to_owned();
    };
    let since = since.map_or(String::new(), |at| format!(", came {} ago", long(description.now.since(at))));
    let at = match at {
        At::Room => "before the first operator, until a sink has room".to_owned(),
        At::Operator(operator) => format!("in {operator}"),
        At::Confirmation => "written, and not confirmed".to_owned(),
        At::Windows => "kept open by windows".to_owned(),
    };
    format!("delivery {sequence} {at}{since}; {} unsettled", description.unsettled)
}

fn level_text(level: &Level) -> String {
    let (what, show) = level_of(level);
    let sign = if level.level < 0 { "-" } else { "" };
    let opens = level.opens_in.map_or(String::new(), |it| format!(", opens in {}", long(it)));
    let cap = if is_needed(level) { "" } else { ", no cap" };
    format!(
        "{what}: {sign}{} of {}, {} a second{opens}{cap}",
        show(level.level.unsigned_abs()),
        show(level.burst.unsigned_abs()),
        rate_of(level)
    )
}

fn circuit_text(description: &Description, health: &Health) -> String {
    let cause = match health {
        Health::Paused { cause } | Health::Quarantined { cause } => format!(": {cause}"),
        _ => String::new(),
    };
    match description.circuit {
        State::Closed => "closed".to_owned(),
        State::Open { until } => format!("open, a probe in {}{cause}", long(until.since(description.now))),
        State::Probing => "open, probing".to_owned(),
        State::Quarantined => format!("quarantine{cause}"),
    }
}

fn description_json(description: &Description) -> Value {
    let ms_ago = |at: Option<Instant>| at.map(|at| description.now.since(at).as_millis() as u64);
    let holding = description.holding.as_ref().map(|Holding { sequence, since, at }| {
        let (at, operator) = match at {
            At::Room => ("room", None),
            At::Operator(operator) => ("operator", Some(operator)),
            At::Confirmation => ("confirmation", None),
            At::Windows => ("windows", None),
        };
        json!({ "delivery": sequence, "cameMsAgo": ms_ago(*since), "at": at, "operator": operator })
    });
    let levels = description.levels.iter().map(|level| {
        let of = match level.of {
            LevelOf::Cpu { .. } => "cpuNs",
            LevelOf::Fuel => "fuel",
            LevelOf::Calls => "calls",
            LevelOf::Passing(Passing::MessagesIn) => "messagesIn",
            LevelOf::Passing(Passing::BytesIn) => "bytesIn",
            LevelOf::Passing(Passing::MessagesOut) => "messagesOut",
            LevelOf::Passing(Passing::BytesOut) => "bytesOut",
        };
        let opens = level.opens_in.map(|it| it.as_millis() as u64);
        let named = |of: bool| of.then_some(&level.name);
        json!({
            "of": of, "interface": named(level.of == LevelOf::Calls),
            "endpoint": named(matches!(level.of, LevelOf::Passing(_))),
            "level": level.level, "burst": level.burst, "perSecond": level.rate,
            "opensInMs": opens, "isNeeded": is_needed(level),
        })
    });
    let letter = description.last_letter.as_ref().map(|LastLetter { at, operation, reason, detail }| {
        json!({ "at": time(*at), "operation": operation, "reason": reason.name(), "detail": detail })
    });
    let (circuit, until) = match description.circuit {
        State::Closed => ("closed", None),
        State::Open { until } => ("open", Some(until.since(description.now).as_millis() as u64)),
        State::Probing => ("probing", None),
        State::Quarantined => ("quarantine", None),
    };
    json!({
        "lastInMsAgo": ms_ago(description.last_in), "lastWrittenMsAgo": ms_ago(description.last_written),
        "waitingDeliveries": description.waiting, "unsettled": description.unsettled,
        "frontier": holding, "buckets": levels.collect::<Vec<_>>(), "isThrottled": description.is_throttled,
        "windows": description.windows, "windowsOpen": description.windows_open,
        "circuit": { "state": circuit, "probeInMs": until }, "lastGivenUp": letter,
    })
}

#[cfg(test)]
mod tests;
