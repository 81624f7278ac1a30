//! Redirects to HTTPS, `Strict-Transport-Security`, and challenges of certificate authorities.

use std::time::Duration;

use adit_ingress::{
    Direction, Layer, Layers,
    layers::{Forwarded, Hsts, HttpChallenges, RedirectToHttps, Respond},
};
use adit_testlink::{Link, Route, exchanges::hello, http_config, http1};

const CHALLENGE: &str = "/.well-known/acme-challenge/";

/// A route whose requests pass `after` routing. The visitor is a trusted proxy, which reports the scheme.
fn route(before: Option<HttpChallenges>, after: Vec<Box<dyn Layer>>) -> Route {
    let link = Link::serving(hello);
    let (there, after) = (link.clone(), Layers::new(after));
    let route = Route::director(std::slice::from_ref(&link), move |_, _| {
        let mut destination = there.destination(1);
        destination.layers = after.clone();
        Direction::Go(destination)
    });
    let trusted = ["0.0.0.0/0".parse().unwrap()].into_iter().collect();
    let before = before.map(|challenges| Box::new(challenges) as Box<dyn Layer>);
    let forwarded = Box::new(Forwarded::new(trusted)) as Box<dyn Layer>;
    route.layers(before.into_iter().chain([forwarded]).collect())
}

fn request(scheme: &str, host: &str, target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: {scheme}\r\nConnection: close\r\n\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn p_14_6_requests_over_http_are_redirected_to_https() {
    for (port, scheme, host, target, location) in [
        (
            443,
            "http",
            "a.example",
            "/b?c=d",
            "https://a.example/b?c=d",
        ),
        (443, "http", "a.example:80", "/", "https://a.example/"),
        (
            8443,
            "http",
            "a.example:7080",
            "/b",
            "https://a.example:8443/b",
        ),
        (443, "https", "a.example", "/b", ""),
        (
            443,
            "http",
            "a.example",
            "/.well-known/acme-challenge/x",
            "",
        ),
    ] {
        let entry = route(None, vec![Box::new(RedirectToHttps::new(port))]).http(http_config());
        let response = entry.raw(request(scheme, host, target)).await.unwrap();
        let (status, locations) = match location {
            "" => ("200", vec![]),
            location => ("308", vec![location]),
        };
        let found = (&response[9..12], http1::values(&response, "location"));
        assert_eq!(found, (status, locations), "{scheme} {host} {target}");
    }
}

#[tokio::test(start_paused = true)]
async fn p_14_7_hsts_is_in_all_responses_over_https() {
    let year = Duration::from_secs(31_536_000);
    let page = Respond::new(503).unwrap();
    for (scheme, below, is_local, expected) in [
        ("https", false, false, vec!["max-age=31536000"]),
        (
            "https",
            true,
            true,
            vec!["max-age=31536000; includeSubDomains"],
        ),
        ("http", true, false, vec![]),
    ] {
        let mut layers: Vec<Box<dyn Layer>> = vec![Box::new(Hsts::new(year, below))];
        if is_local {
            layers.push(Box::new(page.clone()));
        }
        let entry = route(None, layers).http(http_config());
        let response = entry.raw(request(scheme, "a.example", "/")).await.unwrap();
        assert_eq!(&response[9..12], if is_local { "503" } else { "200" });
        assert_eq!(
            http1::values(&response, "strict-transport-security"),
            expected
        );
    }
}

#[tokio::test(start_paused = true)]
async fn p_14_6_challenges_are_answered_before_redirects() {
    let challenges = HttpChallenges::new();
    challenges.insert("token-1", "token-1.thumbprint");
    let redirect = || Box::new(RedirectToHttps::new(443));
    let entry = route(Some(challenges.clone()), vec![redirect()]).http(http_config());
    let ask = async |scheme: &str, token: &str| {
        let target = format!("{CHALLENGE}{token}");
        entry
            .raw(request(scheme, "a.example", &target))
            .await
            .unwrap()
    };
    let response = ask("http", "token-1").await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(
        response.ends_with("\r\n\r\ntoken-1.thumbprint"),
        "{response}"
    );
    assert_eq!(http1::values(&response, "content-type"), ["text/plain"]);
    // Others reach the service, which may have certificates of its own.
    for token in ["token-2", "token-1/x", ""] {
        let response = ask("http", token).await;
        assert!(response.ends_with("hello"), "{response}");
    }
    challenges.remove("token-1");
    assert!(ask("http", "token-1").await.ends_with("hello"));
}
