//! Interim answers of services on their way to visitors (P-3.1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use adit_codec::ResponseHead;
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, RecvHalf};
use bytes::Bytes;
use http::Response;
use support::{Ask, Pair, fixed, read, read_head, scripted, service, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Status and lines of the next part, which is the head of an answer.
async fn next_head(recv: &mut RecvHalf) -> (u16, Vec<(String, String)>) {
    match within(recv.part()).await {
        Some(Ok(Part::Response(ResponseHead::Http(head)))) => {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let lines = head.headers.lines().map(|(n, v)| (text(n), text(v)));
            (head.status, lines.collect())
        }
        other => panic!("no head: {other:?}"),
    }
}

fn line(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn p_3_1_interim_answers_cross_with_their_headers() {
    let port = fixed(
        "HTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Content-Length: 5\r\nKeep-Alive: 1\r\nX-B: 1\r\n\r\n\
         HTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let pair = Pair::to(port, Config::default());
    let Exchange { send, mut recv } = pair.open(&Ask::get("/"), b"", true);
    assert_eq!(next_head(&mut recv).await, (102, vec![]));
    let lines = vec![line("link", "</a.css>; rel=preload"), line("x-b", "1")];
    assert_eq!(next_head(&mut recv).await, (103, lines));
    // Nobody has asked for a 100.
    let answer = read(&mut recv).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    drop((send, recv));
    pair.settled().await;
}

#[tokio::test]
async fn p_3_1_as_many_cross_as_the_wire_allows_and_100_has_a_place() {
    const HEAD: &str = "HTTP/1.1 102 Processing\r\n\r\n";
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        socket.write_all(HEAD.repeat(40).as_bytes()).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        let mut body = [0; 5];
        socket.read_exact(&mut body).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    let pair = Pair::to(port, Config::default());
    let headers = [("expect", "100-continue"), ("content-length", "5")];
    let ask = Ask::new("POST", "/", &headers);
    let Exchange { send, mut recv } = pair.open(&ask, b"", false);
    for _ in 0..15 {
        assert_eq!(next_head(&mut recv).await.0, 102);
    }
    assert_eq!(next_head(&mut recv).await.0, 100);
    send.send_all(Bytes::from_static(b"hello"), true)
        .await
        .unwrap();
    assert_eq!(next_head(&mut recv).await.0, 204);
}

#[tokio::test]
async fn a_service_that_never_comes_to_its_answer_is_given_up() {
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(2_000);
        let _ = socket.write_all(many.as_bytes()).await;
        let _ = socket.read_u8().await;
    })
    .await;
    let pair = Pair::to(port, Config::default());
    let failure = pair.get("/").await.unwrap_err();
    assert!(
        failure.detail.contains("too many interim responses"),
        "{failure:?}"
    );
}

/// The body follows the service's 100, and the service's 100 follows nothing but the head: whoever waits longer hangs.
#[tokio::test]
async fn p_3_5_a_service_of_http_2_has_its_100_cross_at_once() {
    let port = scripted(|socket, _| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let serving = async move {
            let interim = |status: u16| Response::builder().status(status);
            let hints = interim(103).header("link", "</a>").header("x-b", "1");
            respond.send_informational(hints.body(()).unwrap()).unwrap();
            respond
                .send_informational(interim(100).body(()).unwrap())
                .unwrap();
            let mut body = request.into_body();
            let data = body.data().await.unwrap().unwrap();
            assert_eq!(&data[..], b"hello");
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
        };
        tokio::spawn(serving);
        while connection.accept().await.is_some() {}
    })
    .await;
    let pair = Pair::new(Config::default());
    let mut to = service(port);
    to.protocol = Protocol::Http2;
    pair.serve(to);
    let headers = [("expect", "100-continue"), ("content-length", "5")];
    let ask = Ask::new("POST", "/", &headers);
    let Exchange { send, mut recv } = pair.open(&ask, b"", false);
    let lines = vec![line("link", "</a>"), line("x-b", "1")];
    assert_eq!(next_head(&mut recv).await, (103, lines));
    assert_eq!(next_head(&mut recv).await.0, 100);
    send.send_all(Bytes::from_static(b"hello"), true)
        .await
        .unwrap();
    let answer = read(&mut recv).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    drop((send, recv));
    pair.settled().await;
}
