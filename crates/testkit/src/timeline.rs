//! A queue of events by time.

use std::{collections::BTreeMap, time::Duration};

/// Entries by the time at which they fall due; at the same time, in the order in which they were put in.
#[derive(Debug)]
pub struct Timeline<T> {
    entries: BTreeMap<(Duration, u64), T>,
    next: u64,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> Timeline<T> {
    /// An empty timeline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an entry at a time since the start.
    pub fn put(&mut self, at: Duration, entry: T) {
        self.entries.insert((at, self.next), entry);
        self.next += 1;
    }

    /// When the next entry falls due.
    pub fn next_at(&self) -> Option<Duration> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next entry that is due at `now`.
    pub fn take_due(&mut self, now: Duration) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, entry)| entry)
    }

    /// Number of entries that are not due yet or have not been taken.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the timeline has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_times() {
        let at = Duration::from_millis;
        let mut timeline = Timeline::new();
        assert!(timeline.is_empty() && timeline.next_at().is_none());
        for (time, name) in [(5, "c"), (2, "a"), (5, "d"), (3, "b")] {
            timeline.put(at(time), name);
        }
        assert_eq!((timeline.len(), timeline.next_at()), (4, Some(at(2))));
        assert_eq!(timeline.take_due(at(1)), None);
        assert_eq!(timeline.take_due(at(2)), Some("a"));
        assert_eq!(timeline.take_due(at(2)), None);
        let rest: Vec<_> = std::iter::from_fn(|| timeline.take_due(at(9))).collect();
        assert_eq!(rest, ["b", "c", "d"]);
    }
}
