//! Finding the rule of a request among 10 and 1,000: an exact host, the deepest wildcard, and none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;

use adit_benches::baseline::router::{Line, Scan};
use adit_router::{Query, Rule, Table, normalize_host};
use criterion::Criterion;

mod speed;

const SIZES: [usize; 2] = [10, 1_000];

/// Rules of three kinds in turn: a host, a host with a path, a wildcard.
fn lines(size: usize) -> Vec<Line> {
    (0..size)
        .map(|target| {
            let (host, path) = match target % 3 {
                0 => (format!("app-{target}.example.com"), ""),
                1 => (format!("app-{}.example.com", target - 1), "/api/v1"),
                _ => (format!("*.group-{target}.example.com"), ""),
            };
            Line {
                host,
                path: path.to_owned(),
                target,
            }
        })
        .collect()
}

fn table(lines: &[Line]) -> Table<usize> {
    let rules = lines
        .iter()
        .map(|line| {
            let mut rule = Rule::new(line.target);
            rule.host = Some(line.host.parse().unwrap());
            rule.path = (!line.path.is_empty()).then(|| line.path.parse().unwrap());
            rule
        })
        .collect();
    Table::try_new(rules).unwrap()
}

fn route(c: &mut Criterion) {
    for size in SIZES {
        let table = table(&lines(size));
        let scan = Scan::new(lines(size));
        let last = (size - 1) / 3 * 3;
        let wildcard = (size - 3) / 3 * 3 + 2;
        let requests = [
            (
                "exact",
                format!("app-{last}.example.com:8080"),
                "/api/v2/users?page=3",
                Some(last),
            ),
            (
                "wildcard",
                format!("x.group-{wildcard}.example.com"),
                "/",
                Some(wildcard),
            ),
            ("unknown", "www.elsewhere.net".to_owned(), "/", None),
        ];
        for (kind, host, path, expected) in requests {
            let ours = |host, path| {
                table
                    .route(&Query::new(Some(host), path))
                    .ok()
                    .flatten()
                    .map(|found| *found.target())
            };
            assert_eq!(ours(&host, path), expected, "{host}");
            assert_eq!(scan.route(&host, path), expected, "{host}");
            let mut group = c.benchmark_group(format!("router/route_{kind}"));
            group.bench_function(format!("ours/{size}"), |b| {
                b.iter(|| ours(black_box(&host), black_box(path)));
            });
            group.bench_function(format!("naive/{size}"), |b| {
                b.iter(|| scan.route(black_box(&host), black_box(path)));
            });
            group.finish();
        }
    }
}

fn normalize(c: &mut Criterion) {
    let mut group = c.benchmark_group("router/normalize_host");
    for (kind, host) in [
        ("lower", "app-1.group-2.example.com:8080"),
        ("mixed", "App-1.Group-2.Example.com:8080"),
    ] {
        group.bench_function(format!("ours/{kind}"), |b| {
            b.iter(|| normalize_host(black_box(host)).is_ok());
        });
        group.bench_function(format!("naive/{kind}"), |b| {
            b.iter(|| {
                let host = black_box(host).to_lowercase();
                host.split(':').next().map(str::to_owned)
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = speed::criterion();
    route(&mut criterion);
    normalize(&mut criterion);
    criterion.final_summary();
}
