//! Scales, and the ticks on them. Knows no colours.

/// From values to places in a drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Axis {
    Linear { most: f64, from: f64, to: f64 },
    /// Between powers of ten.
    Log { first: i32, last: i32, from: f64, to: f64 },
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
        let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
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

/// The next of 1, 2, 4, 8 times a power of ten: their quarters are short numbers.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| value <= step * power * (1.0 + 1e-9));
    step.unwrap_or(20.0) * power
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
        for (most, end) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (800.0, 800.0), (801.0, 1_000.0), (3e6, 4e6)] {
            assert_eq!(Axis::linear(most, 0.0, 1.0).ticks()[4], end, "{most}");
        }
        assert_eq!(Axis::linear(50.0, 200.0, 0.0).place(40.0), 100.0);
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0.01, 0.25, 5.0, 100.0, 12_000.0, 4e6].map(label), ["0.01", "0.25", "5", "100", "12 k", "4 M"]);
    }
}
