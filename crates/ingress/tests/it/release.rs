//! Visitors of HTTP/2 that keep h2 from releasing streams which have failed or are over.

use std::{future::poll_fn, sync::Arc, time::Duration};

use adit_codec::ResetCode;
use adit_ingress::HttpConfig;
use adit_link::Reason;
use adit_testlink::{
    HttpEntry,
    exchanges::{begin, hello, respond},
    http_config,
    http1::send,
    http2, until, within,
};
use http::Request;
use tokio::{io::AsyncReadExt, sync::Notify};

const RELEASE: Duration = Duration::from_millis(150);

fn short() -> HttpConfig {
    HttpConfig {
        release_timeout: RELEASE,
        ..http_config()
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).unwrap()
}

/// A service that sends more than a stream's window, and breaks off when the test notifies it.
async fn breaks_off(config: HttpConfig) -> (HttpEntry, Arc<Notify>) {
    let now = Arc::new(Notify::new());
    let notified = now.clone();
    let entry = HttpEntry::serving(config, move |request: adit_codec::HttpRequest, exchange| {
        let notified = notified.clone();
        async move {
            if &request.path[..] == b"/hello" {
                return respond(&exchange, 200, &[], b"hello");
            }
            begin(&exchange, 200, &[], b"");
            // One piece that waits in h2, and one that waits before it.
            for _ in 0..2 {
                exchange
                    .send
                    .send_all(vec![b'x'; 12_000].into(), false)
                    .await
                    .unwrap();
            }
            if &request.path[..] == b"/whole" {
                return exchange.send.finish().unwrap();
            }
            notified.notified().await;
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
        }
    });
    (entry, now)
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_window_releases_its_failed_response() {
    let (entry, now) = breaks_off(short()).await;
    let mut requests = http2::frames(entry.connect().await, 100).await;
    let (response, _) = requests.send_request(get("/"), true).unwrap();
    let body = within(response).await.unwrap().into_body();
    now.notify_one();
    // The exchange has failed, and the visitor sends no request.
    until("the service is done", || {
        entry.links[0].far.open_requests() == 0
    })
    .await;
    entry.closed().await;
    assert_eq!(entry.links[0].near.stats().pinned_bytes, 0);
    assert_eq!(entry.links[0].near.open_requests(), 0);
    drop(body);
}

/// h2 has the whole response, and its body is over; then the lane detects that the visitor is stalled.
#[tokio::test(start_paused = true)]
async fn a_complete_response_that_is_not_read_is_released() {
    let (entry, _now) = breaks_off(short()).await;
    let mut requests = http2::frames(entry.connect().await, 100).await;
    let (response, _) = requests.send_request(get("/whole"), true).unwrap();
    let body = within(response).await.unwrap().into_body();
    until("the service is done", || {
        entry.links[0].far.open_requests() == 0
    })
    .await;
    entry.links[0]
        .near
        .close(&adit_link::Failure::new(Reason::LinkLost, "cut"));
    entry.closed().await;
    assert_eq!(entry.links[0].near.stats().pinned_bytes, 0);
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn streams_that_fail_and_are_read_leave_their_connection_alone() {
    let (entry, now) = breaks_off(short()).await;
    let mut requests = http2::frames(entry.connect().await, 64 * 1024).await;
    for _ in 0..3 {
        let (response, _) = requests.send_request(get("/"), true).unwrap();
        let mut body = within(response).await.unwrap().into_body();
        now.notify_one();
        let failed = within(async {
            loop {
                match body.data().await {
                    Some(Ok(data)) => body.flow_control().release_capacity(data.len()).unwrap(),
                    Some(Err(_)) => return true,
                    None => return false,
                }
            }
        })
        .await;
        assert!(failed, "it must not look whole");
        tokio::time::sleep(RELEASE).await;
    }
    tokio::time::sleep(RELEASE * 3).await;
    let (response, _) = requests.send_request(get("/hello"), true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), 200);
    assert_eq!(entry.stats().connections, 1);
}

/// The visitor resets the failed stream in time: it receives a GOAWAY, and its other request continues.
#[tokio::test(start_paused = true)]
async fn a_visitor_that_resets_in_time_keeps_its_connection() {
    let release = Duration::from_secs(1);
    let config = HttpConfig {
        release_timeout: release,
        ..http_config()
    };
    let (entry, now) = breaks_off(config).await;
    let mut requests = http2::frames(entry.connect().await, 100).await;
    let (response, _) = requests.send_request(get("/"), true).unwrap();
    let first = within(response).await.unwrap().into_body();
    let (response, _) = requests.send_request(get("/"), true).unwrap();
    let mut second = within(response).await.unwrap().into_body();
    // The response that waits first breaks off first.
    now.notify_one();
    within(async {
        while poll_fn(|cx| requests.poll_ready(cx)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(first);
    tokio::time::sleep(release * 2).await;
    let mut got = 0;
    within(async {
        while got < 24_000 {
            let data = second.data().await.unwrap().unwrap();
            second.flow_control().release_capacity(data.len()).unwrap();
            got += data.len();
        }
    })
    .await;
    now.notify_one();
    assert!(within(second.data()).await.unwrap().is_err());
    entry.closed().await;
}

/// A visitor need not respond to pings or close; the idle connection is ended nevertheless.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_its_peer() {
    let entry = HttpEntry::serving(
        HttpConfig {
            // This is also the time until the first request.
            head_timeout: Duration::from_millis(50),
            idle_timeout: Duration::from_millis(50),
            ..short()
        },
        hello,
    );
    let mut stream = entry.connect().await;
    // The visitor sends the preface and empty settings, and nothing else, not even the response to a ping.
    send(&mut stream, http2::PREFACE).await;
    let mut all = Vec::new();
    let _ = within(stream.read_to_end(&mut all)).await;
    entry.closed().await;
}
