use super::*;

#[test]
fn numbers_fit_their_columns() {
    for (value, text) in [
        (0.0, "0"),
        (0.0002, "<0.001"),
        (0.0123, "0.012"),
        (0.9996, "1.00"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (123_456.0, "123k"),
        (1.5e19, "15.0E"),
        (1e24, "1000000E"),
    ] {
        assert_eq!(measure(value), text, "{value}");
        assert!(text.len() <= 6 || value > 1e21);
    }
    for (value, text) in [(0, "0"), (9_999, "9999"), (10_000, "10.0k"), (u64::MAX, "18.4E")] {
        assert_eq!(count(value), text);
    }
}

#[test]
fn a_name_with_a_comma_is_one_field() {
    for (name, field) in [("a", "a"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\"")] {
        assert_eq!(csv_text(name), field);
    }
}

#[test]
fn lines_end_where_what_was_asked_for_ends() {
    let all = (Hour(30), Hour(100));
    for (by, hour, span) in [
        (By::Hour, 31, (31, 32)),
        (By::Day, 30, (30, 48)),
        (By::Day, 48, (48, 72)),
        (By::Day, 99, (96, 100)),
        (By::Total, 31, (30, 100)),
    ] {
        assert_eq!(by.span(Hour(hour), all), (Hour(span.0), Hour(span.1)), "{by:?} {hour}");
    }
}

#[test]
fn hours_are_whole() {
    let ms = |text: &str| crate::dead_letter::filter::moment_ms(text, Duration::ZERO).expect("a time");
    for (text, of, behind) in [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:01Z", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"),
        ("2026-01-31T23:30:00-01:00", "2026-02-01T00:00:00Z", "2026-02-01T01:00:00Z"),
    ] {
        assert_eq!(
            (Hour::of_ms(ms(text)).to_text(), Hour::behind_ms(ms(text)).to_text()),
            (of.into(), behind.into())
        );
    }
    // A date can be written of every hour.
    assert!(Hour::of_ms(u64::MAX).to_text().starts_with("9955-"));
}
