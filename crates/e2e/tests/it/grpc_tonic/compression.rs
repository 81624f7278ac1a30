//! Calls, WebSockets and client entries with compression (section 13 of the protocol).

use adit_e2e::{Client, ClientOptions, Server, count, within};
use futures_util::{SinkExt, StreamExt as _};
use http_body_util::BodyExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message as Frame};

use crate::grpc_tonic::{SOON, echo::Message, message, service::Service, visitor, world};

/// Bytes before compression and bytes on the hop of the client, both directions together.
async fn crossed(server: &Server) -> (u64, u64) {
    let status = server.status().await;
    let of = |what: &str| count(&status, &format!("/clients/0/compression/{what}"));
    (of("plain_bytes"), of("packed_bytes"))
}

fn text(length: usize) -> String {
    let lines = (0..).map(|n| format!("line {} of a text that repeats itself\n", n * 7 % 101));
    let mut text: String = lines.take(length / 30).collect();
    text.truncate(length);
    text
}

#[tokio::test]
async fn p_13_1_messages_of_calls_cross_compressed_and_arrive_unchanged() {
    let service = Service::start("one").await;
    for (compression, is_on) in [("zstd", true), ("gzip", true), ("none", false)] {
        let port = service.addr.port();
        let tunnel =
            format!("name: rpc, type: grpc, local_port: {port}, compression: {compression}");
        let (_client, server) = world("", &[tunnel]).await;
        let mut visitor = visitor(&server, "rpc.localhost").await;
        let sent: Vec<Message> = (1..40).map(|n| message(&text(n * 1_000), 0)).collect();
        let heard = visitor
            .chat(tokio_stream::iter(sent.clone()))
            .await
            .unwrap();
        let mut heard = heard.into_inner();
        for sent in sent {
            let heard = within("a message", SOON, heard.message())
                .await
                .unwrap()
                .unwrap();
            assert_eq!((heard.text, heard.count), (sent.text, 1));
        }
        assert_eq!(heard.message().await.unwrap(), None);
        let (plain, packed) = crossed(&server).await;
        if is_on {
            assert!(plain > 700_000, "{compression}: {plain}");
            assert!(packed * 3 < plain, "{compression}: {packed} of {plain}");
        } else {
            assert_eq!((plain, packed), (0, 0));
        }
    }
}

#[tokio::test]
async fn p_13_1_websocket_frames_cross_compressed_and_arrive_unchanged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(socket).await.unwrap();
                while let Some(Ok(frame)) = socket.next().await {
                    if frame.is_text() || frame.is_binary() {
                        socket.send(frame).await.unwrap();
                    }
                }
            });
        }
    });
    for compression in ["zstd", "gzip"] {
        let tunnel =
            format!("name: ws, type: websocket, local_port: {port}, compression: {compression}");
        let (_client, server) = world("", &[tunnel]).await;
        let socket = TcpStream::connect(server.http).await.unwrap();
        let (mut socket, _) = client_async("ws://ws.localhost/", socket).await.unwrap();
        for length in [10, 1_000, 60_000, 500_000] {
            let text = text(length);
            let frames = [Frame::text(text.clone()), Frame::binary(text.into_bytes())];
            for frame in frames {
                socket.send(frame.clone()).await.unwrap();
                let heard = within("a frame", SOON, socket.next())
                    .await
                    .unwrap()
                    .unwrap();
                assert!(heard == frame, "{compression}: {} bytes", heard.len());
            }
        }
        let (plain, packed) = crossed(&server).await;
        assert!(plain > 1_000_000, "{compression}: {plain}");
        assert!(packed * 3 < plain, "{compression}: {packed} of {plain}");
    }
}

/// F08: payload from visitors of an entry is compressed as the entry is configured, and responses as the upstream is
/// configured.
#[tokio::test]
async fn an_entry_and_its_upstream_compress_their_direction() {
    let site = adit_e2e::Service::start(|request| async move {
        let body = request.into_body().collect().await;
        let body = body.map_err(std::io::Error::other)?.to_bytes();
        let mut response = http::Response::new(adit_e2e::full(body));
        let kind = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert("content-type", kind);
        Ok(response)
    })
    .await;
    for (entry, upstream) in [("zstd", "none"), ("none", "gzip"), ("gzip", "zstd")] {
        let address = site.addr;
        let config = format!(
            "server:\n  upstreams: [{{ name: erp, compression: {upstream}, servers: [{{ address: \"{address}\" }}] }}]\n"
        );
        let server = Server::with(&config).await;
        let config = format!(
            "client:\n  entries: [{{ name: erp, listen: 0, upstream: erp, compression: {entry} }}]\n"
        );
        let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
        let status = client.status().await;
        let listens = status["entries"][0]["listen"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let body = text(300_000);
        let response = adit_e2e::post(listens, "erp.internal", "/", body.clone()).await;
        assert!(response.body == body, "{} bytes", response.body.len());
        let (plain, packed) = crossed(&server).await;
        let directions = [entry, upstream]
            .iter()
            .filter(|one| **one != "none")
            .count() as u64;
        let all = directions * body.len() as u64;
        assert!(
            (all * 9 / 10..=all).contains(&plain),
            "{entry} {upstream}: {plain} of {all}"
        );
        assert!(
            packed * 3 < plain,
            "{entry} {upstream}: {packed} of {plain}"
        );
    }
}
