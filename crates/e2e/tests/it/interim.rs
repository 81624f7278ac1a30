//! Interim responses and `100 Continue` for visitors of HTTP/2, through both binaries. P-3.1, P-3.5.

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use adit_e2e::{Client, ClientOptions, HOST, Scripted, Server, within};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SOON: Duration = Duration::from_secs(30);

/// With this setting only a service ends the wait for `100 Continue`.
const PATIENT: &str = "  timeouts: { continue_wait: 10m }\n";

/// A service over HTTP/1.1 that sends hints and requests the body.
async fn http1() -> Scripted {
    Scripted::start(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                // Checks whether a byte has arrived.
                Err(_) => return,
            }
        }
        let interim =
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        stream.write_all(interim).await.unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(&[head, &body[..]].concat()).await.unwrap();
    })
    .await
}

/// A service over HTTP/2 that sends hints and requests the body.
async fn http2() -> Scripted {
    Scripted::start(|stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut hints = Response::new(());
                *hints.status_mut() = StatusCode::EARLY_HINTS;
                hints
                    .headers_mut()
                    .insert("link", HeaderValue::from_static("</a>"));
                respond.send_informational(hints).unwrap();
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                respond.send_informational(go_on).unwrap();
                let body = read(request.into_body()).await;
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(body, true).unwrap();
            });
        }
    })
    .await
}

async fn read(mut body: h2::RecvStream) -> Bytes {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all.into()
}

/// A visitor that sends its body after the response 100, and not before.
async fn visit(entry: SocketAddr, host: &str) {
    let stream = TcpStream::connect(entry).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{host}/"))
        .header("expect", "100-continue")
        .header("content-length", "5")
        .body(())
        .unwrap();
    let (mut response, mut send) = requests.send_request(request, false).unwrap();
    let mut interim = Vec::new();
    while interim.last().is_none_or(|last| *last != 100) {
        let next = poll_fn(|cx| response.poll_informational(cx));
        let next = within("an interim response", SOON, next).await;
        let next = next.expect("an interim response").unwrap();
        assert_eq!(next.headers().contains_key("link"), next.status() == 103);
        interim.push(next.status().as_u16());
    }
    assert_eq!(interim, [103, 100]);
    send.send_data("hello".into(), true).unwrap();
    let response = within("the response", SOON, response).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = within("the body", SOON, read(response.into_body())).await;
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn interim_responses_reach_visitors_of_http_2_of_a_tunnel() {
    for (service, protocol) in [(http1().await, "http1"), (http2().await, "h2c")] {
        let server = Server::with(&format!("server:\n{PATIENT}")).await;
        let options = ClientOptions::http(&server, "client-1", "web", service.addr)
            .arg("--local-protocol", protocol);
        let _client = Client::start(options).await;
        visit(server.http, HOST).await;
    }
}

#[tokio::test]
async fn interim_responses_reach_http_2_visitors_of_an_entry() {
    for (service, protocol) in [(http1().await, "http1"), (http2().await, "h2c")] {
        let addr = service.addr;
        let server = format!(
            "server:\n  upstreams: [{{ name: erp, protocol: {protocol}, servers: [{{ address: \"{addr}\" }}] }}]\n"
        );
        let server = Server::with(&server).await;
        let client = format!(
            "client:\n  entries: [{{ name: erp, type: http, listen: \"127.0.0.1:0\", upstream: erp }}]\n{PATIENT}"
        );
        let client = Client::start(ClientOptions::file(&server, "office", &client)).await;
        let status = client.status().await;
        let listens = |entry: &Value| entry["listen"].as_str()?.parse().ok();
        let entry = listens(&status["entries"][0]).expect("an address");
        visit(entry, "erp.internal").await;
    }
}
