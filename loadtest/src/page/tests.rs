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

/// Names under which a Chromium is installed.
const BROWSERS: [&str; 4] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable"];

/// One that is there. CI installs it and skips nothing; elsewhere it is said what is not tested.
fn browser() -> Option<std::path::PathBuf> {
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let mut places = BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = places.find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no Chromium among {BROWSERS:?}");
        eprintln!(
            "NOT TESTED: the page in a browser: `sudo apt-get install chromium-headless-shell`, or chromium"
        );
    }
    found
}

/// Says of every chart how large it is and how much of it is drawn, where tests find it.
const PROBE: &str = r#"<pre id="probe"></pre><script>
addEventListener("load", () => {
  const of = svg => {
    const marks = [...svg.querySelectorAll("path, rect, circle, line, polyline")];
    const seen = marks.filter(mark => { const box = mark.getBoundingClientRect(); return box.width + box.height > 0; });
    return `${svg.id} ${Math.round(svg.getBoundingClientRect().width)} ${seen.length}`;
  };
  document.getElementById("probe").textContent = [...document.querySelectorAll("svg.chart")].map(of).join(";");
});
</script>"#;

#[test]
fn a_browser_draws_every_chart_and_has_nothing_to_complain_of() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str, html: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, html).unwrap();
        let output = std::process::Command::new(&browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .unwrap();
        let (dom, said) = (output.stdout, output.stderr);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(dom), text(said))
    };
    let html = page(&crate::scorecard::tests::scorecard());
    let (dom, said) = open("page.html", &html.replace("</body>", &format!("{PROBE}</body>")));
    assert!(!said.contains("CONSOLE"), "{said}");
    let probe = dom.split("<pre id=\"probe\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let charts: Vec<Vec<&str>> =
        probe.expect(&said).split(';').map(|chart| chart.split(' ').collect()).collect();
    assert_eq!(charts.len(), html.matches("<svg").count(), "{charts:?}");
    assert!(charts.len() >= 4, "{charts:?}");
    for chart in &charts {
        let number = |place: usize| chart[place].parse::<u32>().unwrap();
        assert!(number(1) > 200 && number(2) > 3, "{charts:?}");
    }
    // An error would have been seen.
    let (_, said) =
        open("broken.html", &html.replace("</body>", "<script>throw new Error('x')</script></body>"));
    assert!(said.contains("CONSOLE"), "{said}");
}
