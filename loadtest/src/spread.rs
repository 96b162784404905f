//! Which tenant a message is for: all alike, or some far more than others, by Zipf.

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// How messages are spread over tenants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// In turns.
    Uniform,
    /// The nth tenant gets a share of `1 / n^exponent`.
    Zipf { exponent: f64 },
}

/// Draws tenants, by their number from 0. The same seed draws the same.
pub struct Draw {
    tenants: usize,
    /// Up to which share of 1 each tenant reaches; empty for turns.
    reach: Vec<f64>,
    rng: SmallRng,
    turn: usize,
}

impl Draw {
    pub fn new(spread: Spread, tenants: usize, seed: u64) -> Self {
        assert!(tenants > 0, "a scenario has tenants");
        let reach = match spread {
            Spread::Uniform => Vec::new(),
            Spread::Zipf { exponent } => {
                let shares = (1..=tenants).map(|rank| (rank as f64).powf(-exponent));
                let sums: Vec<f64> = shares
                    .scan(0.0, |sum, share| {
                        *sum += share;
                        Some(*sum)
                    })
                    .collect();
                let all = sums[tenants - 1];
                sums.into_iter().map(|sum| sum / all).collect()
            }
        };
        Draw { tenants, reach, rng: SmallRng::seed_from_u64(seed), turn: 0 }
    }

    pub fn tenant(&mut self) -> usize {
        if self.reach.is_empty() {
            self.turn = (self.turn + 1) % self.tenants;
            return (self.turn + self.tenants - 1) % self.tenants;
        }
        let at = self.rng.random::<f64>();
        self.reach.partition_point(|reach| *reach <= at).min(self.tenants - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(spread: Spread, tenants: usize, draws: usize, seed: u64) -> Vec<usize> {
        let mut draw = Draw::new(spread, tenants, seed);
        let mut counts = vec![0; tenants];
        for _ in 0..draws {
            counts[draw.tenant()] += 1;
        }
        counts
    }

    #[test]
    fn uniform_takes_turns() {
        assert_eq!(counts(Spread::Uniform, 4, 4_000, 1), [1_000; 4]);
        let mut draw = Draw::new(Spread::Uniform, 3, 1);
        assert_eq!([draw.tenant(), draw.tenant(), draw.tenant(), draw.tenant()], [0, 1, 2, 0]);
    }

    #[test]
    fn zipf_gives_the_nth_an_nth() {
        let counts = counts(Spread::Zipf { exponent: 1.0 }, 100, 1_000_000, 1);
        // The sum of 1/n up to 100.
        let harmonic = 5.187_377_517_639_621;
        for rank in [1, 2, 10, 100] {
            let expected = 1e6 / harmonic / rank as f64;
            let off = (counts[rank - 1] as f64 - expected) / expected.sqrt();
            assert!(off.abs() < 5.0, "rank {rank}: {} of {expected}", counts[rank - 1]);
        }
    }

    #[test]
    fn a_higher_exponent_favours_the_first_more() {
        let first = |exponent| counts(Spread::Zipf { exponent }, 1_000, 100_000, 1)[0];
        assert!(first(1.1) > first(0.8) && first(1.5) > first(1.1));
        assert!(counts(Spread::Zipf { exponent: 0.0 }, 10, 100_000, 1).iter().all(|count| *count > 9_500));
    }

    #[test]
    fn a_seed_says_all() {
        let draws = |seed| counts(Spread::Zipf { exponent: 1.1 }, 50, 1_000, seed);
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }
}
