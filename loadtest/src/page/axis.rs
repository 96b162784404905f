//! Scales, and the ticks on them. Knows no colours.

/// From values to places in a drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Axis {
    Linear {
        most: f64,
        from: f64,
        to: f64,
    },
    /// Between powers of ten.
    Log {
        first: i32,
        last: i32,
        from: f64,
        to: f64,
    },
}

impl Axis {
    /// From 0 to a round number that is at least `most`.
    pub fn linear(most: f64, from: f64, to: f64) -> Self {
        Axis::Linear { most: round_up(most), from, to }
    }

    /// Whole powers of ten around the values, of which those that are not above 0 are
    /// left out.
    pub fn log(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let values = values.into_iter().filter(|value| *value > 0.0);
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if most == 0.0 {
            return Axis::Log { first: 0, last: 1, from, to };
        }
        let first = least.log10().floor() as i32;
        let last = (most.log10().ceil() as i32).max(first + 1);
        Axis::Log { first, last, from, to }
    }

    pub fn place(&self, value: f64) -> f64 {
        let (share, from, to) = match *self {
            Axis::Linear { most, from, to } => (value / most, from, to),
            Axis::Log { first, last, from, to } => {
                let exponent = if value > 0.0 { value.log10() } else { f64::from(first) };
                ((exponent - f64::from(first)) / f64::from(last - first), from, to)
            }
        };
        from + (to - from) * share.clamp(0.0, 1.0)
    }

    /// Values that get a line and a label.
    pub fn ticks(&self) -> Vec<f64> {
        match *self {
            Axis::Linear { most, .. } => (0..=4).map(|quarter| most * f64::from(quarter) / 4.0).collect(),
            Axis::Log { first, last, .. } => (first..=last).map(|power| 10_f64.powi(power)).collect(),
        }
    }
}

/// The next of these times a power of ten: their quarters are short numbers.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| value <= step * power * (1.0 + 1e-9));
    step.unwrap_or(12.0) * power
}

/// A tick's label: no more digits than it needs.
pub fn label(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{} k", value / 1e3)
    } else {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Milliseconds, as seconds where that is shorter.
pub fn ms(value: f64) -> String {
    if value >= 1e3 { format!("{} s", label(value / 1e3)) } else { format!("{} ms", label(value)) }
}

/// At most ten moments of a run of so many seconds, each with its label.
pub fn moments(seconds: f64) -> Vec<(f64, String)> {
    const STEPS: [u32; 13] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600];
    let fits = |step: &u32| seconds / f64::from(*step) <= 10.0;
    let step = STEPS.into_iter().find(fits).unwrap_or((seconds / 36_000.0).ceil() as u32 * 3_600);
    let unit = |second: u32| match step {
        0..60 => format!("{second} s"),
        60..3_600 => format!("{} min", second / 60),
        _ => format!("{} h", second / 3_600),
    };
    (0..=(seconds / f64::from(step)) as u32).map(|n| (f64::from(n * step), unit(n * step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_axis_has_a_tick_for_each_power_of_ten() {
        let axis = Axis::log([0.3, 40.0, 0.0], 100.0, 400.0);
        assert_eq!(axis, Axis::Log { first: -1, last: 2, from: 100.0, to: 400.0 });
        assert_eq!(axis.ticks(), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!([0.1, 1.0, 100.0].map(|value| axis.place(value).round()), [100.0, 200.0, 400.0]);
        assert_eq!(axis.place(0.0), 100.0);
        assert_eq!(Axis::log([1.0], 0.0, 1.0).ticks(), [1.0, 10.0]);
        assert_eq!(Axis::log([], 0.0, 1.0).ticks(), [1.0, 10.0]);
    }

    #[test]
    fn a_linear_axis_ends_at_a_round_number() {
        for (most, end) in
            [(0.0, 1.0), (1.0, 1.0), (1.1, 1.2), (800.0, 800.0), (801.0, 1_000.0), (3e6, 3.2e6)]
        {
            assert_eq!(Axis::linear(most, 0.0, 1.0).ticks()[4], end, "{most}");
        }
        assert_eq!(Axis::linear(50.0, 200.0, 0.0).place(40.0), 40.0);
    }

    #[test]
    fn a_run_of_any_length_has_a_few_moments() {
        for seconds in [1.0, 9.0, 48.0, 599.0, 7_300.0, 86_400.0, 1e6] {
            let moments = moments(seconds);
            assert!((2..=11).contains(&moments.len()), "{seconds}: {moments:?}");
            assert!(moments.iter().all(|(second, _)| *second <= seconds));
        }
        let labels = |seconds| moments(seconds).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(48.0)[1], "5 s");
        assert_eq!(labels(599.0)[1], "1 min");
        assert_eq!(labels(86_400.0)[1], "3 h");
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0.5, 999.0, 10_000.0].map(ms), ["0.5 ms", "999 ms", "10 s"]);
        assert_eq!(
            [0.01, 0.25, 5.0, 100.0, 12_000.0, 4e6].map(label),
            ["0.01", "0.25", "5", "100", "12 k", "4 M"]
        );
    }
}
