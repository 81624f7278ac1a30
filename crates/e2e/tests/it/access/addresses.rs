//! The layer `ip`.

use adit_e2e::{
    Client, ClientOptions, Raw, Scripted, Server, Service, Visitor, connect_from, empty, eventually,
};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use tokio::{io::AsyncReadExt, net::UdpSocket, sync::mpsc};
use tokio_tungstenite::{client_async, tungstenite};

use super::{HOST, ID, SOON, Web, file, get_with, is_reset, port_of, reaches, source, verdict};

/// Admits 127.8.0.0/24 except 127.8.0.66.
const RULES: &str = "[{ ip: { allow: [127.8.0.0/24], deny: [127.8.0.66] } }]";

#[tokio::test]
async fn p_15_1_http_grpc_and_websocket_are_admitted_by_address() {
    let web = Web::new("", RULES).await;
    assert_eq!(verdict(&web.get(1, "/who").await), (200, ""));
    let denied = web.get(66, "/who").await;
    assert_eq!(verdict(&denied), (403, "access_denied"));
    assert!(!denied.header("adit-request-id").is_empty());
    let mut outside = Visitor::http1_from([127, 9, 0, 1].into(), web.server.http, HOST).await;
    assert_eq!(verdict(&outside.get("/who").await), (403, "access_denied"));

    let mut visitor = Visitor::http2_from(source(66), web.server.http, HOST).await;
    assert_eq!(verdict(&visitor.get("/who").await), (403, "access_denied"));
    let mut call = visitor.request(&Method::POST, "/pkg.Echo/Say", empty());
    let grpc = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert(CONTENT_TYPE, grpc);
    let response = visitor.whole(call).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("grpc-status"), "7");
    assert_eq!(response.reason(), "access_denied");

    let stream = connect_from(source(66), web.server.http).await;
    let refused = client_async(format!("ws://{HOST}/"), stream).await;
    match refused {
        Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 403),
        other => panic!("{other:?}"),
    }
    assert_eq!(web.service.stats.begun(), 1);
    assert_eq!(web.count("/access/denied/ip").await, 5);
    assert_eq!(web.count("/visitors/failures/access_denied").await, 5);
}

#[tokio::test]
async fn p_15_2_a_denied_connection_never_reaches_the_client() {
    let (seen, mut visits) = mpsc::unbounded_channel();
    let service = Scripted::start(move |stream| {
        let seen = seen.clone();
        async move {
            let mut raw = Raw { stream };
            raw.send("hello").await;
            let _ = seen.send(());
        }
    })
    .await;
    let server = Server::plain().await;
    let port = service.addr.port();
    let tunnel =
        format!("name: ssh, type: tcp, local_port: {port}, remote_port: 0, layers: {RULES}");
    let _client = Client::start(ClientOptions::file(&server, ID, &file(&[tunnel]))).await;
    let addr = port_of(&server, "ssh").await;
    for last in [66, 67, 66] {
        assert_eq!(is_reset(last, addr).await, last == 66);
    }
    let mut admitted = connect_from(source(1), addr).await;
    let mut text = [0; 5];
    admitted.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    for _ in [67, 1] {
        visits.recv().await.unwrap();
    }
    assert!(visits.try_recv().is_err());
    reaches(&server, "/access/denied/ip", 2).await;
}

#[tokio::test]
async fn p_15_2_datagrams_of_denied_flows_are_dropped_and_counted() {
    let server = Server::plain().await;
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let tunnel =
        format!("name: dns, type: udp, local_port: {port}, remote_port: 0, layers: {RULES}");
    let _client = Client::start(ClientOptions::file(&server, ID, &file(&[tunnel]))).await;
    let addr = port_of(&server, "dns").await;
    let denied = UdpSocket::bind((source(66), 0)).await.unwrap();
    for _ in 0..20 {
        denied.send_to(b"denied", addr).await.unwrap();
    }
    reaches(&server, "/udp/dropped_in", 20).await;
    let admitted = UdpSocket::bind((source(1), 0)).await.unwrap();
    let mut buffer = [0; 100];
    let length = eventually("a datagram at the service", SOON, async || {
        admitted.send_to(b"admitted", addr).await.unwrap();
        let received = service.recv(&mut buffer);
        let wait = std::time::Duration::from_secs(1);
        tokio::time::timeout(wait, received).await.ok()?.ok()
    })
    .await;
    assert_eq!(&buffer[..length], b"admitted");
    // One flow, whose datagrams were dropped without another check.
    let denials = eventually("denials", SOON, async || {
        let denied = server.status().await["access"]["denied"]["ip"].as_u64()?;
        (denied > 0).then_some(denied)
    })
    .await;
    assert!(denials < 20, "{denials}");
}

#[tokio::test]
async fn p_15_4_a_dry_run_counts_and_logs_what_it_would_deny() {
    let mut web = Web::new(
        "server: { layers: [{ ip: { deny: [127.8.0.5] }, enforce: false }] }",
        "[{ enforce: false, ip: { allow: [127.8.0.1] } }]",
    )
    .await;
    for last in [1, 2, 5] {
        assert_eq!(verdict(&web.get(last, "/who").await), (200, ""));
    }
    assert_eq!(web.count("/access/would_deny/ip").await, 3);
    assert_eq!(web.count("/access/denied/ip").await, 0);
    let log = eventually("the log of the server", SOON, async || {
        let log = web.server.process().stderr();
        (log.matches("would deny").count() >= 3).then_some(log)
    })
    .await;
    assert!(
        log.contains("127.8.0.2") && log.contains("tunnel office/web"),
        "{log}"
    );
    assert!(!log.contains("127.8.0.1:"), "{log}");
}

/// A visitor that is admitted by a sufficient layer of the server still has to meet the layers of the tunnel.
#[tokio::test]
async fn p_15_3_sufficient_layers_suffice_for_their_list_alone() {
    let server = "server: { layers: [{ ip: { allow: [127.8.0.1, 127.8.0.3] }, sufficient: true }, \
         { ip: { allow: [127.8.0.2], deny: [127.8.0.3] } }] }";
    let web = Web::new(server, "[{ ip: { deny: [127.8.0.1] } }]").await;
    for (last, status) in [(1, 403), (2, 200), (3, 403), (4, 403)] {
        assert_eq!(web.get(last, "/who").await.status, status, "{last}");
    }
    assert_eq!(web.service.stats.begun(), 1);
}

#[tokio::test]
async fn p_15_3_the_last_sufficient_layer_denies() {
    let layers = "[{ ip: { allow: [127.8.0.1] }, sufficient: true }, \
         { ip: { allow: [127.8.0.2] }, sufficient: true }, \
         { ip: { allow: [127.8.0.9] }, enforce: false }]";
    let web = Web::new("", layers).await;
    for (last, status) in [(1, 200), (2, 200), (3, 403)] {
        assert_eq!(web.get(last, "/who").await.status, status, "{last}");
    }
}

/// The address is the one that a trusted proxy reports, and never one that a visitor claims.
#[tokio::test]
async fn p_15_1_only_trusted_proxies_report_the_address() {
    let web = Web::new("server: { trusted_proxies: [127.8.0.9] }", RULES).await;
    for (last, reported, status) in [
        (9, "127.8.0.66", 403),
        (9, "127.8.0.1", 200),
        (9, "::ffff:127.8.0.66", 403),
        (9, "198.51.100.1", 403),
        (66, "127.8.0.1", 403),
        (1, "127.8.0.66", 200),
    ] {
        let mut visitor = web.visitor(last).await;
        let response = get_with(&mut visitor, "/who", &[("x-forwarded-for", reported)]).await;
        assert_eq!(response.status, status, "{last} {reported}");
    }
}

#[tokio::test]
async fn layers_of_an_entry_of_tcp_admit_by_address() {
    let service = Service::site("erp").await;
    let config = format!(
        "server: {{ upstreams: [{{ name: erp, protocol: tcp, servers: [{{ address: \"{}\" }}] }}] }}",
        service.addr
    );
    let server = Server::with(&config).await;
    let entry = format!(
        "client:\n  entries:\n    - {{ name: erp, type: tcp, listen: 0, upstream: erp, layers: {RULES} }}\n"
    );
    let client = Client::start(ClientOptions::file(&server, ID, &entry)).await;
    let listen = client.status().await["entries"][0]["listen"]
        .as_str()
        .unwrap()
        .parse();
    let listen = listen.unwrap();
    assert!(is_reset(66, listen).await);
    let mut admitted = Visitor::http1_from(source(1), listen, "erp").await;
    assert_eq!(admitted.get("/who").await.text(), "erp");
}
