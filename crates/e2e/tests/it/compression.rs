//! Compression on the tunnel hop, from the configuration file to the visitor. F09, section 13 of the protocol.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{Client, ClientOptions, HOST, Server, Service, Visitor, count, full, within};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SOON: Duration = Duration::from_secs(30);

/// Echoes a body with the header lines that the request names in `x-response`: `NAME: VALUE`.
async fn echo() -> Service {
    Service::start(|request| async move {
        let line = request.headers().get("x-response").cloned();
        let body = request.into_body().collect().await;
        let body = body.map_err(std::io::Error::other)?.to_bytes();
        let mut response = Response::new(full(body));
        if let Some((name, value)) = line
            .as_ref()
            .and_then(|line| line.to_str().ok()?.split_once(": "))
        {
            let name = HeaderName::try_from(name).unwrap();
            let value = HeaderValue::try_from(value).unwrap();
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    })
    .await
}

/// A server and a client with these tunnels; each is written as YAML on one line.
async fn world(tunnels: &[String]) -> (Server, Client) {
    let server = Server::plain().await;
    let lines: String = tunnels
        .iter()
        .map(|tunnel| format!("    - {{ {tunnel} }}\n"))
        .collect();
    let config = format!("client:\n  tunnels:\n{lines}");
    let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    (server, client)
}

/// Messages, bytes before compression and bytes on the hop, of the client.
async fn crossed(server: &Server) -> (u64, u64, u64) {
    let status = server.status().await;
    let of = |what: &str| count(&status, &format!("/clients/0/compression/{what}"));
    (of("messages"), of("plain_bytes"), of("packed_bytes"))
}

fn json(length: usize) -> Bytes {
    let line = |n: usize| {
        format!(
            "{{\"id\":{n},\"state\":\"open\",\"amount\":{}}}\n",
            n * 7919 % 997
        )
    };
    let all: String = (0..).map(line).take(length / 20).collect();
    Bytes::from(all).slice(..length)
}

async fn say(server: &Server, line: Option<(&str, &str)>, response: &str, body: Bytes) {
    let mut visitor = Visitor::http1(server.http, HOST).await;
    let mut request = visitor.request(&Method::POST, "/", full(body.clone()));
    if let Some((name, value)) = line {
        let name = HeaderName::try_from(name).unwrap();
        request
            .headers_mut()
            .insert(name, HeaderValue::try_from(value).unwrap());
    }
    let value = HeaderValue::try_from(response).unwrap();
    request.headers_mut().insert("x-response", value);
    let response = within("a response", SOON, visitor.whole(request))
        .await
        .unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.body, body);
    assert_eq!(response.header("content-length"), body.len().to_string());
}

#[tokio::test]
async fn p_13_1_bodies_cross_compressed_and_arrive_unchanged() {
    let service = echo().await;
    for (compression, is_on) in [("zstd", true), ("gzip", true), ("none", false)] {
        let tunnel = format!(
            "name: web, type: http, local_port: {}, domain: {HOST}, compression: {compression}",
            service.port()
        );
        let (server, _client) = world(&[tunnel]).await;
        for length in [300, 20_000, 500_000] {
            say(
                &server,
                None,
                "content-type: application/json",
                json(length),
            )
            .await;
        }
        let (messages, plain, packed) = crossed(&server).await;
        if is_on {
            assert!(messages > 10 && plain > 900_000, "{messages} {plain}");
            assert!(packed * 3 < plain, "{packed} of {plain}");
        } else {
            assert_eq!((messages, plain, packed), (0, 0, 0));
        }
    }
}

#[tokio::test]
async fn p_13_6_compressed_content_is_left_alone() {
    let service = echo().await;
    let tunnel = format!(
        "name: web, type: http, local_port: {}, domain: {HOST}, compression: zstd",
        service.port()
    );
    let (server, _client) = world(&[tunnel]).await;
    let body = || json(100_000);
    let encoded = Some(("content-encoding", "gzip"));
    say(&server, encoded, "content-encoding: br", body()).await;
    say(
        &server,
        Some(("content-type", "image/png")),
        "content-type: video/mp4",
        body(),
    )
    .await;
    assert_eq!(crossed(&server).await, (0, 0, 0));
    // Each direction is checked separately.
    say(&server, encoded, "content-type: text/plain", body()).await;
    let (_, plain, packed) = crossed(&server).await;
    assert!((90_000..=100_000).contains(&plain), "{plain}");
    say(&server, None, "content-encoding: gzip", body()).await;
    let (_, both, _) = crossed(&server).await;
    assert!((180_000..=200_000).contains(&both), "{both}");
    assert!(packed * 3 < plain);
}

/// A service that returns every byte.
async fn parrot() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn f09_a_tcp_connection_crosses_compressed_message_by_message() {
    let service = parrot().await;
    let tunnel = format!(
        "name: db, type: tcp, local_port: {}, remote_port: 4100, compression: zstd",
        service.port()
    );
    let (server, _client) = world(&[tunnel]).await;
    let addr = SocketAddr::new(server.tunnel.ip(), 4100);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Each text is received before the next one is sent.
    for n in 0..20 {
        let sent = json(400 + n);
        stream.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        let read = stream.read_exact(&mut received);
        within("the text", SOON, read).await.unwrap();
        assert_eq!(received, sent);
    }
    let (_, plain, packed) = crossed(&server).await;
    assert!(plain >= 2 * 19 * 400, "{plain}");
    assert!(packed * 3 < plain, "{packed} of {plain}");
    let (sent, mut received) = (json(3 << 20), Vec::new());
    let (mut read, mut write) = stream.split();
    let speaks = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(speaks, read.read_to_end(&mut received)).1 };
    within("all of it", SOON, both).await.unwrap();
    assert_eq!(received.len(), sent.len());
    assert!(received == sent);
}
