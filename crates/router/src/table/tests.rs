use super::*;
use crate::HeaderMatch;

/// Reads `host path name=value,.. grpc`, with `-` for an absent part.
fn rule(text: &str) -> Rule<String> {
    let mut rule = Rule::new(text.to_owned());
    let parts: Vec<&str> = text.split(' ').collect();
    let given = |part: usize| parts.get(part).copied().filter(|&text| text != "-");
    rule.host = given(0).map(|text| text.parse().unwrap());
    rule.path = given(1).map(|text| text.parse().unwrap());
    rule.headers = given(2)
        .iter()
        .flat_map(|text| text.split(','))
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| HeaderMatch::try_new(name, value).unwrap())
        .collect();
    rule.grpc = given(3).map(|text| text.parse().unwrap());
    rule
}

fn table(rules: &[&str]) -> Result<Table<String>, TableError> {
    Table::try_new(rules.iter().map(|text| rule(text)).collect())
}

fn route<'t>(table: &'t Table<String>, host: &str, path: &str) -> Option<&'t str> {
    let query = Query::new((host != "-").then_some(host), path);
    let found = table.route(&query).unwrap();
    found.map(|found| found.target().as_str())
}

#[test]
fn the_most_specific_host_and_path_win() {
    let table = table(&[
        "-",
        "- /api",
        "*.example.com",
        "*.a.example.com",
        "*.a.example.com /api",
        "app.a.example.com /api",
        "app.a.example.com /api/v2",
        "[::1] /x",
    ])
    .unwrap();
    for (host, path, expected) in [
        (
            "app.a.example.com",
            "/api/v2/x",
            "app.a.example.com /api/v2",
        ),
        ("app.a.example.com", "/api/v22", "app.a.example.com /api"),
        ("APP.a.example.COM.:80", "/api?x", "app.a.example.com /api"),
        // No rule of the exact host matches: wildcards follow.
        ("app.a.example.com", "/", "*.a.example.com"),
        ("b.a.example.com", "/api", "*.a.example.com /api"),
        ("c.b.a.example.com", "/x", "*.a.example.com"),
        ("a.example.com", "/api", "*.example.com"),
        ("example.com", "/api", "- /api"),
        ("example.com", "/", "-"),
        ("not a host", "/api", "- /api"),
        ("-", "*", "-"),
        ("[::0:1]:80", "/x", "[::1] /x"),
        ("[::1]", "/y", "-"),
    ] {
        assert_eq!(route(&table, host, path), Some(expected), "{host}{path}");
    }
    assert_eq!(table.len(), 8);
    let found = table.route(&Query::new(Some("[::1]"), "/x"));
    let found = found.unwrap().unwrap();
    assert_eq!((found.index, found.rule), (7, &rule("[::1] /x")));
}

#[test]
fn no_rule_no_match() {
    assert_eq!(route(&Table::default(), "a", "/"), None);
    let table = table(&["a /x", "*.b.c"]).unwrap();
    assert_eq!(route(&table, "a", "/xy"), None);
    assert_eq!(route(&table, "a", "/\u{e9}"), None);
    assert_eq!(route(&table, "b.c", "/"), None);
    assert_eq!(route(&table, "a.c", "/"), None);
    assert_eq!(route(&table, "-", "/x"), None);
}

#[test]
fn details_decide_between_rules_of_one_path() {
    let table = table(&[
        "a /",
        "a - x=1",
        "a - x=2",
        "a - x=1,y=1",
        "a - - p.S",
        "a - - p.S/M",
        "a - x=1 p.S",
    ])
    .unwrap();
    let route = |path, headers: &[(&str, &'static str)]| {
        let lines: Vec<_> = headers.to_vec();
        let find = move |name: &str| {
            let line = lines.iter().find(|(n, _)| *n == name);
            line.map(|(_, value)| value.as_bytes())
        };
        let query = Query::new(Some("a"), path).with_headers(&find);
        table.route(&query).unwrap().unwrap().target().clone()
    };
    let grpc = ("content-type", "application/grpc");
    assert_eq!(route("/", &[]), "a /");
    assert_eq!(route("/", &[("x", "1")]), "a - x=1");
    assert_eq!(route("/", &[("x", "2"), ("y", "1")]), "a - x=2");
    assert_eq!(route("/", &[("x", "1"), ("y", "1")]), "a - x=1,y=1");
    assert_eq!(route("/p.S/N", &[grpc]), "a - - p.S");
    assert_eq!(route("/p.S/M?q", &[grpc]), "a - - p.S/M");
    assert_eq!(route("/p.S/M", &[]), "a /");
    assert_eq!(route("/p.S/M", &[grpc, ("x", "1")]), "a - x=1 p.S");
}

#[test]
fn rules_with_equal_conditions_are_refused() {
    for (rules, pair) in [
        (vec!["-", "- /"], (0, 1)),
        (vec!["a /x", "b", "A:80 /x/"], (0, 2)),
        (vec!["c", "*.a", "b", "*.A."], (1, 3)),
        (vec!["a - x=1,y=2", "a", "a - y=2,X=1"], (0, 2)),
        (vec!["a - - s/M", "a", "a - - s", "a - - s/M"], (0, 3)),
    ] {
        let error = table(&rules).unwrap_err();
        let TableError::Duplicate { first, second, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((first, second), pair);
    }
    assert_eq!(
        table(&["b", "a /x", "a /x/"]).unwrap_err(),
        TableError::Duplicate {
            first: 1,
            second: 2,
            conditions: "host a, path /x".into()
        }
    );
}

#[test]
fn rules_between_which_a_request_cannot_decide_are_refused() {
    for (rules, pair) in [
        (vec!["a - x=1", "a - y=1"], (0, 1)),
        (
            vec!["a", "a - x=1,y=1", "a - x=2,z=2", "a - y=1,z=1"],
            (1, 3),
        ),
        (vec!["a - x=1 s", "a - y=1 s"], (0, 1)),
    ] {
        let error = table(&rules).unwrap_err();
        let TableError::Ambiguous { first, second, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((first, second), pair);
    }
    assert_eq!(
        table(&["a - x=1", "a - y=1"]).unwrap_err(),
        TableError::Ambiguous {
            first: 0,
            second: 1,
            first_conditions: "host a, header x: 1".into(),
            second_conditions: "host a, header y: 1".into()
        }
    );
    for apart in [
        ["a - x=1", "a - x=2"],
        ["a - x=1,y=1", "a - x=2,z=1"],
        ["a - x=1", "b - y=1"],
        ["a /p x=1", "a /q y=1"],
        ["a - x=1", "a - x=1,y=1"],
        ["a - - s", "a - - t"],
        ["a - x=1 s", "a - y=1 t"],
        ["a - x=1 s", "a - y=1 s/M"],
    ] {
        assert!(table(&apart).is_ok(), "{apart:?}");
    }
}

#[test]
fn a_rule_names_each_header_once() {
    let error = table(&["a", "b - x=1,y=1,X=2"]).unwrap_err();
    assert_eq!(
        error,
        TableError::RepeatedHeader {
            rule: 1,
            name: "x".into()
        }
    );
}

#[test]
fn p_3_14_another_spelling_of_a_path_selects_no_other_rule() {
    let table = table(&["a", "a /admin", "b", "*.c /x", "*.c", "d - - p.S", "d"]).unwrap();
    let unclear = |host, path| {
        let headers = |name: &str| (name == "content-type").then_some(&b"application/grpc"[..]);
        let query = Query::new(Some(host), path).with_headers(&headers);
        let explained = table.explain(&query);
        assert_eq!(explained.unclear, table.route(&query).err());
        explained.unclear
    };
    for path in ["/x/../admin", "/./admin", "/x/%2e%2e/admin", "/a/..;/b"] {
        assert_eq!(unclear("a", path), Some(UnclearPath::DotSegment), "{path}");
    }
    for path in [
        "//admin",
        "/%61dmin",
        "/admin;x",
        "/admin%2fx?y",
        "/admin%5Cx",
        "/admin\\x",
    ] {
        assert_eq!(unclear("a", path), Some(UnclearPath::OtherRule), "{path}");
    }
    assert_eq!(unclear("a", "/x#/../admin"), Some(UnclearPath::Fragment));
    assert_eq!(unclear("y.c", "/%78"), Some(UnclearPath::OtherRule));
    assert_eq!(unclear("d", "//p.S/M"), Some(UnclearPath::OtherRule));
    // Every reading selects the same rule.
    for path in [
        "/@a%2fb",
        "/admin/a%2Fb;c",
        "/a//b",
        "/a?/../admin",
        "/Admin",
    ] {
        assert_eq!(unclear("a", path), None, "{path}");
    }
    assert_eq!(route(&table, "a", "/admin//x%41"), Some("a /admin"));
    // Without rules by path there is nothing to avoid.
    assert_eq!(route(&table, "b", "/x/../admin"), Some("b"));
}

#[test]
fn a_host_depends_on_the_path_while_it_has_rules_by_path() {
    let mut table = table(&["a", "a /x", "a - - p.S"]).unwrap();
    let is_clear = |table: &Table<String>| table.route(&Query::new(Some("a"), "/..")).is_ok();
    assert!(!is_clear(&table));
    let host = "a".parse().unwrap();
    table.remove(1, Some(&host), Some(&"/x".parse().unwrap()));
    assert!(!is_clear(&table));
    table.remove(2, Some(&host), None);
    assert!(is_clear(&table));
}
