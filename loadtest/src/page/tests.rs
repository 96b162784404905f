use super::*;
use crate::{scorecard::tests::scorecard, timeline::Bucket};

const CHARTS: [&str; 6] = ["p99", "percentiles", "throughput", "latency", "memory", "cpu"];

/// Every start tag is closed, in order, and entities are whole: what a browser would
/// mend in silence is found here.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 4] = ["meta", "link", "br", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let body = html.split_once("</style>").map(|(_, body)| body).expect("a page has its style");
    let mut rest = body;
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a stray `>` after {text:?}");
        for piece in text.split('&').skip(1) {
            let entity = piece.split_once(';').map(|(name, _)| name);
            assert!(entity.is_some_and(|name| ["amp", "lt", "gt", "quot"].contains(&name)), "&{piece}");
        }
        let (tag, next) = after.split_once('>').expect("a tag ends");
        let name = tag.split_whitespace().next().expect("a tag has a name").trim_end_matches('/');
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "in {tag}"),
            None if VOID.contains(&name) || tag.ends_with('/') => {}
            None => open.push(name),
        }
        rest = next;
    }
    // The style, the head and what holds them were opened before.
    assert!(open.is_empty() || open == ["html"], "{open:?}");
}

#[test]
fn every_chart_is_drawn_and_has_its_id() {
    let html = page(&scorecard());
    for chart in CHARTS {
        assert_eq!(html.matches(&format!("<svg id=\"chart-{chart}\" class=\"chart\"")).count(), 1, "{chart}");
        assert_eq!(html.matches(&format!("<figure id=\"figure-{chart}\"")).count(), 1, "{chart}");
    }
    assert_eq!(html.matches("<circle class=\"dot alone").count(), 2);
    assert_eq!(html.matches("<circle class=\"dot beside").count(), 2);
    // One phase beside, in each of the four charts over time.
    assert_eq!(html.matches("<rect class=\"band\"").count(), 4);
    assert!(!html.contains("NaN") && !html.contains("inf\""), "a place that is no number");
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let html = page(&scorecard());
    for outside in ["http://", "https://", "<script", "<img", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("prefers-color-scheme: dark"));
    assert!(html.contains("<link rel=\"icon\" href=\"data:,\">"), "or a browser asks for one");
}

#[test]
fn tags_are_closed_whatever_names_hold() {
    let mut scorecard = scorecard();
    scorecard.rows[0].name = "<script>\"&'".into();
    scorecard.rows[0].failure = Some("</td> & \u{7}".into());
    scorecard.scenario.about = "a < b && c > d".into();
    scorecard.checks = crate::scorecard::checks(
        &scorecard,
        &crate::scenario::Thresholds {
            p99: None,
            ratio: Some(1.0),
            slack: std::time::Duration::ZERO,
            uninterruptible: std::time::Duration::ZERO,
            lost: 0,
            duplicates: None,
            out_of_order: None,
            memory_growth: None,
        },
    );
    let html = page(&scorecard);
    // Of what stands before the style, the head alone.
    assert_well_formed(&html.replacen("</head>", "", 1).replacen("</html>", "", 1));
    assert!(!html.contains("<script"));
}

#[test]
fn a_run_that_ended_early_has_a_page() {
    let mut scorecard = scorecard();
    scorecard.rows.clear();
    scorecard.timeline.buckets.clear();
    scorecard.overall = Default::default();
    scorecard.first_messages = None;
    scorecard.memory = None;
    scorecard.interrupted = true;
    let html = page(&scorecard);
    assert!(html.contains("stopped before its end") && !html.contains("<svg"));
}

#[test]
fn a_verdict_is_there_to_see() {
    let mut scorecard = scorecard();
    assert!(page(&scorecard).contains("<span id=\"verdict\" class=\"holds\">holds</span>"));
    scorecard.holds = false;
    assert!(page(&scorecard).contains("<span id=\"verdict\" class=\"misses\">does not hold</span>"));
}

#[test]
fn a_long_run_has_lines_that_can_be_drawn() {
    let mut scorecard = scorecard();
    let bucket = scorecard.timeline.buckets[0];
    scorecard.timeline.buckets = (0..3_600).map(|second| Bucket { second, ..bucket }).collect();
    let html = page(&scorecard);
    let points =
        html.split("<polyline").map(|line| line.split('>').next().unwrap_or_default().matches(',').count());
    assert!(points.max() <= Some(500));
}
