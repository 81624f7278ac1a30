//! Which design is better: by instructions on one thread, by ratios of processor time on two.

use serde::{Deserialize, Serialize};

/// How much fewer instructions a design must need to be the better one. Counts vary by less, but a different
/// compilation can change them by this much.
pub const MARGIN: f64 = 0.03;

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Ours is better than every other.
    Ours,
    /// This design is better than the design of this project, and the best of all such designs.
    Rival(String),
    /// At least one design is neither better nor worse than the design of this project.
    Undecided,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Rival(name) => name,
            Self::Undecided => "undecided",
        })
    }
}

/// The verdict by amounts that do not vary, such as instructions for each operation: the smallest one wins, if it is
/// smaller by more than [`MARGIN`].
#[must_use]
pub fn by_amounts(ours: f64, others: &[(&str, f64)]) -> Verdict {
    let beats = |one: f64, other: f64| one < other && one <= other * (1.0 - MARGIN);
    let least = others.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    match least {
        Some((name, theirs)) if beats(*theirs, ours) => Verdict::Rival((*name).to_owned()),
        Some((_, theirs)) if beats(ours, *theirs) => Verdict::Ours,
        _ => Verdict::Undecided,
    }
}

/// The verdict by the ratios of each other design to the design of this project, one from each round: all ratios
/// between the quartiles must be on one side of 1.
#[must_use]
pub fn by_ratios(others: &[(&str, &[f64])]) -> Verdict {
    let spreads = others
        .iter()
        .map(|(name, ratios)| (*name, Spread::of(ratios)));
    let spreads: Vec<_> = spreads.collect();
    let better = spreads.iter().filter(|(_, spread)| spread.upper < 1.0);
    if let Some((name, _)) = better.min_by(|a, b| a.1.median.total_cmp(&b.1.median)) {
        return Verdict::Rival((*name).to_owned());
    }
    if !spreads.is_empty() && spreads.iter().all(|(_, spread)| spread.lower > 1.0) {
        return Verdict::Ours;
    }
    Verdict::Undecided
}

/// The distribution of the measurements of one value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The minimum.
    pub min: f64,
    /// The lower quartile.
    pub lower: f64,
    /// The median.
    pub median: f64,
    /// The upper quartile.
    pub upper: f64,
    /// The maximum.
    pub max: f64,
}

impl Spread {
    /// The distribution of `measured`; all zero when there are no measurements.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index into them
    pub fn of(measured: &[f64]) -> Self {
        let mut sorted = measured.to_vec();
        sorted.sort_by(f64::total_cmp);
        // Quantiles are interpolated linearly between neighbours, as most tools do (Hyndman and Fan's type 7).
        let at = |share: f64| {
            let place = share * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            let part = place - place.floor();
            match (sorted.get(below), sorted.get(above)) {
                (Some(low), Some(high)) => low + (high - low) * part,
                _ => 0.0,
            }
        };
        Self {
            min: at(0.0),
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
            max: at(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_instructions_win_by_more_than_the_margin() {
        assert_eq!(
            by_amounts(96.0, &[("a", 100.0), ("b", 200.0)]),
            Verdict::Ours
        );
        let rival = |name: &str| Verdict::Rival(name.to_owned());
        assert_eq!(by_amounts(100.0, &[("a", 96.0), ("b", 90.0)]), rival("b"));
        assert_eq!(by_amounts(100.0, &[("a", 97.0), ("b", 500.0)]), rival("a"));
        for close in [98.0, 100.0, 102.0] {
            let verdict = by_amounts(100.0, &[("a", close), ("b", 500.0)]);
            assert_eq!(verdict, Verdict::Undecided);
        }
        assert_eq!(by_amounts(1.0, &[]), Verdict::Undecided);
        assert_eq!(
            by_amounts(0.0, &[("a", 0.0)]),
            Verdict::Undecided,
            "both are at the best"
        );
        assert_eq!(by_amounts(0.0, &[("a", 0.1)]), Verdict::Ours);
    }

    #[test]
    fn ratios_decide_when_their_middle_half_excludes_one() {
        let clear = [0.9, 1.2, 1.2, 1.3, 1.3];
        let worse = [0.5, 0.6, 0.6, 0.7, 1.4];
        let least = [0.1, 0.1, 0.2, 0.2, 0.2];
        let mixed = [0.8, 0.9, 1.1, 1.2, 1.2];
        assert_eq!(by_ratios(&[("a", &clear), ("b", &clear)]), Verdict::Ours);
        assert_eq!(
            by_ratios(&[("a", &clear), ("b", &mixed)]),
            Verdict::Undecided
        );
        let best = by_ratios(&[("a", &worse), ("b", &least), ("c", &mixed)]);
        assert_eq!(best, Verdict::Rival("b".to_owned()));
        assert_eq!(by_ratios(&[]), Verdict::Undecided);
    }

    #[test]
    fn quartiles_lie_between_neighbours() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.min, spread.max, spread.median), (1.0, 4.0, 2.5));
        assert_eq!((spread.lower, spread.upper), (1.75, 3.25));
        assert_eq!(Spread::of(&[]).median, 0.0);
    }
}
