//! Redirects to HTTPS, and `Strict-Transport-Security`.

use adit_e2e::{Client, ClientOptions, Server, Service, eventually, get};
use http::StatusCode;

use super::{Ca, SOON, tunnel, world};

#[tokio::test]
async fn p_14_6_and_14_7_visitors_are_led_to_https_and_kept_there() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["*.example.com"]);
    let keys = ", redirect_https: true, hsts: { max_age: 1h, include_subdomains: true }";
    let tunnels = [
        tunnel("web", "www.example.com", &service) + keys,
        tunnel("other", "other.example.com", &service),
    ];
    let (_client, server, https) = world(&ca.keys("www"), &tunnels).await;
    let response = get(server.http, "www.example.com", "/who?a=b").await;
    assert_eq!(response.status, StatusCode::PERMANENT_REDIRECT);
    let location = format!("https://www.example.com:{}/who?a=b", https.port());
    assert_eq!(response.header("location"), location);
    assert_eq!(response.header("strict-transport-security"), "");
    let response = get(
        server.http,
        "www.example.com",
        "/.well-known/acme-challenge/x",
    )
    .await;
    assert_eq!(
        response.status,
        StatusCode::NOT_FOUND,
        "the service responds"
    );
    let response = ca.http2(https, "www.example.com").await.get("/who").await;
    assert_eq!(response.text(), "site");
    let hsts = "max-age=3600; includeSubDomains";
    assert_eq!(response.header("strict-transport-security"), hsts);
    for response in [
        get(server.http, "other.example.com", "/who").await,
        ca.http1(https, "other.example.com").await.get("/who").await,
    ] {
        assert_eq!(response.text(), "site");
        assert_eq!(response.header("strict-transport-security"), "");
    }
}

#[tokio::test]
async fn a_redirect_to_a_server_without_https_is_refused() {
    let (server, service) = (Server::plain().await, Service::site("site").await);
    let tunnel = tunnel("web", "www.example.com", &service) + ", redirect_https: true";
    let config = format!("client:\n  tunnels: [{{ {tunnel} }}]\n");
    let mut client = Client::spawn(ClientOptions::file(&server, "office", &config));
    eventually("a refusal", SOON, async || {
        let log = client.process().stderr();
        log.contains("`redirect_https` needs HTTPS on the server")
            .then_some(())
    })
    .await;
}
