//! Visitors over streams that are not TCP: TLS, and memory on paused time.

use adit_codec::{HttpRequest, HttpResponseHead, ResetCode};
use adit_ingress::layers::Forwarded;
use adit_link::{Exchange, Part};
use adit_net::Stream;
use adit_testlink::{
    HttpEntry, Link, Route,
    exchanges::{begin, hello},
    http_config,
    http1::{read_to_end, read_until, send},
    http2,
    streams::{in_memory, tls},
};
use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// An entry whose service receives the scheme.
fn entry() -> HttpEntry {
    let forwarded = Forwarded::new(std::iter::empty().collect());
    let link = Link::serving(hello);
    Route::to(&link).layer(forwarded).http(http_config())
}

/// A visitor over TLS.
async fn over_tls(entry: &HttpEntry, alpn: &[&[u8]]) -> Stream {
    let (visitor, ours) = tls(in_memory(entry.addr), alpn).await;
    entry.serve_stream(ours);
    visitor
}

fn scheme(entry: &HttpEntry) -> String {
    let request = entry.seen().pop_back().unwrap();
    let proto = request.headers.first(b"x-forwarded-proto").unwrap();
    assert_eq!(proto, &request.scheme[..]);
    String::from_utf8(proto.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_http1_visitor_is_served_over_memory_and_tls() {
    for (is_tls, expected) in [(false, "http"), (true, "https")] {
        let entry = entry();
        let mut visitor = if is_tls {
            over_tls(&entry, &[]).await
        } else {
            entry.connect().await
        };
        send(&mut visitor, GET).await;
        visitor.flush().await.unwrap();
        let response = read_to_end(&mut visitor).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert_eq!(scheme(&entry), expected);
        entry.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_visitor_is_served_over_memory_and_tls() {
    for (is_tls, expected) in [(false, "http"), (true, "https")] {
        let entry = entry();
        let visitor = if is_tls {
            over_tls(&entry, &[b"h2"]).await
        } else {
            entry.connect().await
        };
        let mut visitor = http2::connect::<Empty<Bytes>>(visitor).await;
        for _ in 0..3 {
            let request = Request::get(format!("{expected}://a.test/"));
            let request = request.body(Empty::new()).unwrap();
            let response = visitor.send_request(request).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.unwrap();
            assert_eq!(scheme(&entry), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_visitor_is_closed_after_the_head_timeout() {
    for is_tls in [false, true] {
        let entry = entry();
        let mut visitor = if is_tls {
            over_tls(&entry, &[]).await
        } else {
            entry.connect().await
        };
        let began = Instant::now();
        // TLS reports an end without an alert as an error.
        assert_eq!(visitor.read(&mut [0]).await.is_err(), is_tls);
        assert_eq!(began.elapsed(), http_config().head_timeout);
    }
}

/// P-7.1: a visitor's connection is reset when the service breaks off, so that the body does not look complete.
#[tokio::test(start_paused = true)]
async fn a_truncated_response_never_looks_complete() {
    for is_tls in [false, true] {
        let (entry, mut incoming) = HttpEntry::scripted(http_config());
        let mut visitor = if is_tls {
            over_tls(&entry, &[]).await
        } else {
            entry.connect().await
        };
        send(&mut visitor, GET).await;
        visitor.flush().await.unwrap();
        let (_, exchange) = incoming.http().await;
        begin(&exchange, 200, &[], b"part");
        read_until(&mut visitor, "part").await;
        exchange.send.reset(ResetCode::ServiceAborted, "broke off");
        read_to_end(&mut visitor).await.unwrap_err();
    }
}

/// Changes to another protocol, returns all bytes, and sends `bye` at the end.
async fn echoes(_: HttpRequest, mut exchange: Exchange) {
    let switch = HttpResponseHead::encode_switch(b"tcp", std::iter::empty()).unwrap();
    exchange.send.respond(switch, false).unwrap();
    while let Some(part) = exchange.recv.part().await {
        let Ok(Part::Data(payload)) = part else {
            panic!("no payload: {part:?}")
        };
        let bytes = payload.bytes().clone();
        exchange.send.send_all(bytes, false).await.unwrap();
    }
    let bye = Bytes::from_static(b"bye");
    exchange.send.send_all(bye, true).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_is_carried_over_memory_and_tls() {
    const UPGRADE: &str =
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    for is_tls in [false, true] {
        let entry = HttpEntry::serving(http_config(), echoes);
        let mut visitor = if is_tls {
            over_tls(&entry, &[]).await
        } else {
            entry.connect().await
        };
        send(&mut visitor, UPGRADE).await;
        visitor.flush().await.unwrap();
        read_until(&mut visitor, "\r\n\r\n").await;
        let large = vec![b'x'; 1 << 20];
        let (mut reading, mut writing) = tokio::io::split(&mut visitor);
        let mut all = Vec::new();
        let writing = async {
            writing.write_all(&large).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(writing, reading.read_to_end(&mut all));
        read.unwrap();
        assert_eq!(all.len(), large.len() + 3);
        assert!(all.ends_with(b"xbye"));
    }
}
