//! The hosts of the server's own rules, which no tunnel takes.

use std::collections::HashMap;

use adit_router::{HostPattern, PathPrefix, Rule};

use crate::definition::Definition;

/// The hosts of the rules of the configuration. They belong to the server, as the hosts of a tunnel belong to its user
/// (P-1.9): a tunnel gets no path below one that a rule without further conditions has, and does not open the TLS of such
/// a host or pass it through.
#[derive(Debug, Default)]
pub(super) struct RuleHosts(HashMap<HostPattern, Vec<Held>>);

/// What one rule holds of its host.
#[derive(Debug)]
struct Held {
    /// The position of the rule in the list.
    index: usize,
    /// The path below which the rule gets every request; `None` when further conditions select them.
    path: Option<PathPrefix>,
}

/// A rule, by its position in the list, and its host that a tunnel has asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldHost<'r> {
    pub(super) index: usize,
    pub(super) host: &'r HostPattern,
}

impl RuleHosts {
    pub(super) fn of<'r, T: 'r>(rules: impl Iterator<Item = &'r Rule<T>>) -> Self {
        let mut hosts: HashMap<_, Vec<_>> = HashMap::new();
        for (index, rule) in rules.enumerate() {
            let Some(host) = &rule.host else { continue };
            let is_for_all = rule.headers.is_empty() && rule.grpc.is_none();
            let path = || rule.path.clone().unwrap_or_else(PathPrefix::root);
            let path = is_for_all.then(path);
            hosts
                .entry(host.clone())
                .or_default()
                .push(Held { index, path });
        }
        Self(hosts)
    }

    /// The host of a rule that a tunnel may not have.
    ///
    /// # Cost
    /// A look-up for each host of the tunnel, and for each wildcard whose TLS the tunnel wants a look at every host.
    pub(super) fn conflict(&self, definition: &Definition) -> Option<HeldHost<'_>> {
        if self.0.is_empty() {
            return None;
        }
        let conflict = |host| {
            if definition.visitor_tls.is_some() {
                self.of_tls(host)
            } else {
                self.of_paths(host, &definition.paths)
            }
        };
        definition.hosts.iter().find_map(conflict)
    }

    /// A rule whose host a tunnel of TLS would take: the same one, or one below its wildcard. A rule for a wildcard leaves
    /// the exact hosts below it to tunnels, as it does those of HTTP.
    fn of_tls(&self, asked: &HostPattern) -> Option<HeldHost<'_>> {
        let (host, held) = if asked.is_wildcard() {
            self.0.iter().find(|(host, _)| asked.covers(host))?
        } else {
            self.0.get_key_value(asked)?
        };
        let index = held.first()?.index;
        Some(HeldHost { index, host })
    }

    fn of_paths(&self, asked: &HostPattern, paths: &[PathPrefix]) -> Option<HeldHost<'_>> {
        let (host, held) = self.0.get_key_value(asked)?;
        let takes = |held: &&Held| {
            let rule = held.path.as_ref();
            rule.is_some_and(|rule| paths.iter().any(|path| rule.matches(&path.to_string())))
        };
        let index = held.iter().find(takes)?.index;
        Some(HeldHost { index, host })
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::{ProtocolType, Tunnel, VisitorTls};

    use super::*;
    use crate::settings::Limits;

    fn rules() -> RuleHosts {
        let rule = |host: &str, path: Option<&str>| Rule {
            host: Some(host.parse().unwrap()),
            path: path.map(|path| path.parse().unwrap()),
            ..Rule::new(())
        };
        let canary = Rule {
            headers: vec![adit_router::HeaderMatch::try_new("x-env", "test").unwrap()],
            ..rule("canary.test", None)
        };
        let rules = [
            Rule::new(()),
            rule("admin.test", None),
            rule("*.app.test", None),
            rule("web.test", Some("/api")),
            canary,
        ];
        RuleHosts::of(rules.iter())
    }

    fn conflict(tunnel: &Tunnel) -> Option<usize> {
        let definition = Definition::parse(tunnel, None, &Limits::default()).unwrap();
        rules().conflict(&definition).map(|held| held.index)
    }

    fn http(host: &str, path: &str) -> Option<usize> {
        conflict(&Tunnel {
            name: "one".into(),
            protocol_type: ProtocolType::Http.into(),
            domains: vec![host.into()],
            locations: vec![path.into()],
            ..Tunnel::default()
        })
    }

    fn tls(host: &str, tls: VisitorTls) -> Option<usize> {
        conflict(&Tunnel {
            name: "one".into(),
            protocol_type: ProtocolType::Tcp.into(),
            domains: vec![host.into()],
            visitor_tls: tls.into(),
            ..Tunnel::default()
        })
    }

    #[test]
    fn p_1_9_a_tunnel_gets_no_path_below_that_of_a_rule() {
        assert_eq!(http("admin.test", "/"), Some(1));
        assert_eq!(http("admin.test", "/login"), Some(1));
        assert_eq!(http("web.test", "/api/login"), Some(3));
        assert_eq!(http("*.app.test", "/x"), Some(2));
    }

    #[test]
    fn p_1_9_what_a_rule_leaves_is_for_tunnels() {
        assert_eq!(http("web.test", "/"), None, "above the rule's path");
        assert_eq!(http("web.test", "/apis"), None, "another path");
        assert_eq!(
            http("a.app.test", "/"),
            None,
            "an exact host precedes a wildcard"
        );
        assert_eq!(
            http("canary.test", "/"),
            None,
            "the rule is for some requests"
        );
        assert_eq!(http("*.admin.test", "/"), None);
    }

    #[test]
    fn p_1_9_no_tunnel_has_the_tls_of_a_rules_host() {
        for kind in [VisitorTls::PassThrough, VisitorTls::Terminate] {
            assert_eq!(tls("admin.test", kind), Some(1));
            assert_eq!(tls("web.test", kind), Some(3), "a part of its requests");
            assert_eq!(tls("canary.test", kind), Some(4), "some of its requests");
            assert_eq!(tls("*.app.test", kind), Some(2));
            assert!(tls("*.test", kind).is_some(), "hosts below the wildcard");
            assert_eq!(
                tls("a.app.test", kind),
                None,
                "an exact host precedes a wildcard"
            );
            assert_eq!(tls("*.admin.test", kind), None);
        }
    }
}
