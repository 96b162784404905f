use super::*;

fn log(name: &str) -> Arc<GuestLog> {
    let limits = LogLimits { lines_max: 10_000, bytes_max: 1 << 20 };
    GuestLog::new(name, Arc::new(LogAllowance::new(limits)), Clock::Virtual(Arc::default()))
}
use crate::guest::tests::logged;

#[test]
fn lines_carry_level_and_names() {
    let log = logged(|| {
        let log = log("weather/frost/module-a/map");
        for severity in [Severity::Trace, Severity::Info, Severity::Warn, Severity::Error, Severity::Critical]
        {
            log.line(severity, "ctx", "said\n");
        }
    });
    let fields = r#"guest: said tenant="weather" dataflow="frost" operator="module-a/map" context="ctx""#;
    let expected = ["TRACE", " INFO", " WARN", "ERROR", "ERROR"].map(|level| format!("{level} {fields}"));
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn long_lines_are_cut_between_characters() {
    let log = logged(|| {
        log("a/b/c").line(Severity::Info, "", &"é".repeat(LINE_BYTES_MAX));
        let mut stream = LineStream::new(log("a/b/c"), Severity::Info, "stdout");
        for _ in 0..3 {
            stream.write(Bytes::from(vec![b'x'; LINE_BYTES_MAX - 1])).unwrap();
        }
        stream.write(Bytes::from_static(b"\nshort\n")).unwrap();
    });
    let counts: Vec<_> = log
        .lines()
        .map(|line| (line.matches('é').count(), line.matches('x').count() >= LINE_BYTES_MAX))
        .collect();
    assert_eq!(counts, [(LINE_BYTES_MAX / 2, false), (0, true), (0, false)]);
}

#[test]
fn one_call_cannot_flood_the_log_and_the_next_tells_so() {
    let log = logged(|| {
        let log = log("a/b/c");
        for _ in 0..10_000 {
            log.line(Severity::Info, "", "");
        }
        log.begin_call();
        log.line(Severity::Info, "", "again");
    });
    let kept = CALL_BYTES_MAX / LINE_OVERHEAD_BYTES;
    assert_eq!(log.lines().count() as u32, kept + 2);
    let told = format!("{} lines left out: one call may log 65536 bytes", 10_000 - kept);
    assert!(log.contains(&told), "{told}");
    assert!(log.lines().last().unwrap().contains("again"));
}
