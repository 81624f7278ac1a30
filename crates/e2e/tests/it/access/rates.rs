//! The layer `rate_limit`.

use adit_e2e::{Client, ClientOptions, Raw, Scripted, Server, connect_from};
use tokio::io::AsyncReadExt;

use super::{ID, Web, file, get_with, is_reset, port_of, reaches, verdict};

#[tokio::test]
async fn p_15_8_an_address_above_its_rate_gets_429() {
    let web = Web::new("", "[{ rate_limit: { requests: 2/h } }]").await;
    let mut visitor = web.visitor(1).await;
    for _ in 0..2 {
        assert_eq!(verdict(&visitor.get("/who").await), (200, ""));
    }
    let above = visitor.get("/who").await;
    assert_eq!(verdict(&above), (429, "limit"));
    let wait: u64 = above.header("retry-after").parse().unwrap();
    assert!((1_700..=1_800).contains(&wait), "{wait}");
    // The connection stays usable, and another address is not affected.
    assert_eq!(visitor.get("/who").await.status, 429);
    assert_eq!(web.get(2, "/who").await.status, 200);
    assert_eq!(web.count("/access/denied/rate_limit").await, 2);
    assert_eq!(web.service.stats.begun(), 3);
}

/// An unchanged layer keeps its counts when the file of the server is applied again.
#[tokio::test]
async fn p_15_8_counts_outlive_a_reload() {
    let file = |body: &str| {
        format!(
            "server:\n  layers: [{{ rate_limit: {{ total_requests: 2/h }} }}, {{ response_headers: {{ set: {{ x-a: \"{body}\" }} }} }}]\n"
        )
    };
    let web = Web::new(&file("1"), "[]").await;
    assert_eq!(web.get(1, "/who").await.status, 200);
    web.server.follows(&file("2"), 2).await;
    let second = web.get(2, "/who").await;
    assert_eq!((second.status.as_u16(), second.header("x-a")), (200, "2"));
    assert_eq!(verdict(&web.get(3, "/who").await), (429, "limit"));
}

#[tokio::test]
async fn p_15_8_new_connections_are_limited_for_http_and_tcp() {
    let service = Scripted::start(|stream| async move {
        Raw { stream }.send("hello").await;
    })
    .await;
    let layers = "[{ rate_limit: { connections: 2/h } }]";
    let web = Web::new("", layers).await;
    let mut visitor = web.visitor(1).await;
    for _ in 0..5 {
        assert_eq!(visitor.get("/who").await.status, 200);
    }
    assert_eq!(web.get(1, "/who").await.status, 200);
    assert_eq!(verdict(&web.get(1, "/who").await), (429, "limit"));
    web.client.terminate();

    let server = Server::plain().await;
    let tunnel = format!(
        "name: ssh, type: tcp, local_port: {}, remote_port: 0, layers: {layers}",
        service.addr.port()
    );
    let _client = Client::start(ClientOptions::file(&server, ID, &file(&[tunnel]))).await;
    let addr = port_of(&server, "ssh").await;
    for _ in 0..2 {
        let mut text = [0; 5];
        let mut admitted = connect_from(super::source(1), addr).await;
        admitted.read_exact(&mut text).await.unwrap();
    }
    assert!(is_reset(1, addr).await);
    reaches(&server, "/access/denied/rate_limit", 1).await;
}

#[tokio::test]
async fn p_15_4_a_dry_run_of_a_rate_admits_all() {
    let web = Web::new("", "[{ rate_limit: { requests: 1/h }, enforce: false }]").await;
    let mut visitor = web.visitor(1).await;
    for _ in 0..3 {
        assert_eq!(get_with(&mut visitor, "/who", &[]).await.status, 200);
    }
    assert_eq!(web.count("/access/would_deny/rate_limit").await, 2);
}
