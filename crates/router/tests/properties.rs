//! Promises of a table:
//! - `route` chooses the rule that a scan of all rules finds most specific;
//! - `explain` chooses the same rule, and reports no rule before it as matching;
//! - the order of the rules affects neither the choice nor whether a table is refused;
//! - a table is refused exactly when one request could match two rules of the same rank;
//! - a host in normal form stays as it is, and every way to write a host has
//!   one normal form;
//! - a written pattern is read as the same pattern;
//! - another spelling of a path selects the rule of the path, or none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{borrow::Cow, cmp::Ordering};

use adit_router::{
    GrpcPattern, HeaderMatch, HostPattern, HostRank, PathPrefix, Query, Rule, Table, TableError,
    normalize_host,
};
use proptest::prelude::*;

// Few and short names, so that rules and requests often match.
fn hosts() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|labels| labels.join("."))
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["s", "m", "sm"]), 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let value = || prop::option::of(prop::sample::select(vec!["1", "2"]));
    (value(), value()).prop_map(|(x, y)| {
        let x = x.map(|value| ("x", value));
        x.into_iter().chain(y.map(|value| ("y", value))).collect()
    })
}

fn rules() -> impl Strategy<Value = Rule<usize>> {
    (
        prop::option::of((any::<bool>(), hosts())),
        prop::option::of(paths()),
        prop::option::weighted(0.3, headers()),
        prop::option::weighted(0.3, prop::sample::select(vec!["s", "m", "s/m", "s/sm"])),
    )
        .prop_map(|(host, path, headers, grpc)| Rule {
            host: host.map(|(below, name)| {
                let text = if below { format!("*.{name}") } else { name };
                text.parse().unwrap()
            }),
            path: path.map(|path| path.parse().unwrap()),
            headers: headers
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| HeaderMatch::try_new(name, value).unwrap())
                .collect(),
            grpc: grpc.map(|grpc| grpc.parse().unwrap()),
            any_content_type: false,
            target: 0,
        })
}

#[derive(Debug, Clone)]
struct Request {
    host: Option<String>,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
}

fn requests() -> impl Strategy<Value = Request> {
    (
        prop::option::weighted(0.9, hosts()),
        paths(),
        any::<bool>(),
        headers(),
        any::<bool>(),
    )
        .prop_map(|(host, path, query, mut headers, grpc)| {
            if grpc {
                headers.push(("content-type", "application/grpc"));
            }
            Request {
                host,
                path: if query { format!("{path}?s/m") } else { path },
                headers,
            }
        })
}

impl Request {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let line = self.headers.iter().find(|(n, _)| *n == name);
        line.map(|(_, value)| value.as_bytes())
    }

    fn query<R>(&self, query: impl FnOnce(&Query<'_>) -> R) -> R {
        let headers = |name: &str| self.header(name);
        query(&Query {
            host: self.host.as_deref(),
            path: &self.path,
            headers: &headers,
        })
    }
}

// The oracle, written label by label and segment by segment on purpose.

fn labels(host: &str) -> Vec<&str> {
    host.rsplit('.').collect()
}

fn segments(path: &str) -> Vec<&str> {
    path.split('?')
        .next()
        .unwrap()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect()
}

fn meant(rule: &Rule<usize>, request: &Request) -> bool {
    let host = rule.host.as_ref().is_none_or(|pattern| {
        request.host.as_deref().is_some_and(|host| {
            let (host, name) = (labels(host), labels(pattern.name()));
            if pattern.is_wildcard() {
                host.len() > name.len() && host.starts_with(&name)
            } else {
                host == name
            }
        })
    });
    let path = rule
        .path
        .as_ref()
        .is_none_or(|path| segments(&request.path).starts_with(&segments(&path.to_string())));
    let headers = rule
        .headers
        .iter()
        .all(|header| request.header(header.name()) == Some(header.value().as_bytes()));
    let grpc = rule.grpc.as_ref().is_none_or(|grpc| {
        let call = segments(&request.path);
        request.header("content-type").is_some()
            && call.len() == 2
            && call[0] == grpc.service()
            && grpc.method().is_none_or(|method| call[1] == method)
    });
    host && path && headers && grpc
}

fn specificity(a: &Rule<usize>, b: &Rule<usize>) -> Ordering {
    let host = |rule: &Rule<usize>| match &rule.host {
        None => (0, 0),
        Some(host) if host.is_wildcard() => (1, labels(host.name()).len()),
        Some(_) => (2, 0),
    };
    let path = |rule: &Rule<usize>| {
        let path = rule.path.as_ref().map(PathPrefix::to_string);
        path.map_or(0, |path| segments(&path).len())
    };
    let grpc = |rule: &Rule<usize>| match &rule.grpc {
        None => 0,
        Some(grpc) if grpc.method().is_none() => 1,
        Some(_) => 2,
    };
    host(a)
        .cmp(&host(b))
        .then(path(a).cmp(&path(b)))
        .then(a.headers.len().cmp(&b.headers.len()))
        .then(grpc(a).cmp(&grpc(b)))
}

/// A table of the rules that it accepts, each with its position as target.
fn settled(rules: Vec<Rule<usize>>) -> (Table<usize>, Vec<Rule<usize>>) {
    let mut rules = rules;
    loop {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.target = index;
        }
        match Table::try_new(rules.clone()) {
            Ok(table) => return (table, rules),
            Err(
                TableError::Duplicate { first, second, .. }
                | TableError::Ambiguous { first, second, .. },
            ) => {
                assert!(first < second);
                rules.remove(second);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether one request, of those that the strategies above generate, could match both rules.
fn could_tie(a: &Rule<usize>, b: &Rule<usize>) -> bool {
    let same_host = a.host == b.host;
    let prefix = |rule: &Rule<usize>| rule.path.as_ref().map_or("/".into(), PathPrefix::to_string);
    let value = |rule: &Rule<usize>, name: &str| {
        let header = rule.headers.iter().find(|header| header.name() == name);
        header.map(|header| header.value().to_owned())
    };
    let headers_meet = ["x", "y"].iter().all(|name| {
        let (a, b) = (value(a, name), value(b, name));
        a.is_none() || b.is_none() || a == b
    });
    same_host
        && prefix(a) == prefix(b)
        && headers_meet
        && a.grpc == b.grpc
        && a.headers.len() == b.headers.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn route_and_explain_agree_with_a_scan(
        rules in prop::collection::vec(rules(), 0..40),
        requests in prop::collection::vec(requests(), 1..20),
    ) {
        let (table, rules) = settled(rules);
        for request in requests {
            let expected = rules
                .iter()
                .filter(|rule| meant(rule, &request))
                .max_by(|a, b| specificity(a, b))
                .map(|rule| rule.target);
            let routed = request.query(|query| {
                let found = table.route(query).unwrap();
                found.map(|found| (found.index, *found.target()))
            });
            prop_assert_eq!(routed, expected.map(|index| (index, index)));
            let (explained, tried, left_out) = request.query(|query| {
                let explanation = table.explain(query);
                let chosen = explanation.chosen().map(|one| one.index);
                (chosen, explanation.considered.len(), explanation.left_out)
            });
            prop_assert_eq!(explained, expected);
            prop_assert_eq!(tried + left_out, rules.len());
        }
    }

    #[test]
    fn the_rank_of_a_host_is_that_of_the_most_specific_pattern(
        rules in prop::collection::vec(rules(), 0..40),
        requests in prop::collection::vec(requests(), 1..20),
    ) {
        let (table, rules) = settled(rules);
        for host in requests.iter().filter_map(|request| request.host.as_deref()) {
            let patterns = rules.iter().filter_map(|rule| rule.host.as_ref());
            let expected = patterns
                .filter(|pattern| pattern.matches(host))
                .map(|pattern| match pattern.is_wildcard() {
                    true => HostRank::Below(pattern.name().len()),
                    false => HostRank::Exact,
                })
                .max();
            prop_assert_eq!(table.host_rank(host), expected.unwrap_or(HostRank::Any));
        }
    }

    #[test]
    fn the_order_of_the_rules_decides_nothing(
        rules in prop::collection::vec(rules(), 1..20),
        turn in 0_usize..20,
        requests in prop::collection::vec(requests(), 1..10),
    ) {
        let mut turned = rules.clone();
        turned.rotate_left(turn % rules.len());
        turned.reverse();
        prop_assert_eq!(
            Table::try_new(rules.clone()).is_ok(),
            Table::try_new(turned).is_ok()
        );
        let (table, mut rules) = settled(rules);
        rules.reverse();
        let reversed = Table::try_new(rules).unwrap();
        for request in requests {
            let target = |table: &Table<usize>| {
                request.query(|query| table.route(query).unwrap().map(|found| *found.target()))
            };
            prop_assert_eq!(target(&table), target(&reversed));
        }
    }

    #[test]
    fn a_table_is_refused_exactly_when_rules_could_tie(
        rules in prop::collection::vec(rules(), 0..12),
    ) {
        let tie = rules
            .iter()
            .enumerate()
            .any(|(place, a)| rules[..place].iter().any(|b| could_tie(a, b)));
        prop_assert_eq!(Table::try_new(rules).is_err(), tie);
    }

    #[test]
    fn every_way_to_write_a_host_has_one_form(
        host in "[a-z0-9_-]{1,20}(\\.[a-z0-9_-]{1,20}){0,4}",
        upper in any::<u64>(),
        dot in any::<bool>(),
        port in prop::option::of(any::<u16>()),
    ) {
        let mut written: String = host
            .char_indices()
            .map(|(i, c)| if upper >> (i % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        let lower = written == host;
        if dot {
            written.push('.');
        }
        if let Some(port) = port {
            written = format!("{written}:{port}");
        }
        let normal = normalize_host(&written).unwrap();
        prop_assert_eq!(&*normal, &host);
        prop_assert_eq!(matches!(normal, Cow::Borrowed(_)), lower);
    }

    #[test]
    fn addresses_have_one_form(bits in any::<u128>(), port in any::<u16>()) {
        let address = std::net::Ipv6Addr::from(bits);
        let long = address
            .segments()
            .map(|segment| format!("{segment:04X}"))
            .join(":");
        let written = format!("[{long}]:{port}");
        let normal = normalize_host(&written).unwrap();
        prop_assert_eq!(&*normal, format!("[{address}]"));
        let again = normalize_host(&normal).unwrap();
        prop_assert!(matches!(again, Cow::Borrowed(_)));
    }

    #[test]
    fn patterns_read_back(rule in rules()) {
        if let Some(host) = rule.host {
            prop_assert_eq!(host.to_string().parse::<HostPattern>(), Ok(host));
        }
        if let Some(path) = rule.path {
            prop_assert_eq!(path.to_string().parse::<PathPrefix>(), Ok(path));
        }
        if let Some(grpc) = rule.grpc {
            prop_assert_eq!(grpc.to_string().parse::<GrpcPattern>(), Ok(grpc));
        }
    }
}

/// One way to write a part of a path differently, as some service reads it.
#[derive(Debug, Clone, Copy)]
enum Respelling {
    None,
    Encoded,
    EncodedTwice,
    Slashes,
    EncodedSlash,
    Backslash,
    Parameter,
    Dot,
    Detour,
    EncodedDetour,
    ParameterDetour,
}

fn respellings() -> impl Strategy<Value = Vec<Respelling>> {
    use Respelling::*;
    let one = prop::sample::select(vec![
        None,
        Encoded,
        EncodedTwice,
        Slashes,
        EncodedSlash,
        Backslash,
        Parameter,
        Dot,
        Detour,
        EncodedDetour,
        ParameterDetour,
    ]);
    prop::collection::vec(one, 4)
}

fn respell(path: &str, ways: &[Respelling]) -> String {
    let segments = path
        .split('/')
        .skip(1)
        .filter(|segment| !segment.is_empty());
    let mut written = String::new();
    for (segment, way) in segments.zip(ways) {
        let encoded = |percent: &str| -> String {
            let bytes = segment.bytes();
            bytes.map(|byte| format!("{percent}{byte:02x}")).collect()
        };
        written += &match way {
            Respelling::None => format!("/{segment}"),
            Respelling::Encoded => format!("/{}", encoded("%")),
            Respelling::EncodedTwice => format!("/{}", encoded("%25")),
            Respelling::Slashes => format!("//{segment}"),
            Respelling::EncodedSlash if !written.is_empty() => format!("%2F{segment}"),
            Respelling::EncodedSlash => format!("/%2F{segment}"),
            Respelling::Backslash => format!("/\\{segment}"),
            Respelling::Parameter => format!("/{segment};m=s"),
            Respelling::Dot => format!("/./{segment}"),
            Respelling::Detour => format!("/s/../{segment}"),
            Respelling::EncodedDetour => format!("/s%2f.%2e/{segment}"),
            Respelling::ParameterDetour => format!("/s/..;/{segment}"),
        };
    }
    if written.is_empty() {
        "/".to_owned()
    } else {
        written
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// P-3.14, for each of the ways in which services read paths.
    #[test]
    fn another_spelling_selects_the_same_rule_or_none(
        rules in prop::collection::vec(rules(), 0..40),
        requests in prop::collection::vec((requests(), respellings()), 1..20),
    ) {
        let (table, rules) = settled(rules);
        let by_path = |rule: &Rule<usize>| rule.grpc.is_some() || rule.path.is_some();
        for (request, ways) in requests {
            let target = |request: &Request| {
                request.query(|query| {
                    table.route(query).map(|found| found.map(|found| *found.target()))
                })
            };
            let plain = target(&request).unwrap();
            let path = request.path.split('?').next().unwrap();
            let respelled = Request { path: respell(path, &ways), ..request.clone() };
            match target(&respelled) {
                Ok(found) => prop_assert_eq!(found, plain, "{}", respelled.path),
                Err(_) => prop_assert!(rules.iter().any(by_path)),
            }
        }
    }
}

/// A change of a table rule by rule; the table is compared with a new one.
#[derive(Debug, Clone)]
enum Change {
    Add(Rule<usize>),
    Remove(prop::sample::Index),
    Copy,
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => rules().prop_map(Change::Add),
        3 => any::<prop::sample::Index>().prop_map(Change::Remove),
        1 => Just(Change::Copy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// After any additions and removals the table routes like a new table with the remaining rules, and a copy like the
    /// table before.
    #[test]
    fn a_changed_table_routes_as_one_made_anew(
        changes in prop::collection::vec(changes(), 1..60),
        requests in prop::collection::vec(requests(), 1..10),
    ) {
        let mut table = Table::default();
        let mut present: Vec<Rule<usize>> = Vec::new();
        let mut copies = Vec::new();
        for (number, change) in changes.into_iter().enumerate() {
            match change {
                Change::Add(mut rule) => {
                    rule.target = number;
                    let tie = present.iter().any(|other| could_tie(other, &rule));
                    prop_assert_eq!(table.insert(number, rule.clone()).is_err(), tie);
                    if !tie {
                        present.push(rule);
                    }
                }
                Change::Remove(which) if !present.is_empty() => {
                    let rule = present.remove(which.index(present.len()));
                    let number = rule.target;
                    prop_assert!(table.remove(number, rule.host.as_ref(), rule.path.as_ref()));
                    prop_assert!(!table.remove(number, rule.host.as_ref(), rule.path.as_ref()));
                }
                Change::Remove(_) => {}
                Change::Copy => copies.push((table.clone(), present.clone())),
            }
        }
        copies.push((table, present));
        for (table, present) in copies {
            prop_assert_eq!(table.len(), present.len());
            let anew = Table::try_new(present).unwrap();
            for request in &requests {
                let target = |table: &Table<usize>| {
                    request.query(|query| table.route(query).unwrap().map(|found| *found.target()))
                };
                prop_assert_eq!(target(&table), target(&anew));
                let considered = |table: &Table<usize>| {
                    request.query(|query| {
                        let explanation = table.explain(query);
                        (explanation.considered.len(), explanation.left_out)
                    })
                };
                prop_assert_eq!(considered(&table), considered(&anew));
            }
        }
    }
}
