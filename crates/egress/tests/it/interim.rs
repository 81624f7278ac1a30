//! Interim responses of services for visitors (P-3.1).

use adit_codec::ResponseHead;
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, RecvHalf};
use adit_testlink::{
    EgressLink, TunnelRequest, http_service,
    http1::{fixed, read_head, send},
    next_part, read,
    tcp::serve,
};
use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Status and lines of the next part, which is the head of a response.
async fn next_head(recv: &mut RecvHalf) -> (u16, Vec<(String, String)>) {
    match next_part(recv).await {
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
async fn p_3_1_interim_responses_cross_with_their_headers() {
    let port = fixed(
        "HTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Content-Length: 5\r\nKeep-Alive: 1\r\nX-B: 1\r\n\r\n\
         HTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let Exchange { send, mut recv } = link.open(TunnelRequest::get("/").http(b""), true);
    assert_eq!(next_head(&mut recv).await, (102, vec![]));
    let lines = vec![line("link", "</a.css>; rel=preload"), line("x-b", "1")];
    assert_eq!(next_head(&mut recv).await, (103, lines));
    // The request does not expect a 100.
    let response = read(&mut recv).await.unwrap();
    assert_eq!((response.status, response.text()), (200, "ok"));
    drop((send, recv));
    link.settled().await;
}

#[tokio::test]
async fn p_3_1_interim_responses_are_bounded_and_100_keeps_a_place() {
    const HEAD: &str = "HTTP/1.1 102 Processing\r\n\r\n";
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        send(&mut socket, HEAD.repeat(40).as_bytes()).await;
        send(&mut socket, b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let mut body = [0; 5];
        socket.read_exact(&mut body).await.unwrap();
        send(&mut socket, b"HTTP/1.1 204 No Content\r\n\r\n").await;
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let headers = [("expect", "100-continue"), ("content-length", "5")];
    let request = TunnelRequest::new("POST", "/", &headers);
    let Exchange { send, mut recv } = link.open(request.http(b""), false);
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
async fn endless_interim_responses_time_out() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(2_000);
        let _ = socket.write_all(many.as_bytes()).await;
        let _ = socket.read_u8().await;
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let failure = link.get("/").await.unwrap_err();
    assert!(
        failure.detail.contains("too many interim responses"),
        "{failure:?}"
    );
}

/// The body is sent after the service's 100, and the 100 after the head: the test hangs if the 100 is delayed.
#[tokio::test]
async fn p_3_5_the_100_of_an_http2_service_crosses_at_once() {
    let port = serve(|socket, _| async move {
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
    let link = EgressLink::new(Config::default());
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    link.serve(to);
    let headers = [("expect", "100-continue"), ("content-length", "5")];
    let request = TunnelRequest::new("POST", "/", &headers);
    let Exchange { send, mut recv } = link.open(request.http(b""), false);
    let lines = vec![line("link", "</a>"), line("x-b", "1")];
    assert_eq!(next_head(&mut recv).await, (103, lines));
    assert_eq!(next_head(&mut recv).await.0, 100);
    send.send_all(Bytes::from_static(b"hello"), true)
        .await
        .unwrap();
    let response = read(&mut recv).await.unwrap();
    assert_eq!((response.status, response.text()), (200, "ok"));
    drop((send, recv));
    link.settled().await;
}
