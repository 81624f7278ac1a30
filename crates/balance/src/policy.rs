//! The policies, by name.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// How a member is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Each member in turn, weights ignored.
    #[default]
    RoundRobin,
    /// Each member in turn, in proportion to its weight, interleaved as in nginx (smooth weighted round robin).
    WeightedRoundRobin,
    /// The member with the fewest requests in flight for its weight; equal members take turns by weight.
    LeastConnections,
    /// The member that wins the caller's hash of a host, a header or a cookie.
    ConsistentHash,
    /// The member that wins the caller's hash of the visitor's address.
    IpHash,
    /// The less loaded, relative to its weight, of two members drawn with the caller's random bits.
    PowerOfTwo,
}

impl Policy {
    /// Every policy, in the order in which errors list them.
    pub const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnections,
        Self::ConsistentHash,
        Self::IpHash,
        Self::PowerOfTwo,
    ];

    /// The name in settings, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::LeastConnections => "least_connections",
            Self::ConsistentHash => "consistent_hash",
            Self::IpHash => "ip_hash",
            Self::PowerOfTwo => "power_of_two",
        }
    }

    /// Whether a choice depends on [`Draw::hash`](crate::Draw::hash), so that a
    /// caller need not hash for the others.
    #[must_use]
    pub const fn uses_hash(self) -> bool {
        matches!(self, Self::ConsistentHash | Self::IpHash)
    }

    /// Whether a choice depends on [`Draw::random`](crate::Draw::random), so that a caller need not draw random bits
    /// for the others.
    #[must_use]
    pub const fn uses_random(self) -> bool {
        matches!(self, Self::PowerOfTwo)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    /// Reads a name as [`Policy::name`] writes it, or one of the short forms
    /// `weighted` and `p2c`.
    ///
    /// # Errors
    /// Any other text, with the names that are accepted.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "weighted" => Ok(Self::WeightedRoundRobin),
            "p2c" => Ok(Self::PowerOfTwo),
            _ => Self::ALL
                .into_iter()
                .find(|policy| policy.name() == text)
                .ok_or_else(|| ParsePolicyError {
                    refused: text.to_owned(),
                }),
        }
    }
}

/// The text is not the name of a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown balancing policy {refused:?}; use one of round_robin, weighted_round_robin \
     (or weighted), least_connections, consistent_hash, ip_hash, power_of_two (or p2c)"
)]
pub struct ParsePolicyError {
    /// The text as it was given.
    pub refused: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("weighted".parse(), Ok(Policy::WeightedRoundRobin));
        assert_eq!("p2c".parse(), Ok(Policy::PowerOfTwo));
        assert_eq!(Policy::default().name(), "round_robin");
        assert_eq!(format!("{:>8}", Policy::IpHash), " ip_hash");
    }

    #[test]
    fn an_unknown_name_lists_the_accepted_ones() {
        let error = "Round_Robin".parse::<Policy>().unwrap_err();
        assert_eq!(error.refused, "Round_Robin");
        let message = error.to_string();
        assert!(message.contains("\"Round_Robin\""), "{message}");
        for policy in Policy::ALL {
            assert!(message.contains(policy.name()), "{message}");
        }
    }

    #[test]
    fn each_policy_declares_its_inputs() {
        let hashed: Vec<_> = Policy::ALL.into_iter().filter(|p| p.uses_hash()).collect();
        assert_eq!(hashed, [Policy::ConsistentHash, Policy::IpHash]);
        let diced: Vec<_> = Policy::ALL
            .into_iter()
            .filter(|p| p.uses_random())
            .collect();
        assert_eq!(diced, [Policy::PowerOfTwo]);
    }
}
