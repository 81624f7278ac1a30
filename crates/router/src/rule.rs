//! One rule: its conditions, and how specific it is.

use std::fmt;

use crate::{GrpcPattern, HeaderMatch, HostPattern, PathPrefix, grpc::is_grpc};

/// A match and the target that it selects. A condition that is absent holds
/// for every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<T> {
    /// The hosts that match.
    pub host: Option<HostPattern>,
    /// The paths that match. `/` matches all, like `None`.
    pub path: Option<PathPrefix>,
    /// Headers that the request must have; each name at most once.
    pub headers: Vec<HeaderMatch>,
    /// The gRPC service or method that matches; plain HTTP to the same path does
    /// not, unless `any_content_type` is set.
    pub grpc: Option<GrpcPattern>,
    /// Whether the path alone makes a request one of `grpc`: for a rule that decides who is admitted, which another
    /// content type must not avoid.
    pub any_content_type: bool,
    /// The target of the rule.
    pub target: T,
}

impl<T> Rule<T> {
    /// A rule that selects `target` for every request; set its fields to add conditions.
    #[must_use]
    pub fn new(target: T) -> Self {
        Self {
            host: None,
            path: None,
            headers: Vec::new(),
            grpc: None,
            any_content_type: false,
            target,
        }
    }

    /// The path prefix without the slash at its end; empty if every path matches.
    pub(crate) fn prefix(&self) -> &str {
        self.path.as_ref().map_or("", PathPrefix::trimmed)
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank {
            host: match &self.host {
                None => HostRank::Any,
                Some(host) if host.is_wildcard() => HostRank::Below(host.name().len()),
                Some(_) => HostRank::Exact,
            },
            prefix: self.prefix().len(),
            headers: self.headers.len(),
            grpc: match &self.grpc {
                None => GrpcRank::Any,
                Some(grpc) if grpc.method().is_none() => GrpcRank::Service,
                Some(_) => GrpcRank::Method,
            },
        }
    }

    /// Whether the conditions besides host and path hold. `path` has no query.
    pub(crate) fn details_match<'q>(
        &self,
        path: &str,
        headers: &dyn Fn(&str) -> Option<&'q [u8]>,
    ) -> bool {
        self.headers
            .iter()
            .all(|header| headers(header.name()) == Some(header.value().as_bytes()))
            && self.grpc.as_ref().is_none_or(|grpc| {
                grpc.matches(path)
                    && (self.any_content_type || headers("content-type").is_some_and(is_grpc))
            })
    }
}

/// How specific a rule is. The fields and variants are in order of precedence, which the derived order follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    host: HostRank,
    prefix: usize,
    headers: usize,
    grpc: GrpcRank,
}

/// How specific the host of a rule is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRank {
    /// Every host.
    Any,
    /// A wildcard below a name of this many bytes: two wildcards that match one host differ in them.
    Below(usize),
    /// One host.
    Exact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GrpcRank {
    Any,
    Service,
    Method,
}

impl<T> fmt::Display for Rule<T> {
    /// Writes the conditions, not the target.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(host) = &self.host {
            write!(f, "host {host}")?;
            separator = ", ";
        }
        if let Some(path) = &self.path {
            write!(f, "{separator}path {path}")?;
            separator = ", ";
        }
        for header in &self.headers {
            write!(f, "{separator}header {header}")?;
            separator = ", ";
        }
        if let Some(grpc) = &self.grpc {
            write!(f, "{separator}grpc {grpc}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("every request")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, path: &str, headers: usize, grpc: &str) -> Rule<()> {
        let mut rule = Rule::new(());
        rule.host = (!host.is_empty()).then(|| host.parse().unwrap());
        rule.path = (!path.is_empty()).then(|| path.parse().unwrap());
        rule.headers = (0..headers)
            .map(|n| HeaderMatch::try_new(&format!("x-{n}"), "v").unwrap())
            .collect();
        rule.grpc = (!grpc.is_empty()).then(|| grpc.parse().unwrap());
        rule
    }

    #[test]
    fn more_specific_rules_rank_higher() {
        let ascending = [
            rule("", "", 0, ""),
            rule("", "", 0, "a"),
            rule("", "", 0, "a/b"),
            rule("", "", 1, ""),
            rule("", "", 2, ""),
            rule("", "/a", 0, ""),
            rule("", "/a/b", 0, ""),
            rule("*.b", "", 0, ""),
            rule("*.a.b", "", 0, ""),
            rule("x", "", 0, ""),
            rule("x", "", 0, "a/b"),
            rule("x", "", 3, ""),
            rule("x", "/a", 0, ""),
        ];
        assert!(ascending.is_sorted_by(|a, b| a.rank() < b.rank()));
        assert_eq!(rule("", "/", 0, "").rank(), rule("", "", 0, "").rank());
    }

    #[test]
    fn a_rule_is_shown_as_its_conditions() {
        assert_eq!(Rule::new(1).to_string(), "every request");
        assert_eq!(
            rule("*.a", "/p/", 2, "s/M").to_string(),
            "host *.a, path /p, header x-0: v, header x-1: v, grpc s/M"
        );
        assert_eq!(rule("", "", 1, "").to_string(), "header x-0: v");
        assert_eq!(rule("", "", 0, "s").to_string(), "grpc s");
        assert_eq!(rule("", "/", 0, "").to_string(), "path /");
    }

    #[test]
    fn headers_and_grpc_must_all_hold() {
        let matches = |rule: &Rule<()>, path: &str, given: &[(&str, &str)]| {
            rule.details_match(path, &|name| {
                given
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| value.as_bytes())
            })
        };
        let two = rule("", "", 2, "");
        assert!(matches(&two, "/", &[("x-0", "v"), ("x-1", "v")]));
        assert!(!matches(&two, "/", &[("x-0", "v"), ("x-1", "V")]));
        assert!(!matches(&two, "/", &[("x-1", "v")]));
        let call = rule("", "", 0, "s/M");
        assert!(matches(
            &call,
            "/s/M",
            &[("content-type", "application/grpc")]
        ));
        assert!(!matches(
            &call,
            "/s/N",
            &[("content-type", "application/grpc")]
        ));
        assert!(!matches(&call, "/s/M", &[("content-type", "text/html")]));
        assert!(!matches(&call, "/s/M", &[]));
        let guarding = Rule {
            any_content_type: true,
            ..call
        };
        assert!(matches(&guarding, "/s/M", &[("content-type", "text/html")]));
        assert!(matches(&guarding, "/s/M", &[]));
        assert!(!matches(&guarding, "/s/N", &[]));
        assert!(matches(&rule("", "", 0, ""), "/", &[]));
    }
}
