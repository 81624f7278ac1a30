//! Names of the policies that share visitors among clients.

pub(super) const POLICIES: [&str; 6] = [
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "consistent_hash",
    "ip_hash",
    "power_of_two",
];
