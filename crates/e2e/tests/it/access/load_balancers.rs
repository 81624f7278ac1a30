//! PROXY protocol headers of load balancers.

use adit_e2e::{Client, ClientOptions, End, Raw, Server, connect_from};

use super::{ID, Web, file, port_of, reaches, source};

const CONFIG: &str = "server: { trusted_proxies: [127.8.0.9], proxy_protocol: required }";
const RULES: &str = "[{ ip: { deny: [198.51.100.0/24] } }]";
const GET: &str = "GET /request HTTP/1.1\r\nHost: web.localhost\r\nConnection: close\r\n\r\n";

async fn raw(server: &Server, last: u8, bytes: &str) -> adit_e2e::Read {
    let stream = connect_from(source(last), server.http).await;
    let mut raw = Raw { stream };
    raw.send(bytes).await;
    raw.read_to_end().await
}

fn from(visitor: &str) -> String {
    format!("PROXY TCP4 {visitor} 127.0.0.1 4711 80\r\n{GET}")
}

#[tokio::test]
async fn p_15_11_the_header_of_a_listed_proxy_reports_the_visitor() {
    let web = Web::new(CONFIG, RULES).await;
    let admitted = raw(&web.server, 9, &from("192.0.2.7")).await;
    assert_eq!(admitted.status(), 200);
    assert!(
        admitted.text().contains("\"192.0.2.7\""),
        "{}",
        admitted.text()
    );
    let denied = raw(&web.server, 9, &from("198.51.100.7")).await;
    assert_eq!(denied.status(), 403);
    assert_eq!(
        denied.header("adit-reason").as_deref(),
        Some("access_denied")
    );
    // A proxy without a header is closed, another peer is an ordinary visitor, and its header is no request.
    assert_eq!(raw(&web.server, 9, GET).await.bytes.len(), 0);
    assert_eq!(raw(&web.server, 1, GET).await.status(), 200);
    assert_eq!(raw(&web.server, 1, &from("192.0.2.7")).await.status(), 400);
    reaches(&web.server, "/access/denied/proxy_protocol", 1).await;
}

#[tokio::test]
async fn p_15_11_connections_of_tcp_have_the_address_of_the_header() {
    let server = Server::with(CONFIG).await;
    let service = adit_e2e::Scripted::start(|stream| async move {
        Raw { stream }.send("hello").await;
    })
    .await;
    let port = service.addr.port();
    let tunnel =
        format!("name: ssh, type: tcp, local_port: {port}, remote_port: 0, layers: {RULES}");
    let _client = Client::start(ClientOptions::file(&server, ID, &file(&[tunnel]))).await;
    let addr = port_of(&server, "ssh").await;
    for (visitor, expected) in [
        ("192.0.2.7", ("hello", End::Closed)),
        ("198.51.100.7", ("", End::Reset)),
    ] {
        let mut raw = Raw {
            stream: connect_from(source(9), addr).await,
        };
        raw.send(format!("PROXY TCP4 {visitor} 127.0.0.1 4711 22\r\n"))
            .await;
        let read = raw.read_to_end().await;
        assert_eq!((&*read.text(), read.end), expected, "{visitor}");
    }
    reaches(&server, "/access/denied/ip", 1).await;
}
