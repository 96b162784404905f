//! The scorecard as a table for a terminal of 100 columns.

use std::fmt::Write as _;

use super::{Check, Figures, Row, Scorecard};

const WIDTH: usize = 100;
/// Of a row's name.
const NAME: usize = 22;

impl Scorecard {
    /// For people; colour for terminals.
    pub fn to_text(&self, colour: bool) -> String {
        let mut out = String::new();
        self.write(colour, &mut out).expect("a string takes all");
        out
    }

    fn write(&self, colour: bool, out: &mut String) -> std::fmt::Result {
        let (bold, dim, end) = if colour { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let ended = if self.interrupted { "stopped after" } else { "in" };
        writeln!(
            out,
            "{bold}{}{end}: {} quiet tenants, phases of {} s, {ended} {:.0} s",
            self.scenario.name, self.scenario.tenants, self.scenario.phase_seconds, self.seconds
        )?;
        for line in wrap(&self.scenario.about, WIDTH) {
            writeln!(out, "{dim}{line}{end}")?;
        }
        writeln!(out)?;
        let head = ["p50 ms", "p99 ms", "p99.9 ms", "ratio", "msg/s", "lost", "dup", "MiB", "core"];
        writeln!(out, "{bold}{}{end}", line("", &head.map(str::to_owned)))?;
        for row in &self.rows {
            writeln!(out, "{}", line(&row.name, &cells(row)))?;
            if let Some(failure) = &row.failure {
                for line in wrap(&format!("did not run: {failure}"), WIDTH - 4) {
                    writeln!(out, "    {line}")?;
                }
            }
        }
        if self.rows.iter().any(|row| row.quiet.beside.is_some()) {
            writeln!(out, "{dim}alone→beside, as the quiet tenants see it; ratio is of p99{end}")?;
        }
        writeln!(out)?;
        self.write_verdict(colour, out)
    }

    fn write_verdict(&self, colour: bool, out: &mut String) -> std::fmt::Result {
        let (red, green, end) = if colour { ("\x1b[1;31m", "\x1b[1;32m", "\x1b[0m") } else { ("", "", "") };
        let missed: Vec<&Check> = self.checks.iter().filter(|check| !check.holds).collect();
        for check in &missed {
            writeln!(out, "{red}missed{end} {check}")?;
        }
        match missed.len() {
            0 => writeln!(out, "{green}holds{end}: all of {} checks", self.checks.len()),
            count => writeln!(out, "{red}does not hold{end}: {count} of {} checks", self.checks.len()),
        }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Check { name, row, value, bound, unit, .. } = self;
        // What has no unit is a count.
        let said = |value: f64| match unit.as_str() {
            "" => format!("{value:.0}"),
            unit => format!("{} {unit}", number(value)),
        };
        let of = row.as_ref().map(|row| format!("{row}: ")).unwrap_or_default();
        write!(f, "{of}{name} {}, at most {}", said(*value), said(*bound))
    }
}

fn cells(row: &Row) -> [String; 9] {
    let pair = |of: fn(&Figures) -> f64| {
        let [alone, beside] =
            [&row.quiet.alone, &row.quiet.beside].map(|figures| figures.as_ref().map(|it| number(of(it))));
        match (alone, beside) {
            (Some(alone), Some(beside)) => format!("{alone}→{beside}"),
            (one, other) => one.or(other).unwrap_or_else(|| "-".into()),
        }
    };
    let sum = |of: fn(&Figures) -> u64| {
        let all = [&row.quiet.alone, &row.quiet.beside].into_iter().flatten();
        count(all.map(of).sum())
    };
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let cpu = row.measured().and_then(|figures| figures.cpu);
    [
        pair(|figures| figures.p50_ms),
        pair(|figures| figures.p99_ms),
        pair(|figures| figures.p999_ms),
        or_dash(row.ratio.map(number)),
        pair(|figures| figures.per_second),
        sum(|figures| figures.lost),
        sum(|figures| figures.duplicated),
        or_dash(row.memory.map(|memory| format!("{}", memory.peak_bytes >> 20))),
        or_dash(cpu.map(|cpu| format!("{:.0}%", cpu * 100.0))),
    ]
}

fn line(name: &str, cells: &[String; 9]) -> String {
    const WIDTHS: [usize; 9] = [11, 11, 11, 6, 11, 5, 4, 4, 5];
    let name: String = match name.chars().count() {
        len if len > NAME => name.chars().take(NAME - 1).chain(['…']).collect(),
        _ => name.to_owned(),
    };
    let mut line = format!("{name:NAME$}");
    for (cell, width) in cells.iter().zip(WIDTHS) {
        write!(line, " {cell:>width$}").expect("a string takes all");
    }
    line
}

/// Exact as long as it fits.
fn count(value: u64) -> String {
    if value < 10_000 { value.to_string() } else { number(value as f64) }
}

/// Three digits that matter, and never more than five characters.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        v if v < 9_999.5 => format!("{value:.0}"),
        v if v < 999_500.0 => format!("{:.0}k", value / 1e3),
        v if v < 9.995e6 => format!("{:.1}M", value / 1e6),
        _ => format!("{:.0}M", value / 1e6),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("at least one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
