//! The kinds of failure of a request.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Why a request does not count as completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection could not be opened.
    Connect,
    /// The request could not be sent.
    Write,
    /// The response could not be read.
    Read,
    /// The connection ended before the response did.
    Cut,
    /// The response is not HTTP/1.1 with a content-length.
    Unreadable,
    /// The response has a status other than 200.
    Status,
    /// The body differs from what the service sent.
    WrongBytes,
    /// There was no response before the end of the grace after the run.
    Unfinished,
    /// The request was due in the open loop, but every connection was busy until the end.
    Unsent,
    /// There was no response within the time limit that the scenario sets for each exchange.
    Timeout,
    /// An event of a stream was missing, duplicated or out of order.
    Sequence,
    /// The other side closed with 1001 (Going Away) while a response was due (WebSocket).
    GoingAway,
}

impl Failure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Connect,
        Self::Write,
        Self::Read,
        Self::Cut,
        Self::Unreadable,
        Self::Status,
        Self::WrongBytes,
        Self::Unfinished,
        Self::Unsent,
        Self::Timeout,
        Self::Sequence,
        Self::GoingAway,
    ];

    /// The name in scenarios and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Write => "write",
            Self::Read => "read",
            Self::Cut => "cut",
            Self::Unreadable => "unreadable",
            Self::Status => "status",
            Self::WrongBytes => "wrong_bytes",
            Self::Unfinished => "unfinished",
            Self::Unsent => "unsent",
            Self::Timeout => "timeout",
            Self::Sequence => "sequence",
            Self::GoingAway => "going_away",
        }
    }
}

/// A failure with its kind and details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: Failure,
    pub(crate) detail: Option<String>,
}

impl Failed {
    /// Creates a failure with a text. There should be few different texts: reports count equal texts together.
    pub(crate) fn new(kind: Failure, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            detail: Some(detail.to_string()),
        }
    }
}

impl From<Failure> for Failed {
    fn from(kind: Failure) -> Self {
        Self { kind, detail: None }
    }
}

/// How many requests failed, by kind.
#[derive(Debug, Default)]
pub(crate) struct Failures([AtomicU64; Failure::ALL.len()]);

impl Failures {
    /// Counts `many` failures of one kind.
    pub(crate) fn add(&self, failure: Failure, many: u64) {
        self.0[failure as usize].fetch_add(many, Relaxed);
    }

    /// The number of all failures.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The number of failures of one kind.
    pub(crate) fn of(&self, kind: Failure) -> u64 {
        self.0[kind as usize].load(Relaxed)
    }

    /// The failures of all other kinds.
    pub(crate) fn without(&self, kinds: &[Failure]) -> Self {
        let rest = self.clone();
        for kind in kinds {
            rest.0[*kind as usize].store(0, Relaxed);
        }
        rest
    }

    /// The kinds of which there was at least one failure.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = Failure::ALL
            .iter()
            .map(|kind| (kind.name(), self.0[*kind as usize].load(Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }
}

impl Clone for Failures {
    fn clone(&self) -> Self {
        Self(std::array::from_fn(|kind| {
            AtomicU64::new(self.0[kind].load(Relaxed))
        }))
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self
            .seen()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        f.write_str(if kinds.is_empty() { "none" } else { "" })?;
        f.write_str(&kinds.join(", "))
    }
}

impl Serialize for Failures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.seen() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place() {
        let failures = Failures::default();
        for (many, kind) in (1..).zip(Failure::ALL) {
            failures.add(kind, many);
        }
        assert_eq!(failures.total(), 78);
        let counts: Vec<u64> = failures.seen().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let copy = failures.clone();
        failures.add(Failure::Cut, 1);
        assert_eq!((copy.total(), failures.total()), (78, 79));
    }

    #[test]
    fn only_failures_that_happened_are_reported() {
        let failures = Failures::default();
        assert_eq!(failures.to_string(), "none");
        failures.add(Failure::WrongBytes, 2);
        failures.add(Failure::Cut, 1);
        assert_eq!(failures.to_string(), "1 cut, 2 wrong_bytes");
        assert_eq!(
            serde_json::to_string(&failures).unwrap(),
            r#"{"cut":1,"wrong_bytes":2}"#
        );
    }
}
