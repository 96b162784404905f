use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[test]
fn counters_add_up_and_histograms_sum() {
    let metrics = GuestMetrics::default();
    metrics.add_to_counter("seen", 2, labels(&[])).unwrap();
    metrics.add_to_counter("seen", 3, labels(&[])).unwrap();
    metrics.add_to_counter("seen", 1, labels(&[("room", "a")])).unwrap();
    metrics.add_to_counter("most", u64::MAX, labels(&[])).unwrap();
    metrics.add_to_counter("most", 1, labels(&[])).unwrap();
    for value in [3.0, -1.5, 2.0] {
        metrics.record_to_histogram("heat", Sample::Float(value), labels(&[])).unwrap();
    }
    metrics.record_to_histogram("size", Sample::Integer(7), labels(&[])).unwrap();
    let read = metrics.read();
    let read: Vec<_> =
        read.iter().map(|series| (series.name.as_str(), series.labels.len(), series.reading)).collect();
    assert_eq!(
        read,
        [
            ("heat", 0, Reading::Histogram { count: 3, sum: 3.5, min: -1.5, max: 3.0 }),
            ("most", 0, Reading::Counter(u64::MAX)),
            ("seen", 0, Reading::Counter(5)),
            ("seen", 1, Reading::Counter(1)),
            ("size", 0, Reading::Histogram { count: 1, sum: 7.0, min: 7.0, max: 7.0 }),
        ]
    );
}

#[test]
fn a_name_keeps_its_type() {
    let metrics = GuestMetrics::default();
    metrics.add_to_counter("counter", 1, labels(&[])).unwrap();
    metrics.record_to_histogram("integers", Sample::Integer(1), labels(&[])).unwrap();
    let clash = |name: &str| Err(MetricsError::IncompatibleType { name: name.to_owned() });
    let other = labels(&[("a", "b")]);
    assert_eq!(metrics.record_to_histogram("counter", Sample::Integer(1), other.clone()), clash("counter"));
    assert_eq!(metrics.record_to_histogram("integers", Sample::Float(1.0), other.clone()), clash("integers"));
    assert_eq!(metrics.add_to_counter("integers", 1, other), clash("integers"));
}

#[test]
fn series_and_their_names_are_bounded() {
    let metrics = GuestMetrics::default();
    let one = |n: u32| labels(&[("n", &n.to_string())]);
    for n in 0..SERIES_MAX {
        metrics.add_to_counter("seen", 1, one(n)).unwrap();
    }
    assert_eq!(
        metrics.add_to_counter("seen", 1, one(SERIES_MAX)),
        Err(MetricsError::TooManySeries { max: SERIES_MAX })
    );
    assert_eq!(
        metrics.add_to_counter("other", 1, labels(&[])),
        Err(MetricsError::TooManySeries { max: SERIES_MAX })
    );
    assert_eq!(metrics.add_to_counter("seen", 1, one(0)), Ok(()), "those that are there go on");
    assert_eq!(metrics.read().len(), SERIES_MAX as usize);
    let long = "x".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(GuestMetrics::default().add_to_counter(&long, 1, labels(&[])), Err(MetricsError::TooLong));
}
