//! The charts of a scorecard, each as an SVG element.

use std::fmt::Write as _;

use super::{
    axis::{Axis, label, moments, ms},
    escape,
};
use crate::{
    scorecard::{Figures, Row, Scorecard, table::number},
    timeline::Bucket,
};

pub struct Chart {
    pub id: &'static str,
    pub title: &'static str,
    pub caption: String,
    /// As HTML.
    pub legend: String,
    pub svg: String,
}

const WIDTH: f64 = 1000.0;
/// Room for names, or for the labels of an axis.
const NAMES: f64 = 190.0;
const LABELS: f64 = 56.0;
/// Most points of a line: more cannot be told apart.
const POINTS_MAX: usize = 500;

/// Those that there is data for, in the order of the page.
pub fn all(scorecard: &Scorecard) -> Vec<Chart> {
    let charts = [
        p99(scorecard),
        percentiles(scorecard),
        throughput(scorecard),
        latency(scorecard),
        memory(scorecard),
        cpu(scorecard),
    ];
    charts.into_iter().flatten().collect()
}

const PAIR: &str =
    "<p class=\"legend\"><span class=\"alone\">alone</span><span class=\"beside\">beside</span>";

fn has_beside(scorecard: &Scorecard) -> bool {
    scorecard.rows.iter().any(|row| row.quiet.beside.is_some())
}

/// A dot for each row alone and beside, on a log scale, and the bound.
fn p99(scorecard: &Scorecard) -> Option<Chart> {
    let rows: Vec<&Row> = scorecard.rows.iter().filter(|row| row.measured().is_some()).collect();
    if rows.is_empty() {
        return None;
    }
    let bounds: Vec<Option<f64>> = rows.iter().map(|row| bound(scorecard, row)).collect();
    let measured = rows.iter().flat_map(|row| [&row.quiet.alone, &row.quiet.beside]).flatten();
    let values = measured.map(|figures| figures.p99_ms).chain(bounds.iter().copied().flatten());
    let axis = Axis::log(values, NAMES, WIDTH - 140.0);
    let height = rows.len() as f64 * 28.0 + 34.0;
    let mut svg = open("chart-p99", "p99 latency of quiet tenants", height);
    for tick in axis.ticks() {
        let x = axis.place(tick);
        line(&mut svg, "grid", (x, 4.0), (x, height - 26.0));
        text(&mut svg, "middle", (x, height - 8.0), &ms(tick));
    }
    for (index, (row, bound)) in rows.iter().zip(&bounds).enumerate() {
        dumbbell(&mut svg, row, *bound, &axis, 20.0 + index as f64 * 28.0, scorecard);
    }
    svg += "</svg>";
    let legend = match has_beside(scorecard) {
        true => format!("{PAIR}<span class=\"bound\">bound</span></p>"),
        false => String::new(),
    };
    let caption = "From when a message was due to when it came back, 99 of 100 messages; log scale.".into();
    Some(Chart { id: "p99", title: "p99 latency of quiet tenants", caption, legend, svg })
}

/// The bound of a row's p99: its ratio's, or its own.
fn bound(scorecard: &Scorecard, row: &Row) -> Option<f64> {
    let of = |name: &str| {
        scorecard.checks.iter().find(|check| check.name == name && check.row.as_ref() == Some(&row.name))
    };
    of("ratio").or_else(|| of("p99")).map(|check| check.bound)
}

fn dumbbell(svg: &mut String, row: &Row, bound: Option<f64>, axis: &Axis, y: f64, scorecard: &Scorecard) {
    let missed = scorecard.checks.iter().any(|check| check.row.as_ref() == Some(&row.name) && !check.holds);
    let class = if missed { "row missed" } else { "row" };
    let p99 = |figures: &Option<Figures>| figures.as_ref().map(|figures| figures.p99_ms);
    let (alone, beside) = (p99(&row.quiet.alone), p99(&row.quiet.beside));
    let said = match (alone, beside) {
        (Some(alone), Some(beside)) => format!("{} → {} ms", number(alone), number(beside)),
        (one, other) => one.or(other).map(|value| format!("{} ms", number(value))).unwrap_or_default(),
    };
    push(svg, format_args!("<g class=\"{class}\"><title>{}: {said}</title>", escape(&row.name)));
    text(svg, "name end", (NAMES - 14.0, y + 4.0), &shorten(&row.name, 26));
    if let (Some(alone), Some(beside)) = (alone, beside) {
        line(svg, "span", (axis.place(alone), y), (axis.place(beside), y));
    }
    if let Some(bound) = bound {
        let x = axis.place(bound);
        line(svg, "bound", (x, y - 8.0), (x, y + 8.0));
    }
    for (class, value) in [("alone", alone), ("beside", beside)] {
        let Some(value) = value else { continue };
        let only = if alone.is_none() || beside.is_none() { " only" } else { "" };
        push(
            svg,
            format_args!(
                "<circle class=\"dot {class}{only}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"6\"/>",
                axis.place(value)
            ),
        );
    }
    text(svg, "end", (WIDTH, y + 4.0), &said);
    push(svg, format_args!("</g>"));
}

/// Latency by percentile, more densely towards the end.
fn percentiles(scorecard: &Scorecard) -> Option<Chart> {
    let overall = &scorecard.overall;
    let worst = scorecard.rows.iter().filter(|row| row.quiet.beside.is_some());
    let worst = worst.max_by(|a, b| a.ratio.unwrap_or(0.0).total_cmp(&b.ratio.unwrap_or(0.0)));
    let worst = worst.filter(|_| scorecard.rows.len() > 1);
    let curves: Vec<(&str, &Figures)> = [
        overall.alone.as_ref().map(|it| ("alone", it)),
        overall.beside.as_ref().map(|it| ("beside", it)),
        worst.and_then(|row| row.quiet.beside.as_ref()).map(|it| ("worst", it)),
    ]
    .into_iter()
    .flatten()
    .filter(|(_, figures)| figures.came > 0)
    .collect();
    let most = curves.iter().map(|(_, figures)| nines(figures)).max_by(f64::total_cmp)?;
    let height = 300.0;
    let x = |percentile: f64| {
        let nines = -(1.0 - percentile / 100.0).max(10_f64.powf(-most)).log10();
        LABELS + (WIDTH - LABELS - 20.0) * nines / most
    };
    let values = curves.iter().flat_map(|(_, figures)| figures.curve.iter().map(|(_, latency)| *latency));
    let y = Axis::log(values, height - 30.0, 10.0);
    let mut svg = open("chart-percentiles", "Latency by percentile", height);
    horizontal_grid(&mut svg, &y, ms);
    for (percentile, name) in [
        (0.0, "0"),
        (50.0, "50"),
        (90.0, "90"),
        (99.0, "99"),
        (99.9, "99.9"),
        (99.99, "99.99"),
        (99.999, "99.999"),
    ] {
        if percentile <= 100.0 - 10_f64.powf(2.0 - most) * 0.99 {
            line(&mut svg, "grid", (x(percentile), 10.0), (x(percentile), height - 30.0));
            text(&mut svg, "middle", (x(percentile), height - 10.0), &format!("{name} %"));
        }
    }
    for (class, figures) in &curves {
        let end = nines(figures);
        let points =
            figures.curve.iter().filter(|(percentile, _)| 100.0 - percentile >= 10_f64.powf(2.0 - end));
        let points: Vec<(f64, f64)> =
            points.map(|(percentile, latency)| (x(*percentile), y.place(*latency))).collect();
        polyline(&mut svg, class, &points);
    }
    svg += "</svg>";
    let mut legend = String::new();
    if overall.beside.is_some() {
        legend += PAIR;
        if let Some(row) = worst {
            push(&mut legend, format_args!("<span class=\"worst\">beside {}</span>", escape(&row.name)));
        }
        legend += "</p>";
    }
    let caption = "How long the slowest take: each step to the right is ten times as rare.".into();
    Some(Chart { id: "percentiles", title: "Latency by percentile", caption, legend, svg })
}

/// How many nines so many messages can tell of.
fn nines(figures: &Figures) -> f64 {
    (figures.came.max(10) as f64).log10().clamp(1.0, 5.0)
}

fn throughput(scorecard: &Scorecard) -> Option<Chart> {
    let width = scorecard.timeline.width_seconds as f64;
    let sent = |bucket: &Bucket| bucket.sent as f64 / width;
    let came = |bucket: &Bucket| bucket.came as f64 / width;
    let svg = timeline(scorecard, "chart-throughput", "Messages a second", Some(&sent), &came, |tick| {
        format!("{}/s", label(tick))
    })?;
    let caption =
        "Messages that were due (area) and that came back (line), over the seconds of the run.".into();
    Some(Chart {
        id: "throughput",
        title: "Throughput",
        caption: with_bands(caption, scorecard),
        legend: String::new(),
        svg,
    })
}

fn latency(scorecard: &Scorecard) -> Option<Chart> {
    let p99 = |bucket: &Bucket| bucket.p99_ms;
    let svg = timeline(scorecard, "chart-latency", "p99 over time", None, &p99, ms)?;
    let caption = "p99 of what came in each second.".into();
    Some(Chart {
        id: "latency",
        title: "p99 over time",
        caption: with_bands(caption, scorecard),
        legend: String::new(),
        svg,
    })
}

fn memory(scorecard: &Scorecard) -> Option<Chart> {
    scorecard.memory?;
    let memory = |bucket: &Bucket| bucket.memory_bytes as f64 / f64::from(1 << 20);
    let svg = timeline(scorecard, "chart-memory", "Host memory", Some(&memory), &memory, |tick| {
        format!("{} MiB", label(tick))
    })?;
    let caption = "Resident, of the host and the processes that it starts.".into();
    Some(Chart {
        id: "memory",
        title: "Host memory",
        caption: with_bands(caption, scorecard),
        legend: String::new(),
        svg,
    })
}

fn cpu(scorecard: &Scorecard) -> Option<Chart> {
    scorecard.memory?;
    let cpu = |bucket: &Bucket| bucket.cpu * 100.0;
    let svg =
        timeline(scorecard, "chart-cpu", "Host CPU", Some(&cpu), &cpu, |tick| format!("{} %", label(tick)))?;
    let caption = "Share of a core that the host took.".into();
    Some(Chart {
        id: "cpu",
        title: "Host CPU",
        caption: with_bands(caption, scorecard),
        legend: String::new(),
        svg,
    })
}

fn with_bands(mut caption: String, scorecard: &Scorecard) -> String {
    if has_beside(scorecard) {
        caption += " Shaded: something happens beside; point at it for what.";
    }
    caption
}

type Of<'a> = &'a dyn Fn(&Bucket) -> f64;

/// A line over the seconds of the run, on an area if there is one.
fn timeline(
    scorecard: &Scorecard,
    id: &str,
    title: &str,
    area: Option<Of<'_>>,
    of: Of<'_>,
    tick: impl Fn(f64) -> String,
) -> Option<String> {
    let buckets = &scorecard.timeline.buckets;
    let last = buckets.last()?;
    let height = 200.0;
    let end = (last.second + scorecard.timeline.width_seconds) as f64;
    let x = |second: f64| LABELS + (WIDTH - LABELS - 20.0) * (second / end).min(1.0);
    let all = buckets.iter().flat_map(|bucket| [of(bucket), area.map_or(0.0, |area| area(bucket))]);
    let y = Axis::linear(all.fold(0.0, f64::max), height - 30.0, 10.0);
    let points = |of: Of<'_>| -> Vec<(f64, f64)> {
        let per_point = buckets.len().div_ceil(POINTS_MAX);
        let middle = scorecard.timeline.width_seconds as f64 * per_point as f64 / 2.0;
        let value = |chunk: &[Bucket]| chunk.iter().map(of).fold(0.0, f64::max);
        buckets
            .chunks(per_point)
            .map(|chunk| (x(chunk[0].second as f64 + middle), y.place(value(chunk))))
            .collect()
    };
    let mut svg = open(id, title, height);
    bands(&mut svg, scorecard, &x, height);
    horizontal_grid(&mut svg, &y, tick);
    for (second, said) in moments(end) {
        text(&mut svg, "middle", (x(second), height - 10.0), &said);
    }
    if let Some(area) = area {
        let points = points(area);
        let ends = [(points.last()?.0, height - 30.0), (points[0].0, height - 30.0)];
        let all: Vec<String> = points.iter().chain(&ends).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        push(&mut svg, format_args!("<polygon class=\"area\" points=\"{}\"/>", all.join(" ")));
    }
    polyline(&mut svg, "alone", &points(of));
    svg += "</svg>";
    Some(svg)
}

/// Where something happens beside.
fn bands(svg: &mut String, scorecard: &Scorecard, x: &impl Fn(f64) -> f64, height: f64) {
    let marks = &scorecard.timeline.marks;
    let rows: Vec<&str> = scorecard.rows.iter().map(|row| row.name.as_str()).collect();
    for (index, mark) in marks.iter().enumerate() {
        let is_beside = has_beside(scorecard) && rows.contains(&mark.label.as_str());
        if !is_beside {
            continue;
        }
        let end = marks.get(index + 1).map_or(scorecard.seconds, |next| next.second);
        let (from, to) = (x(mark.second), x(end));
        push(
            svg,
            format_args!(
                "<rect class=\"band\" x=\"{from:.1}\" y=\"4\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                (to - from).max(1.0),
                height - 34.0,
                escape(&mark.label)
            ),
        );
    }
}

fn horizontal_grid(svg: &mut String, axis: &Axis, tick: impl Fn(f64) -> String) {
    for value in axis.ticks() {
        let y = axis.place(value);
        line(svg, "grid", (LABELS, y), (WIDTH - 20.0, y));
        text(svg, "end", (LABELS - 8.0, y + 4.0), &tick(value));
    }
}

fn open(id: &str, title: &str, height: f64) -> String {
    format!(
        "<svg id=\"{id}\" class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
    )
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    push(
        svg,
        format_args!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        ),
    );
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), said: &str) {
    push(svg, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(said)));
}

fn polyline(svg: &mut String, class: &str, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    push(svg, format_args!("<polyline class=\"line {class}\" points=\"{}\"/>", points.join(" ")));
}

fn push(svg: &mut String, args: std::fmt::Arguments<'_>) {
    svg.write_fmt(args).expect("a string takes all");
}

fn shorten(name: &str, chars: usize) -> String {
    match name.chars().count() {
        len if len > chars => name.chars().take(chars - 1).chain(['…']).collect(),
        _ => name.to_owned(),
    }
}
