//! Rules prepared for look-ups.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use thiserror::Error;

use crate::{
    HostPattern, HostRank, PathPrefix, Query, Rule, ShardedMap, UnclearPath, normalize_host,
    path::{ends_segment, without_query},
    reading::other_reading,
};

/// A set of rules. A clone shares them; rules added or removed afterwards do not change the clone.
#[derive(Debug)]
pub struct Table<T> {
    exact: Hosts<T>,
    /// Hosts of wildcards, by the name after `*.`.
    below: Hosts<T>,
    any: Arc<Paths<T>>,
    /// The number of keys of `below` by their length, so that a host with many labels costs no look-ups that cannot
    /// succeed.
    below_lengths: Arc<BTreeMap<usize, usize>>,
    len: usize,
}

type Hosts<T> = ShardedMap<Arc<str>, Arc<Paths<T>>>;

/// The rules of one host.
#[derive(Debug)]
struct Paths<T> {
    /// The lengths of prefixes with the number of prefixes of each; the longest first.
    lengths: Vec<(usize, usize)>,
    /// The longest prefix first, then in the order of bytes.
    buckets: Vec<Arc<Bucket<T>>>,
    /// The number of rules for gRPC.
    calls: usize,
}

/// The rules with one host and path prefix, the most specific first.
#[derive(Debug)]
struct Bucket<T> {
    prefix: Arc<str>,
    rules: Vec<Arc<Numbered<T>>>,
}

#[derive(Debug)]
struct Numbered<T> {
    index: usize,
    rule: Rule<T>,
}

/// Why rules are rejected. Numbers of rules count from 0, in messages from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// Two rules have the same conditions.
    #[error(
        "rules {} and {} match the same requests ({conditions}); remove one of them",
        .first + 1, .second + 1
    )]
    Duplicate {
        /// The earlier rule.
        first: usize,
        /// The later rule.
        second: usize,
        /// The conditions of both rules, as text.
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
        /// Conditions of the earlier rule, as text.
        first_conditions: String,
        /// Conditions of the later rule, as text.
        second_conditions: String,
    },
    /// A rule has two conditions for one header.
    #[error("rule {} has two conditions for the header {name}; name each header once", .rule + 1)]
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
    /// The rule's number: its position in the list of the table, or the number with which it was added.
    pub index: usize,
    /// The rule.
    pub rule: &'t Rule<T>,
}

impl<'t, T> Match<'t, T> {
    /// The target of the rule.
    #[must_use]
    pub fn target(&self) -> &'t T {
        &self.rule.target
    }
}

impl<T> Default for Table<T> {
    /// A table without rules, which routes nothing.
    fn default() -> Self {
        Self {
            exact: ShardedMap::default(),
            below: ShardedMap::default(),
            any: Arc::default(),
            below_lengths: Arc::default(),
            len: 0,
        }
    }
}

// `Clone` is not derived: targets need not implement `Clone`.
impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            below: self.below.clone(),
            any: Arc::clone(&self.any),
            below_lengths: Arc::clone(&self.below_lengths),
            len: self.len,
        }
    }
}

impl<T> Table<T> {
    /// A table of `rules`, in any order.
    ///
    /// # Errors
    /// Rules that contradict each other, see [`TableError`].
    ///
    /// # Complexity
    /// The sum of the complexities of adding each rule.
    pub fn try_new(rules: Vec<Rule<T>>) -> Result<Self, TableError> {
        let mut table = Self::default();
        for (index, rule) in rules.into_iter().enumerate() {
            table.insert(index, rule)?;
        }
        Ok(table)
    }

    /// Adds a rule with a number, by which it is reported and removed. Numbers may have gaps; they should be unique.
    ///
    /// # Errors
    /// [`TableError`] when a request could match the rule and another one of the same rank; the table is unchanged
    /// then.
    ///
    /// # Complexity
    /// Compares the rule with those of the same host, path and rank. Copies the
    /// rules of its host, and the keys of some tens of hosts, if a clone of the
    /// table shares them.
    pub fn insert(&mut self, index: usize, rule: Rule<T>) -> Result<(), TableError> {
        check_headers(index, &rule)?;
        let known = match &rule.host {
            None => Some(&self.any),
            Some(host) => self.hosts(host).get(host.name()),
        };
        if let Some(bucket) = known.and_then(|paths| paths.bucket(rule.prefix())) {
            let equals = bucket.rules.iter();
            for equal in equals.filter(|other| other.rule.rank() == rule.rank()) {
                check_pair((equal.index, &equal.rule), (index, &rule))?;
            }
        }
        let paths = match &rule.host {
            None => &mut self.any,
            Some(host) => {
                let (hosts, new) = if host.is_wildcard() {
                    let new = self.below.get(host.name()).is_none();
                    (&mut self.below, new)
                } else {
                    (&mut self.exact, false)
                };
                if new {
                    let lengths = Arc::make_mut(&mut self.below_lengths);
                    *lengths.entry(host.name().len()).or_default() += 1;
                }
                hosts.get_or_insert_with(host.shared_name(), Arc::default)
            }
        };
        Arc::make_mut(paths).insert(Numbered { index, rule });
        self.len += 1;
        Ok(())
    }

    /// Removes the rule with this number, host and path. Returns whether there was one.
    ///
    /// # Complexity
    /// The same complexity as adding the rule.
    pub fn remove(
        &mut self,
        index: usize,
        host: Option<&HostPattern>,
        path: Option<&PathPrefix>,
    ) -> bool {
        let prefix = path.map_or("", PathPrefix::trimmed);
        let Some(host) = host else {
            let found = Arc::make_mut(&mut self.any).remove(index, prefix);
            self.len -= usize::from(found);
            return found;
        };
        let hosts = if host.is_wildcard() {
            &mut self.below
        } else {
            &mut self.exact
        };
        let Some(paths) = hosts.get_mut(host.name()) else {
            return false;
        };
        let paths = Arc::make_mut(paths);
        let found = paths.remove(index, prefix);
        if paths.buckets.is_empty() {
            hosts.remove(host.name());
            if host.is_wildcard() {
                let lengths = Arc::make_mut(&mut self.below_lengths);
                let length = host.name().len();
                let left = lengths.get(&length).map_or(0, |count| count - 1);
                if left == 0 {
                    lengths.remove(&length);
                } else {
                    lengths.insert(length, left);
                }
            }
        }
        self.len -= usize::from(found);
        found
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn hosts(&self, host: &HostPattern) -> &Hosts<T> {
        if host.is_wildcard() {
            &self.below
        } else {
            &self.exact
        }
    }

    /// The most specific rule that matches.
    ///
    /// # Errors
    /// Rules by path or gRPC apply to the host, and a service could read the path as one for another rule.
    ///
    /// # Complexity
    /// See the crate's contract.
    pub fn route(&self, query: &Query<'_>) -> Result<Option<Match<'_, T>>, UnclearPath> {
        let host = query.host.and_then(|host| normalize_host(host).ok());
        let host = host.as_deref();
        let path = without_query(query.path);
        let mut depends_on_path = false;
        let found = self.of_host(host).find_map(|paths| {
            depends_on_path |= paths.depend_on_path();
            paths.find(path, query)
        });
        if depends_on_path {
            // Also after a `#`, which no service has to take for the end of the path.
            let path = query
                .path
                .split_once('?')
                .map_or(query.path, |(path, _)| path);
            if let Some(reading) = other_reading(path)? {
                let mut all = self.of_host(host);
                let other = all.find_map(|paths| paths.find(&reading, query));
                if other.map(std::ptr::from_ref) != found.map(std::ptr::from_ref) {
                    return Err(UnclearPath::OtherRule);
                }
            }
        }
        Ok(found.map(|found| Match {
            index: found.index,
            rule: &found.rule,
        }))
    }

    /// The rules that may match a host, those of the most specific pattern first.
    fn of_host<'h>(
        &self,
        host: Option<&'h str>,
    ) -> impl Iterator<Item = &Paths<T>> + use<'_, 'h, T> {
        let exact = host.and_then(|host| self.exact.get(host));
        let below = host.into_iter().flat_map(|host| self.names_above(host));
        exact
            .into_iter()
            .map(|paths| &**paths)
            .chain(below.map(|(_, paths)| paths))
            .chain(std::iter::once(&*self.any))
    }

    /// The names of wildcards that match a host, with their rules.
    fn names_above<'h>(
        &self,
        host: &'h str,
    ) -> impl Iterator<Item = (&'h str, &Paths<T>)> + use<'_, 'h, T> {
        let shortest = self.below_lengths.first_key_value();
        let longest = self.below_lengths.last_key_value();
        let lengths = shortest.zip(longest);
        let lengths = lengths.map(|((shortest, _), (longest, _))| *shortest..=*longest);
        // The search begins from the left, so that the longest name, which is the most specific, is first.
        lengths
            .into_iter()
            .flat_map(move |lengths| {
                let names = host.match_indices('.');
                let names = names.filter_map(|(dot, _)| host.get(dot + 1..));
                names.filter(move |name| lengths.contains(&name.len()))
            })
            .filter_map(|name| Some((name, &**self.below.get(name)?)))
    }

    /// How specific the most specific host of the table is that matches this one; [`HostRank::Any`] when only rules without
    /// a host can match.
    ///
    /// # Complexity
    /// That of [`Table::route`], without the paths.
    #[must_use]
    pub fn host_rank(&self, host: &str) -> HostRank {
        let Ok(host) = normalize_host(host) else {
            return HostRank::Any;
        };
        if self.exact.get(&*host).is_some() {
            return HostRank::Exact;
        }
        let longest = self.names_above(&host).next();
        longest.map_or(HostRank::Any, |(name, _)| HostRank::Below(name.len()))
    }

    /// All rules, the most specific first.
    pub(crate) fn by_rank(&self) -> Vec<(usize, &Rule<T>)> {
        let hosts = self.exact.iter().chain(self.below.iter());
        let paths = hosts.map(|(_, paths)| paths).chain([&self.any]);
        let buckets = paths.flat_map(|paths| &paths.buckets);
        let mut rules: Vec<_> = buckets
            .flat_map(|bucket| &bucket.rules)
            .map(|one| (one.index, &one.rule))
            .collect();
        rules.sort_by_key(|(index, rule)| (Reverse(rule.rank()), *index));
        rules
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self {
            lengths: Vec::new(),
            buckets: Vec::new(),
            calls: 0,
        }
    }
}

impl<T> Clone for Paths<T> {
    fn clone(&self) -> Self {
        Self {
            lengths: self.lengths.clone(),
            buckets: self.buckets.clone(),
            calls: self.calls,
        }
    }
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        Self {
            prefix: Arc::clone(&self.prefix),
            rules: self.rules.clone(),
        }
    }
}

impl<T> Paths<T> {
    /// Whether the path of a request decides between the rules, or whether one of them matches.
    fn depend_on_path(&self) -> bool {
        self.calls > 0
            || self
                .lengths
                .first()
                .is_some_and(|(longest, _)| *longest > 0)
    }

    fn find(&self, path: &str, query: &Query<'_>) -> Option<&Numbered<T>> {
        self.lengths
            .iter()
            .filter(|(length, _)| ends_segment(path, *length))
            .filter_map(|(length, _)| self.bucket(path.get(..*length)?))
            .flat_map(|bucket| &bucket.rules)
            .find(|one| one.rule.details_match(path, query.headers))
            .map(Arc::as_ref)
    }

    fn bucket(&self, prefix: &str) -> Option<&Bucket<T>> {
        let place = self.place(prefix).ok()?;
        self.buckets.get(place).map(Arc::as_ref)
    }

    /// The position of the bucket of a prefix, or where it would be inserted.
    fn place(&self, prefix: &str) -> Result<usize, usize> {
        self.buckets.binary_search_by(|bucket| {
            let known = &*bucket.prefix;
            // The length is compared first: most comparisons end there.
            prefix
                .len()
                .cmp(&known.len())
                .then_with(|| known.cmp(prefix))
        })
    }

    fn place_of_length(&self, length: usize) -> Result<usize, usize> {
        self.lengths
            .binary_search_by(|(known, _)| length.cmp(known))
    }

    fn insert(&mut self, one: Numbered<T>) {
        self.calls += usize::from(one.rule.grpc.is_some());
        let place = match self.place(one.rule.prefix()) {
            Ok(place) => place,
            Err(place) => {
                let path = one.rule.path.as_ref();
                let prefix = path.map_or_else(|| "".into(), PathPrefix::shared);
                match self.place_of_length(prefix.len()) {
                    Ok(known) => self.lengths[known].1 += 1,
                    Err(new) => self.lengths.insert(new, (prefix.len(), 1)),
                }
                let rules = Vec::with_capacity(1);
                self.buckets
                    .insert(place, Arc::new(Bucket { prefix, rules }));
                place
            }
        };
        let rules = &mut Arc::make_mut(&mut self.buckets[place]).rules;
        let key = |one: &Numbered<T>| (Reverse(one.rule.rank()), one.index);
        let place = rules.partition_point(|other| key(other) < key(&one));
        rules.insert(place, Arc::new(one));
    }

    fn remove(&mut self, index: usize, prefix: &str) -> bool {
        let Ok(place) = self.place(prefix) else {
            return false;
        };
        let rules = &mut Arc::make_mut(&mut self.buckets[place]).rules;
        let before = rules.len();
        let mut calls = 0;
        rules.retain(|one| {
            let leaves = one.index == index;
            calls += usize::from(leaves && one.rule.grpc.is_some());
            !leaves
        });
        self.calls -= calls;
        let found = rules.len() != before;
        if rules.is_empty() {
            self.buckets.remove(place);
            if let Ok(length) = self.place_of_length(prefix.len()) {
                self.lengths[length].1 -= 1;
                if self.lengths[length].1 == 0 {
                    self.lengths.remove(length);
                }
            }
        }
        found
    }
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

/// Rejects two rules of one host, path and rank if one request could match both. Both have the same number of headers,
/// each name once.
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
    // Two rules of equal rank have a gRPC service both, a method both, or neither.
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
