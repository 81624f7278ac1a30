//! The headers in which proxies report a request: `X-Forwarded-*`, `Forwarded`, `Via`.

use adit_codec::HttpRequest;
use adit_ingress::{Layer, TrustedProxies, layers};
use adit_testlink::{HttpEntry, Link, Route, exchanges::hello, http_config};

fn entry(trusted: &[&str]) -> HttpEntry {
    let networks = trusted.iter().map(|network| network.parse().unwrap());
    let trusted: TrustedProxies = networks.collect();
    let chain: Vec<Box<dyn Layer>> = vec![
        Box::new(layers::HopByHop),
        Box::new(layers::Via::new(0x2a)),
        Box::new(layers::Forwarded::new(trusted)),
    ];
    let link = Link::serving(hello);
    Route::to(&link).layers(chain).http(http_config())
}

/// The request that the service receives with these header lines.
async fn seen(entry: &HttpEntry, lines: &str) -> HttpRequest {
    let head = format!("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{lines}\r\n");
    let response = entry.raw(&head).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    entry.seen().pop_back().unwrap()
}

fn line<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    let value = request.headers.first(name.as_bytes())?;
    Some(std::str::from_utf8(value).unwrap())
}

/// P-3.4: the forwarded headers of an untrusted visitor are removed, and the server sets its own.
#[tokio::test(start_paused = true)]
async fn reports_of_an_untrusted_visitor_are_removed() {
    let entry = entry(&["10.0.0.0/8"]);
    let seen = seen(
        &entry,
        "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 192.0.2.8\r\nX-Forwarded-Host: evil\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 192.0.2.7\r\n\
        X_Forwarded_For: 192.0.2.7\r\nx-forwarded_for: 192.0.2.7\r\nX_Real_IP: 192.0.2.7\r\n\
        Forwarded: for=192.0.2.7;proto=https\r\n",
    )
    .await;
    assert_eq!(line(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(line(&seen, "x-forwarded-host"), Some("a.example"));
    assert_eq!(line(&seen, "x-forwarded-proto"), Some("http"));
    for gone in [
        "x-forwarded-port",
        "x-real-ip",
        "forwarded",
        "x_forwarded_for",
        "x-forwarded_for",
        "x_real_ip",
    ] {
        assert_eq!(line(&seen, gone), None);
    }
    assert!(seen.open.visitor.starts_with("127.0.0.1:"));
    assert_eq!(seen.scheme, "http");
}

/// P-3.4: a trusted proxy writes hyphens; a report with underscores is one of its visitor.
#[tokio::test(start_paused = true)]
async fn reports_with_underscores_are_removed_from_a_trusted_proxy() {
    let entry = entry(&["127.0.0.1"]);
    let lines = "X-Real-IP: 192.0.2.7\r\nX_Real_IP: 192.0.2.8\r\nX_Forwarded_Port: 1\r\n";
    let seen = seen(&entry, lines).await;
    assert_eq!(line(&seen, "x-real-ip"), Some("192.0.2.7"));
    assert_eq!(line(&seen, "x_real_ip"), None);
    assert_eq!(line(&seen, "x_forwarded_port"), None);
}

/// An underscore is a hyphen to programs that receive headers as variables.
#[tokio::test(start_paused = true)]
async fn p_15_5_identities_of_visitors_and_of_proxies_are_removed() {
    for trusted in [&["127.0.0.1"][..], &[]] {
        let entry = entry(trusted);
        let lines = "Adit-User: root\r\nadit_user: root\r\nadit-users: kept\r\n";
        let seen = seen(&entry, lines).await;
        assert_eq!(line(&seen, "adit-user"), None);
        assert_eq!(line(&seen, "adit_user"), None);
        assert_eq!(line(&seen, "adit-users"), Some("kept"));
    }
}

/// P-3.4: the forwarded headers of a trusted proxy are kept, and the proxy's address is appended.
#[tokio::test(start_paused = true)]
async fn reports_of_a_trusted_proxy_are_kept_and_extended() {
    let entry = entry(&["127.0.0.1", "10.0.0.0/8"]);
    let lines = "X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Forwarded-For: 10.0.0.9\r\n\
        X-Forwarded-Host: public.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\
        Forwarded: for=192.0.2.7;proto=https\r\n";
    let request = seen(&entry, lines).await;
    let list = "1.1.1.1, 192.0.2.7, 10.0.0.9, 127.0.0.1";
    assert_eq!(line(&request, "x-forwarded-for"), Some(list));
    assert_eq!(line(&request, "x-forwarded-host"), Some("public.example"));
    assert_eq!(line(&request, "x-forwarded-proto"), Some("https"));
    assert_eq!(line(&request, "x-forwarded-port"), Some("443"));
    let forwarded = "for=192.0.2.7;proto=https, for=127.0.0.1";
    assert_eq!(line(&request, "forwarded"), Some(forwarded));
    // The right-most address that is not a proxy's: the addresses that the visitor itself reports are ignored.
    assert_eq!(&*request.open.visitor, "192.0.2.7:0");
    assert_eq!(request.scheme, "https");
    // A proxy that reports nothing is the visitor.
    let request = seen(&entry, "").await;
    assert_eq!(line(&request, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(line(&request, "x-forwarded-proto"), Some("http"));
    assert_eq!(line(&request, "forwarded"), None);
    assert!(request.open.visitor.starts_with("127.0.0.1:"));
}

#[tokio::test(start_paused = true)]
async fn the_visitor_is_the_right_most_untrusted_address() {
    let entry = entry(&["127.0.0.1", "10.0.0.0/8", "fd00::/8"]);
    for (lines, visitor) in [
        ("X-Forwarded-For: 192.0.2.7:4711\r\n", "192.0.2.7:4711"),
        ("X-Forwarded-For: 2001:db8::1\r\n", "[2001:db8::1]:0"),
        (
            "X-Forwarded-For: [2001:db8::1]:99, fd00::2\r\n",
            "[2001:db8::1]:99",
        ),
        ("X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", "10.0.0.1:0"),
        // Addresses before an unreadable one are ignored.
        (
            "X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.2\r\n",
            "10.0.0.2:0",
        ),
        (
            "Forwarded: for=192.0.2.7, for=\"[fd00::1]:80\";proto=https\r\n",
            "192.0.2.7:0",
        ),
        ("Forwarded: For=\"[2001:db8::1]\"\r\n", "[2001:db8::1]:0"),
        (
            "Forwarded: for=_hidden, by=10.0.0.2;for=10.0.0.3\r\n",
            "10.0.0.3:0",
        ),
    ] {
        assert_eq!(&*seen(&entry, lines).await.open.visitor, visitor, "{lines}");
    }
    for lines in ["X-Forwarded-For: unknown\r\n", "Forwarded: proto=https\r\n"] {
        let request = seen(&entry, lines).await;
        assert!(request.open.visitor.starts_with("127.0.0.1:"), "{lines}");
    }
}

/// P-3.12: a request with the server's own pseudonym in `via` is rejected with the reason `loop`.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_back_gets_508_at_once() {
    let entry = entry(&[]);
    let request = seen(&entry, "Via: 1.1 other, 2.0 adit-000000000000002b\r\n").await;
    let lines: Vec<_> = request
        .headers
        .lines()
        .filter(|(name, _)| *name == b"via")
        .collect();
    assert_eq!(lines[0].1, b"1.1 other, 2.0 adit-000000000000002b");
    assert_eq!(lines[1].1, b"1.1 adit-000000000000002a");
    assert_eq!(lines.len(), 2);
    let again = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
        Via: 1.1 other\r\nVia: 1.1 adit-000000000000002a, 1.1 more\r\n\r\n";
    let response = entry.raw(&again).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 508 "), "{response}");
    assert!(response.contains("adit-reason: loop\r\n"), "{response}");
    assert_eq!(entry.seen().len(), 0);
    // Responses contain the pseudonym as well.
    let plain = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = entry.raw(&plain).await.unwrap();
    assert!(
        response.contains("via: 1.1 adit-000000000000002a\r\n"),
        "{response}"
    );
}
