//! Arbitrary hosts and patterns: no input causes a panic, and accepted input has
//! the promised form.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::borrow::Cow;

use adit_router::{GrpcPattern, HostPattern, PathPrefix, Query, Rule, Table, normalize_host};
use bolero::check;

/// Turns the bytes into letters of hosts, which fuzzers seldom produce by chance.
fn hostlike(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"aZ0-_.:[]*/1f%@ ";
    bytes
        .iter()
        .map(|&byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
        .collect()
}

fn texts(bytes: &[u8]) -> [Cow<'_, str>; 2] {
    [String::from_utf8_lossy(bytes), hostlike(bytes).into()]
}

#[test]
fn a_normal_host_is_short_lower_case_and_stays() {
    check!().for_each(|bytes: &[u8]| {
        for text in texts(bytes) {
            let Ok(host) = normalize_host(&text) else {
                continue;
            };
            assert!(!host.is_empty() && host.len() <= 253);
            let legal =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.:[]".contains(&b);
            assert!(host.bytes().all(legal), "{host}");
            if !host.starts_with('[') {
                assert!(
                    host.split('.').all(|l| (1..=63).contains(&l.len())),
                    "{host}"
                );
                assert!(!host.contains(':'), "{host}");
            }
            assert!(matches!(normalize_host(&host), Ok(Cow::Borrowed(same)) if same == host));
        }
    });
}

#[test]
fn a_pattern_reads_back_and_matches_what_it_names() {
    check!().for_each(|bytes: &[u8]| {
        for text in texts(bytes) {
            let Ok(pattern) = text.parse::<HostPattern>() else {
                continue;
            };
            assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern);
            assert_eq!(pattern.matches(pattern.name()), !pattern.is_wildcard());
            let below = format!("x.{}", pattern.name());
            assert_eq!(pattern.matches(&below), pattern.is_wildcard());
        }
    });
}

#[test]
fn route_and_explain_agree_on_any_request() {
    let mut host = Rule::new("host");
    host.host = Some("*.a0".parse().unwrap());
    let mut path = Rule::new("path");
    path.path = Some("/a".parse().unwrap());
    let mut grpc = Rule::new("grpc");
    grpc.grpc = Some("a.Z/f".parse().unwrap());
    let table = Table::try_new(vec![host, path, grpc]).unwrap();
    check!().for_each(|bytes: &[u8]| {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for (host, path) in texts(first).iter().zip(&texts(second)) {
            let headers = |_: &str| Some(&b"application/grpc"[..]);
            let query = Query::new(Some(host), path).with_headers(&headers);
            let explanation = table.explain(&query);
            match table.route(&query) {
                Ok(found) => {
                    let chosen = explanation.chosen().map(|one| one.index);
                    assert_eq!(found.map(|found| found.index), chosen);
                }
                Err(unclear) => assert_eq!(explanation.unclear, Some(unclear)),
            }
            assert!(!explanation.to_string().is_empty());
            if let Ok(prefix) = path.parse::<PathPrefix>() {
                assert!(prefix.matches(path), "{path}");
            }
            if let Ok(grpc) = path.parse::<GrpcPattern>() {
                assert_eq!(grpc.to_string(), *path);
            }
        }
    });
}
