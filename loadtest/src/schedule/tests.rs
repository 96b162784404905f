use super::*;

fn moments(shape: Shape, seconds: u64, seed: u64) -> Vec<f64> {
    Schedule::new(shape, Duration::from_secs(seconds), seed).map(|ns| ns as f64 / 1e9).collect()
}

fn between(moments: &[f64], from: f64, to: f64) -> usize {
    moments.iter().filter(|at| (from..to).contains(*at)).count()
}

const SHAPES: [Shape; 5] = [
    Shape::Constant { rate: 1_000.0 },
    Shape::Poisson { rate: 1_000.0 },
    Shape::Burst {
        rate: 100.0,
        peak: 2_000.0,
        every: Duration::from_secs(2),
        length: Duration::from_millis(500),
    },
    Shape::Ramp { from: 0.0, to: 2_000.0 },
    Shape::Diurnal { low: 100.0, high: 900.0, period: Duration::from_secs(10) },
];

#[test]
fn moments_are_in_order_and_within_the_phase() {
    for shape in SHAPES {
        let moments = moments(shape, 10, 1);
        assert!(moments.is_sorted(), "{shape:?}");
        assert!(moments.iter().all(|at| (0.0..10.0).contains(at)), "{shape:?}");
    }
}

#[test]
fn constant_has_one_gap() {
    let moments = moments(Shape::Constant { rate: 500.0 }, 2, 1);
    assert_eq!(moments.len(), 1_000);
    assert_eq!(moments[..3], [0.0, 0.002, 0.004]);
}

#[test]
fn poisson_has_the_rate_and_gaps_of_every_length() {
    let moments = moments(Shape::Poisson { rate: 1_000.0 }, 100, 7);
    // Within five standard deviations of 100,000.
    assert!(moments.len().abs_diff(100_000) < 1_600, "{}", moments.len());
    let gaps: Vec<f64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    // Of an exponential distribution, deviation and mean are the same.
    assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{}", variance.sqrt() / mean);
}

#[test]
fn a_burst_is_dense_and_the_time_between_is_not() {
    let moments = moments(SHAPES[2], 4, 1);
    assert_eq!(between(&moments, 0.0, 0.5).abs_diff(1_000), 0);
    assert!(between(&moments, 0.5, 2.0).abs_diff(150) <= 1);
    assert!(between(&moments, 2.0, 2.5).abs_diff(1_000) <= 1);
}

#[test]
fn a_ramp_is_as_steep_as_it_says() {
    let moments = moments(Shape::Ramp { from: 100.0, to: 300.0 }, 10, 1);
    assert_eq!(moments.len(), 2_000);
    // 100 a second rise to 120 within the first second, and from 280 to 300 in the last.
    assert!(between(&moments, 0.0, 1.0).abs_diff(110) <= 1);
    assert!(between(&moments, 9.0, 10.0).abs_diff(290) <= 1);
    let falling = self::moments(Shape::Ramp { from: 300.0, to: 100.0 }, 10, 1);
    assert!(between(&falling, 0.0, 1.0).abs_diff(290) <= 1);
}

#[test]
fn a_day_has_its_night_first_and_its_noon_in_the_middle() {
    let moments = moments(SHAPES[4], 20, 1);
    assert!(moments.len().abs_diff(10_000) <= 1);
    assert!(between(&moments, 0.0, 1.0) < 130);
    assert!(between(&moments, 4.5, 5.5) > 880);
    assert!(between(&moments, 14.5, 15.5) > 880);
}

#[test]
fn a_seed_says_all() {
    let poisson = Shape::Poisson { rate: 1_000.0 };
    assert_eq!(moments(poisson, 1, 3), moments(poisson, 1, 3));
    assert_ne!(moments(poisson, 1, 3), moments(poisson, 1, 4));
}
