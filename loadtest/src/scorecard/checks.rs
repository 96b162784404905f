//! Thresholds against what was measured: the verdict of a run.

use super::{Check, Figures, Row, Scorecard, rounded};
use crate::scenario::Thresholds;

/// Every threshold that a scenario asks for, in the order of the rows.
pub fn checks(scorecard: &Scorecard, thresholds: &Thresholds) -> Vec<Check> {
    let mut checks = Vec::new();
    for row in &scorecard.rows {
        of_row(row, thresholds, &mut checks);
    }
    if let Some(first) = &scorecard.first_messages {
        checks.push(check(
            "lost",
            Some(&"first messages".to_owned()),
            first.lost as f64,
            thresholds.lost as f64,
            "",
        ));
    }
    checks.push(check("unexpected", None, scorecard.unexpected as f64, 0.0, ""));
    if let Some((memory, bound)) = scorecard.memory.zip(thresholds.memory_growth) {
        let growth = (memory.after_bytes as f64 / memory.before_bytes.max(1) as f64 - 1.0) * 100.0;
        checks.push(check("memoryGrowth", None, growth, bound, "%"));
    }
    checks
}

fn of_row(row: &Row, thresholds: &Thresholds, checks: &mut Vec<Check>) {
    let mut add =
        |name, value: f64, bound: f64, unit| checks.push(check(name, Some(&row.name), value, bound, unit));
    // A row that failed proves nothing, and nothing came of nothing is no proof either.
    let failed = row.failure.is_some() || row.measured().is_none_or(|figures| figures.came == 0);
    add("failures", f64::from(u8::from(failed)), 0.0, "");
    let all = |of: fn(&Figures) -> u64| {
        [&row.quiet.alone, &row.quiet.beside].into_iter().flatten().map(of).sum::<u64>() as f64
    };
    add("lost", all(|figures| figures.lost), thresholds.lost as f64, "");
    if let Some(bound) = thresholds.duplicates {
        add("duplicates", all(|figures| figures.duplicated), bound as f64, "");
    }
    if let Some(bound) = thresholds.out_of_order {
        add("outOfOrder", all(|figures| figures.out_of_order), bound as f64, "");
    }
    let Some(measured) = row.measured() else { return };
    if let Some(bound) = thresholds.p99 {
        add("p99", measured.p99_ms, bound.as_secs_f64() * 1e3, "ms");
    }
    if let (Some(ratio), Some(alone), Some(beside)) = (thresholds.ratio, &row.quiet.alone, &row.quiet.beside)
    {
        let mut slack = thresholds.slack;
        if !row.interruptible {
            slack += thresholds.uninterruptible;
        }
        add("ratio", beside.p99_ms, ratio * alone.p99_ms + slack.as_secs_f64() * 1e3, "ms");
    }
}

fn check(name: &str, row: Option<&String>, value: f64, bound: f64, unit: &str) -> Check {
    Check {
        name: name.to_owned(),
        row: row.cloned(),
        value: rounded(value),
        bound: rounded(bound),
        unit: unit.to_owned(),
        holds: value <= bound,
    }
}
