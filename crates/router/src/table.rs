//! Rules made ready for look-up.

use std::{cmp::Reverse, collections::HashMap};

use thiserror::Error;

use crate::{
    HostPattern, Query, Rule, normalize_host,
    path::{ends_segment, without_query},
};

/// An immutable set of rules.
#[derive(Clone, Debug)]
pub struct Table<T> {
    rules: Box<[Rule<T>]>,
    /// Indices of all rules, the most specific first.
    by_rank: Box<[usize]>,
    exact: HashMap<Box<str>, Paths>,
    /// By the name that follows `*.`.
    below: HashMap<Box<str>, Paths>,
    any: Paths,
    /// Lengths of the shortest and the longest key of `below`, so that a host
    /// of many labels costs no look-ups that cannot succeed.
    below_lengths: Option<(usize, usize)>,
}

/// The rules of one host.
#[derive(Clone, Debug, Default)]
struct Paths {
    /// The different lengths of prefixes, the longest first.
    lengths: Box<[usize]>,
    /// Rules by prefix, the most specific first.
    rules: HashMap<Box<str>, Vec<usize>>,
}

/// Why rules do not make a table. Indices count from 0, messages from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// Two rules ask the same.
    #[error(
        "rules {} and {} match the same requests ({conditions}); remove one of them",
        .first + 1, .second + 1
    )]
    Duplicate {
        /// The earlier rule.
        first: usize,
        /// The later rule.
        second: usize,
        /// What both ask, in words.
        conditions: String,
    },
    /// A request could match two rules, and neither is more specific.
    #[error(
        "a request can match both rule {} ({first_conditions}) and rule {} \
         ({second_conditions}), and neither is more specific; give one of them a further header \
         or a longer path",
        .first + 1, .second + 1
    )]
    Ambiguous {
        /// The earlier rule.
        first: usize,
        /// The later rule.
        second: usize,
        /// What the earlier asks, in words.
        first_conditions: String,
        /// What the later asks, in words.
        second_conditions: String,
    },
    /// A rule asks for one header twice.
    #[error("rule {} asks twice for the header {name}; name each header once", .rule + 1)]
    RepeatedHeader {
        /// The rule.
        rule: usize,
        /// The header, in lower case.
        name: String,
    },
}

/// The rule that a request selects.
#[derive(Debug)]
pub struct Match<'t, T> {
    /// The rule's place in the list that made the table.
    pub index: usize,
    /// The rule.
    pub rule: &'t Rule<T>,
}

impl<'t, T> Match<'t, T> {
    /// What the rule selects.
    #[must_use]
    pub fn target(&self) -> &'t T {
        &self.rule.target
    }
}

impl<T> Default for Table<T> {
    /// A table without rules, which routes nothing.
    fn default() -> Self {
        Self {
            rules: Box::default(),
            by_rank: Box::default(),
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Paths::default(),
            below_lengths: None,
        }
    }
}

impl<T> Table<T> {
    /// A table of `rules`, whose order means nothing.
    ///
    /// # Errors
    /// Rules between which a request could not decide, see [`TableError`].
    ///
    /// # Complexity
    /// Rules with the same host and path are compared with each other, pair by
    /// pair; otherwise as sorting.
    pub fn try_new(rules: Vec<Rule<T>>) -> Result<Self, TableError> {
        let mut by_rank: Vec<usize> = (0..rules.len()).collect();
        by_rank.sort_by_key(|&index| (rules.get(index).map(Rule::rank).map(Reverse), index));
        let mut table = Self {
            by_rank: by_rank.into(),
            ..Self::default()
        };
        for &index in &table.by_rank {
            let Some(rule) = rules.get(index) else {
                continue;
            };
            check_headers(index, rule)?;
            let paths = match &rule.host {
                None => &mut table.any,
                Some(host) if host.is_wildcard() => entry(&mut table.below, host),
                Some(host) => entry(&mut table.exact, host),
            };
            let bucket = paths.rules.entry(rule.prefix().into()).or_default();
            // From the highest rank down: those of equal rank are at the end.
            let equals = bucket
                .iter()
                .rev()
                .filter_map(|&earlier| Some((earlier, rules.get(earlier)?)))
                .take_while(|(_, earlier)| earlier.rank() == rule.rank());
            for (earlier, other) in equals {
                check_pair((earlier, other), (index, rule))?;
            }
            bucket.push(index);
        }
        let hosts = table.exact.values_mut().chain(table.below.values_mut());
        for paths in hosts.chain([&mut table.any]) {
            paths.note_lengths();
        }
        let lengths = || table.below.keys().map(|name| name.len());
        table.below_lengths = lengths().min().zip(lengths().max());
        table.rules = rules.into();
        Ok(table)
    }

    /// The rules in the order given.
    #[must_use]
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }

    /// The most specific rule that matches.
    ///
    /// # Complexity
    /// See the crate's contract.
    #[must_use]
    pub fn route(&self, query: &Query<'_>) -> Option<Match<'_, T>> {
        let host = query.host.and_then(|host| normalize_host(host).ok());
        let path = without_query(query.path);
        let index = host
            .as_deref()
            .and_then(|host| {
                self.exact
                    .get(host)
                    .and_then(|paths| self.find(paths, path, query))
                    .or_else(|| self.find_below(host, path, query))
            })
            .or_else(|| self.find(&self.any, path, query))?;
        let rule = self.rules.get(index)?;
        Some(Match { index, rule })
    }

    fn find_below(&self, host: &str, path: &str, query: &Query<'_>) -> Option<usize> {
        let (shortest, longest) = self.below_lengths?;
        // From the left: the longest name, and so the most specific, first.
        host.match_indices('.')
            .filter_map(|(dot, _)| host.get(dot + 1..))
            .filter(|name| (shortest..=longest).contains(&name.len()))
            .filter_map(|name| self.below.get(name))
            .find_map(|paths| self.find(paths, path, query))
    }

    fn find(&self, paths: &Paths, path: &str, query: &Query<'_>) -> Option<usize> {
        paths
            .lengths
            .iter()
            .filter(|&&length| ends_segment(path, length))
            .filter_map(|&length| paths.rules.get(path.get(..length)?))
            .flatten()
            .copied()
            .find(|&index| {
                self.rules
                    .get(index)
                    .is_some_and(|rule| rule.details_match(path, query.headers))
            })
    }

    /// All rules, the most specific first.
    pub(crate) fn by_rank(&self) -> impl Iterator<Item = (usize, &Rule<T>)> {
        self.by_rank
            .iter()
            .filter_map(|&index| Some((index, self.rules.get(index)?)))
    }
}

impl Paths {
    fn note_lengths(&mut self) {
        let mut lengths: Vec<usize> = self.rules.keys().map(|prefix| prefix.len()).collect();
        lengths.sort_unstable_by_key(|&length| Reverse(length));
        lengths.dedup();
        self.lengths = lengths.into();
    }
}

fn entry<'h>(hosts: &'h mut HashMap<Box<str>, Paths>, host: &HostPattern) -> &'h mut Paths {
    hosts.entry(host.name().into()).or_default()
}

fn check_headers<T>(index: usize, rule: &Rule<T>) -> Result<(), TableError> {
    for (position, header) in rule.headers.iter().enumerate() {
        let before = rule.headers.iter().take(position);
        if before
            .into_iter()
            .any(|other| other.name() == header.name())
        {
            return Err(TableError::RepeatedHeader {
                rule: index,
                name: header.name().to_owned(),
            });
        }
    }
    Ok(())
}

/// Refuses two rules of one host, path and rank that one request could match.
/// Both have equally many headers, each name once.
fn check_pair<T>(one: (usize, &Rule<T>), other: (usize, &Rule<T>)) -> Result<(), TableError> {
    let ((first, a), (second, b)) = if one.0 < other.0 {
        (one, other)
    } else {
        (other, one)
    };
    let apart = a.headers.iter().any(|header| {
        b.headers
            .iter()
            .any(|other| other.name() == header.name() && other.value() != header.value())
    });
    // Of equal rank: both a service, both a method or both none.
    if apart || a.grpc != b.grpc {
        return Ok(());
    }
    Err(
        if a.headers.iter().all(|header| b.headers.contains(header)) {
            TableError::Duplicate {
                first,
                second,
                conditions: a.to_string(),
            }
        } else {
            TableError::Ambiguous {
                first,
                second,
                first_conditions: a.to_string(),
                second_conditions: b.to_string(),
            }
        },
    )
}

#[cfg(test)]
mod tests;
