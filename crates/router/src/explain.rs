//! Explains the choice of a table.

use std::fmt;

use crate::{
    HostError, Query, Rule, Table, UnclearPath, grpc::is_grpc, normalize_host, path::without_query,
};

/// The evaluation of one request, rule by rule.
#[derive(Clone, Debug)]
pub struct Explanation<'t, T> {
    /// The host in normal form, if the request names one.
    pub host: Result<Option<String>, HostError>,
    /// The path without its query.
    pub path: String,
    /// The rules from the most specific on, up to the first that matches.
    pub considered: Vec<Considered<'t, T>>,
    /// How many less specific rules follow the one that matched.
    pub left_out: usize,
    /// Why the request selects no rule although one may match.
    pub unclear: Option<UnclearPath>,
}

/// A rule and its result.
#[derive(Clone, Debug)]
pub struct Considered<'t, T> {
    /// The rule's number in the table.
    pub index: usize,
    /// The rule.
    pub rule: &'t Rule<T>,
    /// Whether the rule matches, or the first condition that does not hold.
    pub verdict: Verdict,
}

/// Whether a rule matches, or the first condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Every condition holds.
    Matches,
    /// The request is for another host.
    OtherHost,
    /// The request has no valid host.
    NoHost,
    /// The path is neither the prefix nor below it.
    OtherPath,
    /// The request lacks the header.
    NoHeader {
        /// The header, in lower case.
        name: String,
    },
    /// The header has another value.
    OtherHeader {
        /// The header, in lower case.
        name: String,
        /// The value of the header, with bytes that cannot be shown escaped.
        found: String,
    },
    /// The content type is not that of gRPC.
    NotGrpc,
    /// The call is to another gRPC service or method.
    OtherGrpc,
}

impl<T> Table<T> {
    /// Tries the rules one by one, the most specific first, with the result of
    /// each. The last one is the result of [`Table::route`], if it matches.
    ///
    /// # Complexity
    /// Sorts all rules: for `explain`, not for requests.
    #[must_use]
    pub fn explain(&self, query: &Query<'_>) -> Explanation<'_, T> {
        let host = query.host.map(normalize_host).transpose();
        let path = without_query(query.path);
        let mut considered = Vec::new();
        let mut rules = self.by_rank().into_iter();
        for (index, rule) in &mut rules {
            let host = host.as_ref().ok().and_then(Option::as_deref);
            let verdict = verdict(rule, host, path, query);
            let found = verdict == Verdict::Matches;
            considered.push(Considered {
                index,
                rule,
                verdict,
            });
            if found {
                break;
            }
        }
        Explanation {
            left_out: rules.count(),
            host: host.map(|host| host.map(Into::into)),
            path: path.to_owned(),
            considered,
            unclear: self.route(query).err(),
        }
    }
}

fn verdict<T>(rule: &Rule<T>, host: Option<&str>, path: &str, query: &Query<'_>) -> Verdict {
    match (&rule.host, host) {
        (Some(_), None) => return Verdict::NoHost,
        (Some(pattern), Some(host)) if !pattern.matches(host) => return Verdict::OtherHost,
        _ => {}
    }
    if rule
        .path
        .as_ref()
        .is_some_and(|prefix| !prefix.matches(path))
    {
        return Verdict::OtherPath;
    }
    for header in &rule.headers {
        let name = header.name().to_owned();
        match (query.headers)(header.name()) {
            None => return Verdict::NoHeader { name },
            Some(value) if value != header.value().as_bytes() => {
                let found = value.escape_ascii().to_string();
                return Verdict::OtherHeader { name, found };
            }
            Some(_) => {}
        }
    }
    if let Some(grpc) = &rule.grpc {
        if !rule.any_content_type && !(query.headers)("content-type").is_some_and(is_grpc) {
            return Verdict::NotGrpc;
        }
        if !grpc.matches(path) {
            return Verdict::OtherGrpc;
        }
    }
    Verdict::Matches
}

impl<'t, T> Explanation<'t, T> {
    /// The rule that the request selects.
    #[must_use]
    pub fn chosen(&self) -> Option<&Considered<'t, T>> {
        self.considered
            .last()
            .filter(|last| last.verdict == Verdict::Matches && self.unclear.is_none())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matches => f.write_str("matches"),
            Self::OtherHost => f.write_str("no, another host"),
            Self::NoHost => f.write_str("no, the request names no host"),
            Self::OtherPath => f.write_str("no, another path"),
            Self::NoHeader { name } => write!(f, "no, the request has no header {name}"),
            Self::OtherHeader { name, found } => write!(f, "no, the header {name} is {found}"),
            Self::NotGrpc => f.write_str("no, the content type is not application/grpc"),
            Self::OtherGrpc => f.write_str("no, another gRPC method"),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Explanation<'_, T> {
    /// Writes lines of text, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Ok(Some(host)) => write!(f, "host {host}")?,
            Ok(None) => f.write_str("no host")?,
            Err(error) => write!(f, "no host ({error})")?,
        }
        writeln!(f, ", path {}", self.path)?;
        for one in &self.considered {
            let number = one.index + 1;
            writeln!(f, "  rule {number} ({}): {}", one.rule, one.verdict)?;
        }
        if self.left_out > 0 {
            let rules = if self.left_out == 1 { "rule" } else { "rules" };
            writeln!(f, "  {} less specific {rules} not checked", self.left_out)?;
        }
        if let Some(unclear) = self.unclear {
            return write!(f, "refused with status 400: {unclear}");
        }
        match self.chosen() {
            Some(one) => write!(f, "rule {} selects {}", one.index + 1, one.rule.target),
            None => f.write_str("no rule matches"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeaderMatch;

    fn table() -> Table<&'static str> {
        let mut exact = Rule::new("exact");
        exact.host = Some("app.example.com".parse().unwrap());
        exact.path = Some("/api".parse().unwrap());
        let mut header = Rule::new("header");
        header.host = Some("*.example.com".parse().unwrap());
        header.headers = vec![HeaderMatch::try_new("X-Env", "test").unwrap()];
        let mut call = Rule::new("call");
        call.grpc = Some("pkg.Echo/Say".parse().unwrap());
        let rest = Rule::new("rest");
        Table::try_new(vec![rest, call, header, exact]).unwrap()
    }

    fn verdicts(query: &Query<'_>) -> Vec<(usize, Verdict)> {
        let table = table();
        let explanation = table.explain(query);
        explanation
            .considered
            .into_iter()
            .map(|one| (one.index, one.verdict))
            .collect()
    }

    #[test]
    fn every_mismatch_has_its_reason() {
        assert_eq!(
            verdicts(&Query::new(Some("APP.example.com:80"), "/api/x?y")),
            [(3, Verdict::Matches)]
        );
        assert_eq!(
            verdicts(&Query::new(Some("app.example.com"), "/")),
            [
                (3, Verdict::OtherPath),
                (
                    2,
                    Verdict::NoHeader {
                        name: "x-env".into()
                    }
                ),
                (1, Verdict::NotGrpc),
                (0, Verdict::Matches),
            ]
        );
        let headers = |name: &str| -> Option<&[u8]> {
            match name {
                "x-env" => Some(b"prod\n"),
                "content-type" => Some(b"application/grpc"),
                _ => None,
            }
        };
        assert_eq!(
            verdicts(&Query::new(Some("b.example.com"), "/pkg.Echo/Hear").with_headers(&headers)),
            [
                (3, Verdict::OtherHost),
                (
                    2,
                    Verdict::OtherHeader {
                        name: "x-env".into(),
                        found: "prod\\n".into()
                    }
                ),
                (1, Verdict::OtherGrpc),
                (0, Verdict::Matches),
            ]
        );
        assert_eq!(
            verdicts(&Query::new(None, "/pkg.Echo/Say?x").with_headers(&headers)),
            [
                (3, Verdict::NoHost),
                (2, Verdict::NoHost),
                (1, Verdict::Matches),
            ]
        );
    }

    #[test]
    fn an_explanation_reads_as_text() {
        let table = table();
        let headers = |name: &str| (name == "x-env").then_some(&b"test"[..]);
        let query = Query::new(Some("B.example.com"), "/x?y").with_headers(&headers);
        assert_eq!(
            table.explain(&query).to_string(),
            "host b.example.com, path /x\n\
             \x20 rule 4 (host app.example.com, path /api): no, another host\n\
             \x20 rule 3 (host *.example.com, header x-env: test): matches\n\
             \x20 2 less specific rules not checked\n\
             rule 3 selects header"
        );
        let none: Table<&str> = Table::default();
        let text = none.explain(&Query::new(None, "/")).to_string();
        assert_eq!(text, "no host, path /\nno rule matches");
        let text = none.explain(&Query::new(Some("a b"), "/")).to_string();
        assert!(
            text.starts_with("no host (a host cannot contain ' '"),
            "{text}"
        );
    }

    #[test]
    fn every_verdict_has_its_own_text() {
        let name = || "x-env".to_owned();
        let verdicts = [
            (Verdict::Matches, "matches"),
            (Verdict::OtherHost, "another host"),
            (Verdict::NoHost, "names no host"),
            (Verdict::OtherPath, "another path"),
            (Verdict::NoHeader { name: name() }, "no header x-env"),
            (
                Verdict::OtherHeader {
                    name: name(),
                    found: "a".into(),
                },
                "x-env is a",
            ),
            (Verdict::NotGrpc, "application/grpc"),
            (Verdict::OtherGrpc, "another gRPC method"),
        ];
        for (verdict, words) in verdicts {
            assert!(verdict.to_string().contains(words), "{verdict}");
        }
    }
}
