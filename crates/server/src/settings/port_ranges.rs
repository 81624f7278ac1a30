//! Sets of ports.

use std::{fmt, ops::RangeInclusive};

/// A set of ports, as ranges that neither touch nor overlap, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// The set of all these ports, in any order; port 0 is left out.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut ranges: Vec<_> = ranges
            .into_iter()
            .map(|range| *range.start().max(&1)..=*range.end())
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    /// Whether a port is in one of the ranges.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Number of ports.
    pub fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// The ports in ascending order, starting with the one at `index` and wrapping around.
    pub fn from_index(&self, index: usize) -> impl Iterator<Item = u16> {
        let all = || self.0.iter().cloned().flatten();
        all().skip(index).chain(all().take(index))
    }

    /// The ports that are also in `range`.
    #[must_use]
    pub fn within(&self, range: &RangeInclusive<u16>) -> Self {
        let clip = |own: &RangeInclusive<u16>| {
            *own.start().max(range.start())..=*own.end().min(range.end())
        };
        Self::new(self.0.iter().map(clip))
    }
}

impl Default for PortRanges {
    /// The ports that need no privilege.
    fn default() -> Self {
        Self::new([1024..=u16::MAX])
    }
}

impl fmt::Display for PortRanges {
    /// `1024-2000, 2222`, the form used in settings; `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{start}")?,
                (start, end) => write!(f, "{start}-{end}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_joined_and_displayed_as_written() {
        let ranges = PortRanges::new([80..=80, 20..=29, 30..=40, 25..=35, 0..=0]);
        assert_eq!(ranges.to_string(), "20-40, 80");
        assert_eq!(ranges.count(), 22);
        assert!(ranges.contains(20) && ranges.contains(40) && ranges.contains(80));
        assert!(!ranges.contains(0) && !ranges.contains(41));
        assert_eq!(PortRanges::default().to_string(), "1024-65535");
        assert_eq!(PortRanges::new([0..=u16::MAX]).count(), 65_535);
        assert_eq!(PortRanges::new([]).to_string(), "none");
        assert_eq!(
            PortRanges::new([u16::MAX..=u16::MAX, 65_534..=u16::MAX]).count(),
            2
        );
    }

    #[test]
    fn every_port_is_tried_once_whichever_is_first() {
        let ranges = PortRanges::new([1..=3, 7..=8]);
        let from = |index| ranges.from_index(index).collect::<Vec<_>>();
        assert_eq!(from(0), [1, 2, 3, 7, 8]);
        assert_eq!(from(4), [8, 1, 2, 3, 7]);
        assert_eq!(ranges.within(&(3..=7)).to_string(), "3, 7");
        assert_eq!(ranges.within(&(9..=20)).count(), 0);
    }
}
