//! Visitors of HTTP/2 who keep h2 from letting go of what has failed or is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{future::poll_fn, sync::Arc, time::Duration};

use adit_codec::ResetCode;
use adit_ingress::HttpConfig;
use adit_link::Reason;
use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

mod world;

use world::{World, answer, config, head, within};

const RELEASE: Duration = Duration::from_millis(150);

fn short() -> HttpConfig {
    HttpConfig {
        release_timeout: RELEASE,
        ..config()
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).unwrap()
}

/// A visitor whose streams have a window of `window` bytes, for whoever does not ask for more.
async fn visitor(world: &World, window: u32) -> h2::client::SendRequest<Bytes> {
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .handshake(world.connect().await)
        .await
        .unwrap();
    tokio::spawn(connection);
    requests.ready().await.unwrap()
}

async fn closed(world: &World) {
    within(async {
        while world.http.stats().connections_open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A service that sends more than a stream's window, and breaks off when it is told to.
async fn breaks_off(config: HttpConfig) -> (World, Arc<Notify>) {
    let now = Arc::new(Notify::new());
    let told = now.clone();
    let world = World::with(config, move |request: adit_codec::HttpRequest, exchange| {
        let told = told.clone();
        async move {
            if &request.path[..] == b"/hello" {
                return answer(&exchange, 200, &[], b"hello");
            }
            exchange.send.respond(head(200, &[], b""), false).unwrap();
            // One that waits in h2 and one that waits before it.
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
            told.notified().await;
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
        }
    })
    .await;
    (world, now)
}

#[tokio::test]
async fn a_stream_without_a_window_does_not_keep_what_has_failed() {
    let (world, now) = breaks_off(short()).await;
    let mut requests = visitor(&world, 100).await;
    let (response, _) = requests.send_request(get("/"), true).unwrap();
    let body = within(response).await.unwrap().into_body();
    now.notify_one();
    // The exchange has failed, and nothing is asked for.
    within(async {
        while world.links[0].far.open_requests() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    closed(&world).await;
    assert_eq!(world.links[0].lane.stats().pinned_bytes, 0);
    assert_eq!(world.links[0].lane.open_requests(), 0);
    drop(body);
}

/// All of it is in h2's hands, and the body is over; then it is the lane that finds the visitor stalled.
#[tokio::test]
async fn a_whole_answer_that_is_not_taken_is_not_kept_either() {
    let (world, _now) = breaks_off(short()).await;
    let mut requests = visitor(&world, 100).await;
    let (response, _) = requests.send_request(get("/whole"), true).unwrap();
    let body = within(response).await.unwrap().into_body();
    within(async {
        while world.links[0].far.open_requests() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    world.links[0]
        .lane
        .close(&adit_link::Failure::new(Reason::LinkLost, "cut"));
    closed(&world).await;
    assert_eq!(world.links[0].lane.stats().pinned_bytes, 0);
    drop(body);
}

#[tokio::test]
async fn streams_that_fail_and_are_read_leave_their_connection_alone() {
    let (world, now) = breaks_off(short()).await;
    let mut requests = visitor(&world, 64 * 1024).await;
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
    assert_eq!(world.http.stats().connections, 1);
}

/// The visitor gives the failed stream up in the time there is: it is told to go elsewhere, and its other request goes on.
#[tokio::test]
async fn who_lets_go_in_time_is_not_cut_off() {
    let release = Duration::from_secs(1);
    let config = HttpConfig {
        release_timeout: release,
        ..config()
    };
    let (world, now) = breaks_off(config).await;
    let mut requests = visitor(&world, 100).await;
    let (response, _) = requests.send_request(get("/"), true).unwrap();
    let first = within(response).await.unwrap().into_body();
    let (response, _) = requests.send_request(get("/"), true).unwrap();
    let mut second = within(response).await.unwrap().into_body();
    // The first that waits is the first that breaks off.
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
    closed(&world).await;
}

/// Whether the visitor answers pings, or closes, is up to the visitor; whether an idle connection ends is not.
#[tokio::test]
async fn an_idle_connection_that_does_not_end_is_ended() {
    let world = World::with(
        HttpConfig {
            // Also the time to the first request.
            head_timeout: Duration::from_millis(50),
            idle_timeout: Duration::from_millis(50),
            ..short()
        },
        world::hello,
    )
    .await;
    let mut stream = world.connect().await;
    // The preface and empty settings, and then nothing: not even an answer to a ping.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut all = Vec::new();
    let _ = within(stream.read_to_end(&mut all)).await;
    closed(&world).await;
}
