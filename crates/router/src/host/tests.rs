use super::*;

fn normal(text: &str) -> Result<String, HostError> {
    normalize_host(text).map(Cow::into_owned)
}

#[test]
fn hosts_take_one_form() {
    for (given, expected) in [
        ("app.example.com", "app.example.com"),
        ("App.EXAMPLE.com:8080", "app.example.com"),
        ("app.example.com.", "app.example.com"),
        ("app.example.com.:443", "app.example.com"),
        ("localhost:", "localhost"),
        ("127.0.0.1:65535", "127.0.0.1"),
        ("a_b.-c-.x", "a_b.-c-.x"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("[2001:DB8:0:0::1]:", "[2001:db8::1]"),
        ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
        (
            "[1111:2222:3333:4444:5555:6666:7777:8888]",
            "[1111:2222:3333:4444:5555:6666:7777:8888]",
        ),
    ] {
        assert_eq!(normal(given).as_deref(), Ok(expected), "{given}");
    }
}

#[test]
fn nothing_is_copied_when_only_the_ends_fall_away() {
    for text in ["app.example.com.:80", "[::1]:80", "[fe80::1:2]", "10.0.0.1"] {
        assert!(matches!(normalize_host(text), Ok(Cow::Borrowed(_))));
    }
    assert!(matches!(normalize_host("A.b"), Ok(Cow::Owned(_))));
    assert!(matches!(normalize_host("[::0:1]"), Ok(Cow::Owned(_))));
}

#[test]
fn what_is_not_a_host_is_named() {
    let character = |character, position| HostError::Character {
        character,
        position,
    };
    let port = |port: &str| HostError::Port { port: port.into() };
    let address = |text: &str| HostError::Address {
        address: text.into(),
    };
    for (given, expected) in [
        ("", HostError::Empty),
        (".", HostError::Empty),
        (":80", HostError::Empty),
        ("..", HostError::EmptyLabel { position: 0 }),
        ("a..b", HostError::EmptyLabel { position: 2 }),
        (".a", HostError::EmptyLabel { position: 0 }),
        ("a.b..", HostError::EmptyLabel { position: 4 }),
        ("a b", character(' ', 1)),
        ("ab.c/d", character('/', 4)),
        ("user@host", character('@', 4)),
        ("b\u{fc}cher.de", character('\u{fc}', 1)),
        ("*.a", character('*', 0)),
        ("a:b", port("b")),
        ("a:65536", port("65536")),
        ("a:+80", port("+80")),
        ("::1", address("::1")),
        ("a:80:80", address("a:80:80")),
        ("[::1", address("[::1")),
        ("[::1]80", address("[::1]80")),
        ("[a.b]", address("[a.b]")),
        ("[fe80::1%eth0]", address("[fe80::1%eth0]")),
        ("[]", address("[]")),
        ("[::1]:x", port("x")),
    ] {
        assert_eq!(normal(given), Err(expected), "{given}");
    }
}

#[test]
fn lengths_are_bounded_where_dns_bounds_them() {
    let label = "x".repeat(63);
    assert_eq!(normal(&label), Ok(label.clone()));
    let long = "x".repeat(64);
    assert_eq!(
        normal(&long),
        Err(HostError::LabelTooLong {
            label: long.clone()
        })
    );
    let name = format!("{label}.{label}.{label}.{}", "x".repeat(61));
    assert_eq!(name.len(), 253);
    assert_eq!(normal(&format!("{name}.:80")), Ok(name.clone()));
    assert_eq!(
        normal(&format!("{name}x")),
        Err(HostError::TooLong { length: 254 })
    );
}

#[test]
fn patterns_match_as_written() {
    let exact: HostPattern = "App.Example.com:80".parse().unwrap();
    assert_eq!(exact.to_string(), "app.example.com");
    assert!(!exact.is_wildcard());
    assert!(exact.matches("app.example.com"));
    assert!(!exact.matches("x.app.example.com"));

    let below: HostPattern = "*.Example.com.".parse().unwrap();
    assert_eq!(below.to_string(), "*.example.com");
    assert_eq!(below.name(), "example.com");
    assert!(below.is_wildcard());
    assert!(below.matches("a.example.com"));
    assert!(below.matches("b.a.example.com"));
    assert!(!below.matches("example.com"));
    assert!(!below.matches(".example.com"));
    assert!(!below.matches("anexample.com"));

    let address: HostPattern = "[::0:1]".parse().unwrap();
    assert_eq!(address.to_string(), "[::1]");
    assert!(address.matches("[::1]"));
    let port_only_looks_like_one: HostPattern = "*.example.c0m".parse().unwrap();
    assert!(port_only_looks_like_one.is_wildcard());
}

#[test]
fn errors_of_bad_patterns_suggest_a_valid_one() {
    for text in ["*", "*.", "*.*.a", "a.*.b", "*a.b", "*.0.0.1", "*.[::1]"] {
        let error = text.parse::<HostPattern>().unwrap_err();
        assert_eq!(
            error,
            HostPatternError::Wildcard {
                pattern: text.into()
            }
        );
        assert!(error.to_string().contains("*.example.com"), "{error}");
    }
    let error = "*.a..b".parse::<HostPattern>().unwrap_err();
    assert_eq!(
        error,
        HostPatternError::Host {
            pattern: "*.a..b".into(),
            source: HostError::EmptyLabel { position: 2 }
        }
    );
    assert_eq!(
        "".parse::<HostPattern>().unwrap_err(),
        HostPatternError::Host {
            pattern: String::new(),
            source: HostError::Empty
        }
    );
}

#[test]
fn a_pattern_covers_what_is_below_it() {
    let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
    for (wide, narrow, covered) in [
        ("a.b", "a.b", true),
        ("a.b", "x.a.b", false),
        ("*.a.b", "*.a.b", true),
        ("*.a.b", "x.a.b", true),
        ("*.a.b", "*.x.a.b", true),
        ("*.a.b", "a.b", false),
        ("*.a.b", "*.b", false),
        ("*.a.b", "*.xa.b", false),
    ] {
        assert_eq!(
            pattern(wide).covers(&pattern(narrow)),
            covered,
            "{wide} {narrow}"
        );
    }
    let above = |text: &str| -> Vec<String> {
        let pattern = pattern(text);
        let above = pattern.wildcards_above();
        above.map(|pattern| pattern.to_string()).collect()
    };
    assert_eq!(above("x.a.b"), ["*.a.b", "*.b"]);
    assert_eq!(above("*.a.b"), ["*.b"]);
    assert!(above("192.0.2.1").is_empty() && above("[::1]").is_empty());
    assert_eq!(pattern("*.a.b").base(), Some(pattern("a.b")));
    assert_eq!(pattern("a.b").base(), None);
}
