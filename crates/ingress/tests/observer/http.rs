//! Requests of HTTP/1 and HTTP/2.

use std::time::Instant;

use adit_codec::Side;
use adit_link::Part;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;

use crate::{
    rig::{CARRIED, Rig, crossed},
    world::{answer, body_of, config, read_to_end, read_until, within},
};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: Web.Localhost:80\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_record_says_who_asked_for_what_and_what_came_of_it() {
    let mut rig = Rig::new().await;
    let before = Instant::now();
    let mut visitor = rig.world.connect().await;
    let addr = visitor.local_addr().unwrap();
    let request = get("/a?secret=1");
    visitor.write_all(request.as_bytes()).await.unwrap();
    let (head, exchange) = rig.http().await;
    answer(&exchange, 201, &[], b"hello");
    read_to_end(&mut visitor).await.unwrap();
    let told = rig.told().await;
    assert_eq!(told.protocol, "http");
    assert_eq!(told.uuid, head.open.request_uuid);
    told.led_to("web");
    assert_eq!(told.visitor, addr.to_string());
    assert_eq!(told.port, rig.world.addr.port());
    let (scheme, method, host, path, version) = &told.asked;
    assert_eq!((*scheme, &method[..]), ("http", "GET"));
    assert_eq!((&host[..], &path[..]), ("Web.Localhost", "/a"));
    assert_eq!(*version, "HTTP/1.1");
    assert_eq!(told.outcome(), (201, None, 0, 5));
    assert_eq!((told.grpc_status, told.retries), (None, 0));
    assert!(before <= told.started && told.answered.is_some());
    assert_eq!(told.phases(), CARRIED);
    assert_eq!(told.spans()[0].start, told.started);
    crossed(&told, 0, &head.open.traceparent);
    assert_eq!(told.timeline.unwrap().parent(), None);
    drop(exchange);
    rig.is_over().await;
}

/// Whoever only counts gets what it counts by. What is traced is told of in full.
#[tokio::test]
async fn who_only_counts_is_not_told_of_hosts_and_paths() {
    for (ratio, host, path) in [(0.0, "", ""), (1.0, "Web.Localhost", "/a")] {
        let mut rig = Rig::with(config(), ratio).await;
        rig.recorder.counts_only();
        let mut visitor = rig.world.connect().await;
        visitor.write_all(get("/a").as_bytes()).await.unwrap();
        let (_, exchange) = rig.http().await;
        answer(&exchange, 201, &[], b"hello");
        read_to_end(&mut visitor).await.unwrap();
        let told = rig.told().await;
        assert_eq!(told.protocol, "http");
        told.led_to("web");
        assert_eq!(told.outcome(), (201, None, 0, 5));
        assert_eq!((&told.asked.2[..], &told.asked.3[..]), (host, path));
    }
}

#[tokio::test]
async fn each_request_of_a_connection_has_its_own_record() {
    let mut rig = Rig::new().await;
    let mut visitor = rig.world.connect().await;
    let mut ended = None;
    for path in ["/1", "/2", "/3"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        visitor.write_all(request.as_bytes()).await.unwrap();
        let (_, exchange) = rig.http().await;
        answer(&exchange, 200, &[], path.as_bytes());
        read_until(&mut visitor, path).await;
        let told = rig.told().await;
        assert_eq!((&told.asked.3[..], told.sent), (path, 2));
        // It began when its own head did.
        assert!(ended.is_none_or(|ended| ended <= told.started));
        ended = Some(told.ended);
    }
    rig.is_over().await;
}

#[tokio::test]
async fn p_12_3_an_entry_of_the_client_opens_for_itself() {
    let mut rig = Rig::on(Side::Client, Side::Server, config(), 1.0).await;
    let mut visitor = rig.world.connect().await;
    visitor.write_all(get("/").as_bytes()).await.unwrap();
    let (head, exchange) = rig.http().await;
    answer(&exchange, 200, &[], b"hello");
    read_to_end(&mut visitor).await.unwrap();
    let told = rig.told().await;
    assert_eq!(
        (told.route.0, told.uuid),
        ("client", head.open.request_uuid)
    );
    assert_eq!(told.phases(), CARRIED);
    crossed(&told, 0, &head.open.traceparent);
}

#[tokio::test]
async fn uploads_are_counted_however_they_cross() {
    let mut rig = Rig::new().await;
    let short = "short".to_string();
    let long = "x".repeat(20_000);
    let chunked = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for (framing, body, length) in [
        ("Content-Length: 5", &short, 5),
        ("Content-Length: 20000", &long, 20_000),
        ("Transfer-Encoding: chunked", &chunked, 20_000),
    ] {
        let mut visitor = rig.world.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n");
        let request = head + body;
        visitor.write_all(request.as_bytes()).await.unwrap();
        let (head, mut exchange) = rig.http().await;
        let (rest, _) = within(body_of(&mut exchange)).await.unwrap();
        assert_eq!(head.body.len() + rest.len(), length);
        answer(&exchange, 200, &[], b"thanks");
        read_to_end(&mut visitor).await.unwrap();
        let told = rig.told().await;
        assert_eq!(told.outcome(), (200, None, length as u64, 6), "{framing}");
        assert_eq!(told.phases(), CARRIED);
    }
    rig.is_over().await;
}

#[tokio::test]
async fn a_wait_for_credit_is_a_phase() {
    let mut rig = Rig::new().await;
    let mut visitor = rig.world.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n";
    let request = head.to_string() + &"x".repeat(60_000);
    visitor.write_all(request.as_bytes()).await.unwrap();
    let (_, mut exchange) = rig.http().await;
    // Held, they give no credit back: no more than a window comes, and the rest waits.
    let mut held = Vec::new();
    let mut window = 32 * 1024_u64;
    while window > adit_flow::MESSAGE_COST {
        let Some(Ok(Part::Data(part))) = within(exchange.recv.part()).await else {
            panic!("no payload");
        };
        window -= (part.bytes().len() as u64 + adit_flow::MESSAGE_COST).min(window);
        held.push(part);
    }
    drop(held);
    within(body_of(&mut exchange)).await.unwrap();
    answer(&exchange, 200, &[], b"");
    read_to_end(&mut visitor).await.unwrap();
    let told = rig.told().await;
    assert_eq!(told.outcome(), (200, None, 60_000, 0));
    let phases = ["accept", "queue", "route", "transit", "end", "credit wait"];
    assert_eq!(told.phases(), phases);
    let wait = told.spans()[5];
    let busy = wait.busy.unwrap();
    assert!(!busy.is_zero() && busy <= wait.end.unwrap() - wait.start);
}

#[tokio::test]
async fn requests_of_http2_have_records_as_those_of_http1_have() {
    let mut rig = Rig::new().await;
    let io = TokioIo::new(rig.world.connect().await);
    let (mut visitor, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let requests = ["/1", "/2"].map(|path| {
        let body = Full::new(Bytes::from_static(b"hello"));
        Request::post(format!("http://web.localhost{path}"))
            .body(body)
            .unwrap()
    });
    for request in requests {
        let path = request.uri().path().to_string();
        let asking = visitor.send_request(request);
        let serving = async {
            let (head, exchange) = rig.http().await;
            answer(&exchange, 200, &[], b"hi");
            head
        };
        let (response, head) = tokio::join!(within(asking), serving);
        within(response.unwrap().into_body().collect())
            .await
            .unwrap();
        let told = rig.told().await;
        assert_eq!((told.protocol, told.asked.4), ("http", "HTTP/2.0"));
        assert_eq!(told.asked.2, "web.localhost");
        assert_eq!(told.asked.3, path);
        assert_eq!(told.outcome(), (200, None, 5, 2));
        assert_eq!(told.phases(), CARRIED);
        crossed(&told, 0, &head.open.traceparent);
    }
    rig.is_over().await;
}

#[tokio::test]
async fn answers_without_a_body_are_whole() {
    let mut rig = Rig::new().await;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let mut visitor = rig.world.connect().await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        visitor.write_all(request.as_bytes()).await.unwrap();
        let (_, exchange) = rig.http().await;
        answer(&exchange, status, &[], b"");
        read_to_end(&mut visitor).await.unwrap();
        let told = rig.told().await;
        assert_eq!(told.outcome(), (status, None, 0, 0));
        assert_eq!(told.phases(), CARRIED);
    }
    rig.is_over().await;
}
