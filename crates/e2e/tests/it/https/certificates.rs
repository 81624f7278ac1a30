//! The choice of the certificate, and its replacement.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use adit_e2e::{Load, Service, Visitor, eventually};
use http::StatusCode;

use super::{Ca, SOON, replace, shown, tunnel, world};

#[tokio::test]
async fn p_14_1_exact_names_precede_wildcards_and_others_fail() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("wild", &["*.example.com"]);
    ca.issue("api", &["api.example.com"]);
    let certificates = format!(
        "certificates: [{{ {} }}, {{ {} }}]",
        ca.keys("wild"),
        ca.keys("api")
    );
    let domains = "www.example.com, api.example.com, deep.api.example.com";
    let (_client, mut server, https) =
        world(&certificates, &[tunnel("web", domains, &service)]).await;
    let connect = async |host: &str| ca.connect(https, host, &["h2"]).await;
    let wild = shown(&connect("www.example.com").await.unwrap());
    let api = shown(&connect("api.example.com").await.unwrap());
    assert_ne!(wild, api);
    assert_eq!(shown(&connect("other.example.com").await.unwrap()), wild);
    for host in ["deep.api.example.com", "example.com", "127.0.0.1"] {
        let error = connect(host).await.unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{host}: {error}");
    }
    eventually("a reason in the log", SOON, async || {
        let log = server.process().stderr();
        log.contains("for deep.api.example.com").then_some(())
    })
    .await;
}

#[tokio::test]
async fn p_14_4_a_connection_serves_the_hosts_of_its_certificate_only() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("one", &["a.example.com", "b.example.com"]);
    ca.issue("two", &["c.example.com"]);
    let certificates = format!(
        "certificates: [{{ {} }}, {{ {} }}]",
        ca.keys("one"),
        ca.keys("two")
    );
    let domains = "a.example.com, b.example.com, c.example.com";
    let (_client, server, https) = world(&certificates, &[tunnel("web", domains, &service)]).await;
    for (asked_for, host, expected) in [
        ("a.example.com", "b.example.com", StatusCode::OK),
        ("a.example.com", "A.example.com:443", StatusCode::OK),
        (
            "a.example.com",
            "c.example.com",
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (
            "c.example.com",
            "a.example.com",
            StatusCode::MISDIRECTED_REQUEST,
        ),
    ] {
        let stream = ca.connect(https, asked_for, &["h2"]).await.unwrap();
        let mut http2 = Visitor::http2_over(stream, host).await;
        let stream = ca.connect(https, asked_for, &["http/1.1"]).await.unwrap();
        let mut http1 = Visitor::http1_over(stream, host).await;
        for visitor in [&mut http2, &mut http1] {
            let response = visitor.get("/who").await;
            assert_eq!(response.status, expected, "{asked_for} {host}");
            if expected != StatusCode::OK {
                assert_eq!(response.reason(), "misdirected");
            }
        }
    }
    let failures = &server.status().await["visitors"]["failures"];
    assert_eq!(*failures, serde_json::json!({ "misdirected": 4 }));
}

#[tokio::test]
async fn a_default_certificate_serves_every_host() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("ip", &["127.0.0.1", "www.example.com"]);
    let https = format!("{}, default: true", ca.keys("ip"));
    let (_client, _server, https) =
        world(&https, &[tunnel("web", "other.example.com", &service)]).await;
    // A visitor by address asks for no host.
    let stream = ca.connect(https, "127.0.0.1", &["h2"]).await.unwrap();
    let mut visitor = Visitor::http2_over(stream, "other.example.com").await;
    assert_eq!(visitor.get("/who").await.text(), "site");
}

#[tokio::test]
async fn certificates_are_replaced_under_load_without_a_failure() {
    let (ca, service) = (Arc::new(Ca::new()), Service::site("site").await);
    ca.issue("www", &["www.example.com"]);
    let tunnel = tunnel("web", "www.example.com", &service);
    let (_client, mut server, https) = world(&ca.keys("www"), &[tunnel]).await;
    let kept = Load::on(ca.http1(https, "www.example.com").await, "site").await;
    // Connections of their own as well, one after the other.
    let (stop, connections) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let connecting = tokio::spawn({
        let (ca, stop, connections) = (ca.clone(), stop.clone(), connections.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let response = ca.http2(https, "www.example.com").await.get("/who").await;
                assert_eq!(response.text(), "site");
                connections.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let goes_on = async || {
        let before = connections.load(Ordering::Relaxed);
        eventually("more connections", SOON, async || {
            (connections.load(Ordering::Relaxed) > before + 2).then_some(())
        })
        .await;
        kept.goes_on().await;
    };
    let mut seen = vec![shown(
        &ca.connect(https, "www.example.com", &[]).await.unwrap(),
    )];
    for _ in 0..3 {
        ca.issue("www", &["www.example.com", "new.example.com"]);
        server.reload().await;
        goes_on().await;
        let now = shown(&ca.connect(https, "www.example.com", &[]).await.unwrap());
        assert!(!seen.contains(&now), "the replaced certificate is shown");
        seen.push(now);
    }
    // A bad file changes nothing and is reported.
    let key = ca.path("www", "key");
    let good = fs::read_to_string(&key).unwrap();
    replace(&key, "no key");
    server.process().signal("HUP");
    let error = eventually("a rejected file", SOON, async || {
        let status = server.status().await;
        status["config"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("server.https.key_file"), "{error}");
    goes_on().await;
    let still = shown(&ca.connect(https, "www.example.com", &[]).await.unwrap());
    assert_eq!(seen.last(), Some(&still));
    replace(&key, &good);
    // Without a signal: the files are watched.
    eventually("the good file", SOON, async || {
        let status = server.status().await;
        status["config"]["last_error"].is_null().then_some(())
    })
    .await;
    goes_on().await;
    stop.store(true, Ordering::Relaxed);
    connecting.await.unwrap();
    kept.stop().await;
    let status = server.status().await;
    assert_eq!(status["visitors"]["failures"], serde_json::json!({}));
    assert_eq!(status["https"]["handshakes_failed"], 0);
}
