//! The scorecard as one page that opens without a network: charts are SVG that is drawn
//! here, so that the page needs no script, and colours follow the reader's scheme.
//!
//! Ids that stay: `verdict`, `rows`, `checks`, and `chart-p99`, `chart-percentiles`,
//! `chart-throughput`, `chart-latency`, `chart-memory`, `chart-cpu`, each an `svg.chart`.
//! A chart without data is left out.

mod axis;
mod charts;

use std::fmt::Write as _;

use crate::scorecard::{BesideRecord, Check, Figures, Row, Scorecard, table::number};

/// The whole page.
pub fn page(scorecard: &Scorecard) -> String {
    let mut html = String::new();
    write_page(scorecard, &mut html).expect("a string takes all");
    html
}

const STYLE: &str = include_str!("page/style.css");

fn write_page(scorecard: &Scorecard, html: &mut String) -> std::fmt::Result {
    let title = escape(&scorecard.scenario.name);
    writeln!(html, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(html, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(html, "<meta name=\"color-scheme\" content=\"light dark\">")?;
    // Without one, browsers ask the server for an icon, and a file has none.
    writeln!(html, "<link rel=\"icon\" href=\"data:,\">")?;
    writeln!(
        html,
        "<title>{title} · Tidegate load test</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>"
    )?;
    header(scorecard, html)?;
    missed(scorecard, html)?;
    for chart in charts::all(scorecard) {
        let charts::Chart { id, title, caption, legend, svg } = chart;
        writeln!(
            html,
            "<figure id=\"figure-{id}\">\n<figcaption><h2>{title}</h2><p>{caption}</p>{legend}</figcaption>"
        )?;
        writeln!(html, "{svg}\n</figure>")?;
    }
    rows(scorecard, html)?;
    checks(scorecard, html)?;
    footer(scorecard, html)?;
    writeln!(html, "</main>\n</body>\n</html>")
}

fn header(scorecard: &Scorecard, html: &mut String) -> std::fmt::Result {
    let (class, verdict) = match (scorecard.interrupted, scorecard.holds) {
        (true, _) => ("stopped", "stopped before its end"),
        (false, true) => ("holds", "holds"),
        (false, false) => ("misses", "does not hold"),
    };
    let name = escape(&scorecard.scenario.name);
    writeln!(html, "<header>\n<h1>{name} <span id=\"verdict\" class=\"{class}\">{verdict}</span></h1>")?;
    writeln!(html, "<p class=\"about\">{}</p>\n<dl class=\"tiles\">", escape(&scorecard.scenario.about))?;
    let mut tile = |name: &str, value: String| writeln!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    let all = [&scorecard.first_messages, &scorecard.overall.alone, &scorecard.overall.beside];
    let sum = |of: fn(&Figures) -> u64| all.into_iter().flatten().map(of).sum::<u64>();
    tile("messages", thousands(sum(|it| it.sent)))?;
    tile("lost", thousands(sum(|it| it.lost)))?;
    tile("came twice", thousands(sum(|it| it.duplicated)))?;
    tile("out of order", thousands(sum(|it| it.out_of_order)))?;
    let p99 = |figures: &Option<Figures>| figures.as_ref().map(|it| format!("{} ms", number(it.p99_ms)));
    if let Some(alone) = p99(&scorecard.overall.alone) {
        tile(if scorecard.overall.beside.is_some() { "p99 alone" } else { "p99" }, alone)?;
    }
    if let Some(beside) = p99(&scorecard.overall.beside) {
        tile("p99 beside", beside)?;
    }
    if let Some(memory) = scorecard.memory {
        tile("host memory, most", format!("{} MiB", memory.peak_bytes >> 20))?;
    }
    writeln!(html, "</dl>\n</header>")
}

fn missed(scorecard: &Scorecard, html: &mut String) -> std::fmt::Result {
    let missed: Vec<&Check> = scorecard.checks.iter().filter(|check| !check.holds).collect();
    if missed.is_empty() {
        return Ok(());
    }
    writeln!(html, "<section class=\"missed\">\n<h2>Missed</h2>\n<ul>")?;
    for check in missed {
        writeln!(html, "<li>{}</li>", escape(&check.to_string()))?;
    }
    writeln!(html, "</ul>\n</section>")
}

fn rows(scorecard: &Scorecard, html: &mut String) -> std::fmt::Result {
    writeln!(
        html,
        "<section>\n<h2>Figures</h2>\n<div class=\"wide\"><table id=\"rows\">\n<thead><tr><th>what</th>"
    )?;
    for head in [
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "longest ms",
        "ratio",
        "messages/s",
        "lost",
        "twice",
        "disordered",
        "MiB",
        "core",
    ] {
        writeln!(html, "<th>{head}</th>")?;
    }
    writeln!(html, "</tr></thead>\n<tbody>")?;
    for row in &scorecard.rows {
        let name = escape(&row.name);
        writeln!(
            html,
            "<tr data-row=\"{name}\"><td><b>{name}</b><small>{}</small></td>",
            escape(&about(row))
        )?;
        for cell in cells(row) {
            writeln!(html, "<td>{cell}</td>")?;
        }
        writeln!(html, "</tr>")?;
    }
    writeln!(html, "</tbody>\n</table></div>")?;
    if scorecard.rows.iter().any(|row| row.quiet.beside.is_some()) {
        writeln!(
            html,
            "<p class=\"note\">Alone → beside, as the quiet tenants see it; the ratio is that of p99.</p>"
        )?;
    }
    writeln!(html, "</section>")
}

/// What it is about and what happened beside, in sentences.
fn about(row: &Row) -> String {
    let mut text = row.about.clone();
    if let Some(record) = &row.beside {
        let BesideRecord { sent, taken, errors, times, refused, longest_seconds, said } = record;
        if *sent > 0 {
            text += &format!(" {} messages to attackers", thousands(*sent));
            text += &if *taken > 0 {
                format!(", {} taken, {} errors.", thousands(*taken), thousands(*errors))
            } else {
                ".".into()
            };
        }
        if *times > 0 {
            text += &format!(" {times} times, at most {longest_seconds:.1} s each");
            text += &if *refused > 0 { format!("; {refused} refused.") } else { ".".into() };
        }
        if let Some(line) = said.as_ref().and_then(|said| said.lines().next()) {
            text += &format!(" “{line}”");
        }
    }
    if let Some(failure) = &row.failure {
        text += &format!(" Did not run: {failure}");
    }
    text
}

fn cells(row: &Row) -> [String; 11] {
    let pair = |of: fn(&Figures) -> f64| {
        let value = |figures: &Option<Figures>| figures.as_ref().map(|it| number(of(it)));
        match (value(&row.quiet.alone), value(&row.quiet.beside)) {
            (Some(alone), Some(beside)) => format!("{alone} → {beside}"),
            (one, other) => one.or(other).unwrap_or_default(),
        }
    };
    let sum = |of: fn(&Figures) -> u64| {
        let count: u64 = [&row.quiet.alone, &row.quiet.beside].into_iter().flatten().map(of).sum();
        if count > 0 { format!("<em>{}</em>", thousands(count)) } else { "0".into() }
    };
    let cpu = row.measured().and_then(|figures| figures.cpu);
    [
        pair(|it| it.p50_ms),
        pair(|it| it.p99_ms),
        pair(|it| it.p999_ms),
        pair(|it| it.max_ms),
        row.ratio.map(number).unwrap_or_default(),
        pair(|it| it.per_second),
        sum(|it| it.lost),
        sum(|it| it.duplicated),
        sum(|it| it.out_of_order),
        row.memory.map(|it| format!("{}", it.peak_bytes >> 20)).unwrap_or_default(),
        cpu.map(|cpu| format!("{:.0} %", cpu * 100.0)).unwrap_or_default(),
    ]
}

fn checks(scorecard: &Scorecard, html: &mut String) -> std::fmt::Result {
    writeln!(
        html,
        "<section>\n<details>\n<summary><h2>All checks</h2></summary>\n<div class=\"wide\"><table id=\"checks\">"
    )?;
    writeln!(
        html,
        "<thead><tr><th>of</th><th>threshold</th><th>measured</th><th>at most</th><th></th></tr></thead>\n<tbody>"
    )?;
    for Check { name, row, value, bound, unit, holds } in &scorecard.checks {
        let (of, name, unit) = (escape(row.as_deref().unwrap_or("the run")), escape(name), escape(unit));
        let verdict = if *holds { "holds" } else { "<em>missed</em>" };
        writeln!(
            html,
            "<tr><td>{of}</td><td>{name}</td><td>{} {unit}</td><td>{} {unit}</td><td>{verdict}</td></tr>",
            number(*value),
            number(*bound)
        )?;
    }
    writeln!(html, "</tbody>\n</table></div>\n</details>\n</section>")
}

fn footer(scorecard: &Scorecard, html: &mut String) -> std::fmt::Result {
    let setup = &scorecard.setup;
    let host = setup.host.as_ref().map_or("a host that ran before".to_owned(), |host| escape(host));
    let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    write!(html, "<footer><p>{host}; broker: {}; {}", escape(&setup.broker), escape(&setup.cpu))?;
    if !setup.host_cores.is_empty() {
        write!(
            html,
            "; host on core {}, all else on {}",
            cores(&setup.host_cores),
            cores(&setup.other_cores)
        )?;
    }
    writeln!(
        html,
        ". Seed {}. {} quiet tenants, {:.0} s from {}. Latency counts from the moment at which a message was due. \
         tidegate-loadtest {}.</p></footer>",
        scorecard.scenario.seed,
        scorecard.scenario.tenants,
        scorecard.seconds,
        escape(&scorecard.started_at),
        escape(&scorecard.version)
    )
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text within an element or an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
