//! Requests that offer to change to another protocol (P-3.7), at the service.

use adit_codec::ResponseHead;
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, Reason, RecvHalf};
use adit_testlink::{
    EgressLink, TunnelRequest, http_service,
    http1::{self, fixed, read_head, send},
    next_part, read,
    tcp::{serve, service},
    within,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

const SWITCH: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                      Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

/// A service that changes the protocol, and passes the connection and the head to the test.
async fn switching(response: String) -> (u16, mpsc::UnboundedReceiver<(TcpStream, String)>) {
    service(move |mut socket, _| {
        let response = response.clone();
        async move {
            let mut head = read_head(&mut socket).await.unwrap();
            if head.contains("content-length: 2") {
                let mut body = [0; 2];
                socket.read_exact(&mut body).await.unwrap();
                head.push_str(std::str::from_utf8(&body).unwrap());
            }
            send(&mut socket, response).await;
            (socket, head)
        }
    })
    .await
}

async fn switched(recv: &mut RecvHalf) -> Bytes {
    match next_part(recv).await {
        Some(Ok(Part::Response(ResponseHead::Http(head)))) => {
            assert_eq!(head.status, 101);
            assert_eq!(head.headers.first(b"upgrade"), None);
            let kind = head.headers.first(b"content-type");
            assert_eq!(kind, Some(&b"application/vnd.docker.raw-stream"[..]));
            head.upgrade
        }
        other => panic!("no switch: {other:?}"),
    }
}

/// Reads this many bytes of payload.
async fn bytes(recv: &mut RecvHalf, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match next_part(recv).await {
            Some(Ok(Part::Data(data))) => all.extend_from_slice(data.as_ref()),
            other => panic!("no payload: {other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn p_3_7_bytes_go_both_ways_after_the_switch() {
    let (port, mut connections) = switching(format!("{SWITCH}early")).await;
    let link = EgressLink::to(http_service(port), Config::default());
    let headers = [("content-length", "2"), ("te", "trailers")];
    let request = TunnelRequest::new("POST", "/exec/1/start", &headers);
    let Exchange { send, mut recv } = link.open(request.offer("tcp", b"{}"), false);
    assert_eq!(switched(&mut recv).await, "tcp");
    assert_eq!(bytes(&mut recv, 5).await, b"early");
    let (mut socket, head) = within(connections.recv()).await.unwrap();
    assert!(
        head.starts_with("POST /exec/1/start HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nupgrade: tcp\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: te, Upgrade\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n{}"), "{head}");

    // Bytes cross in both directions, and the visitor ends first.
    let ping = Bytes::from_static(b"ping");
    send.send_all(ping, true).await.unwrap();
    let mut all = Vec::new();
    within(socket.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"ping");
    http1::send(&mut socket, b"pong").await;
    assert_eq!(bytes(&mut recv, 4).await, b"pong");
    drop(socket);
    assert!(next_part(&mut recv).await.is_none());
    drop((send, recv));
    link.settled().await;
    // The connection is not reused.
    let stats = link.egress.stats();
    assert_eq!((stats.idle, stats.reused), (0, 0));
}

#[tokio::test]
async fn p_3_7_the_service_may_end_first() {
    let (port, mut connections) = switching(SWITCH.to_owned()).await;
    let link = EgressLink::to(http_service(port), Config::default());
    let Exchange { send, mut recv } = link.open(TunnelRequest::get("/").offer("tcp", b""), false);
    switched(&mut recv).await;
    let (mut socket, head) = within(connections.recv()).await.unwrap();
    assert!(head.contains("\r\nconnection: Upgrade\r\n"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    socket.shutdown().await.unwrap();
    assert!(next_part(&mut recv).await.is_none());
    let late = Bytes::from_static(b"late");
    send.send_all(late, true).await.unwrap();
    let mut all = Vec::new();
    within(socket.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"late");
    drop((send, recv));
    link.settled().await;
}

#[tokio::test]
async fn p_3_7_a_service_that_does_not_change_keeps_its_connection() {
    let port = fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let link = EgressLink::to(http_service(port), Config::default());
    for _ in 0..2 {
        let Exchange { send, mut recv } =
            link.open(TunnelRequest::get("/").offer("tcp", b""), false);
        let response = read(&mut recv).await.unwrap();
        assert_eq!((response.status, response.text()), (200, "no"));
        let _ = send.finish();
        drop((send, recv));
        link.settled().await;
    }
    assert_eq!(link.egress.stats().dialled, 1);
}

#[tokio::test]
async fn a_service_that_breaks_off_after_the_switch_resets() {
    let (port, mut connections) = switching(SWITCH.to_owned()).await;
    let link = EgressLink::to(http_service(port), Config::default());
    let Exchange { send, mut recv } = link.open(TunnelRequest::get("/").offer("tcp", b""), false);
    switched(&mut recv).await;
    let (socket, _) = within(connections.recv()).await.unwrap();
    socket2::SockRef::from(&socket)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(socket);
    let failure = next_part(&mut recv).await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted);
    drop((send, recv));
    link.settled().await;
}

#[tokio::test]
async fn p_3_7_over_http_2_an_offer_is_an_ordinary_request() {
    let port = serve(|socket, _| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                assert!(request.headers().get("upgrade").is_none());
                let mut body = request.into_body();
                let mut all = Vec::new();
                while let Some(data) = body.data().await {
                    all.extend_from_slice(&data.unwrap());
                }
                let mut stream = respond
                    .send_response(http::Response::new(()), false)
                    .unwrap();
                stream.send_data(all.into(), true).unwrap();
            });
        }
    })
    .await;
    let link = EgressLink::new(Config::default());
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    link.serve(to);
    for (headers, body) in [(&[][..], ""), (&[("content-length", "2")][..], "{}")] {
        let request = TunnelRequest::new("POST", "/", headers);
        let Exchange { send, mut recv } = link.open(request.offer("tcp", body.as_bytes()), false);
        let response = read(&mut recv).await.unwrap();
        assert_eq!((response.status, response.text()), (200, body));
        drop((send, recv));
        link.settled().await;
    }
}
