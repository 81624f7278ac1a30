//! Connections without a request when the entry drains.

use std::time::Duration;

use adit_ingress::HttpConfig;
use adit_testlink::{
    HttpEntry,
    exchanges::{begin, hello},
    http_config,
    http1::{read_until, send},
    http2, until, within,
};
use tokio::io::AsyncReadExt;

/// A configuration in which only the timeout of the drain ends a connection.
fn patient() -> HttpConfig {
    let hour = Duration::from_secs(3600);
    HttpConfig {
        head_timeout: hour,
        idle_timeout: hour,
        stall_timeout: hour,
        release_timeout: hour,
        ..http_config()
    }
}

#[tokio::test(start_paused = true)]
async fn connection_without_a_request_is_closed_by_a_drain() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let half = "GET / HTTP/1.1\r\nHo";
    let both = format!("{get}{half}");
    // Neither visitor responds to the ping that is sent before the end of HTTP/2.
    for (sent, end) in [
        ("", ""),
        (half, ""),
        (get, "hello"),
        (&both, "hello"),
        (http2::PREFACE, ""),
        ("PRI * HT", ""),
    ] {
        let entry = HttpEntry::serving(patient(), hello);
        let mut stream = entry.connect().await;
        send(&mut stream, &sent).await;
        if end.is_empty() {
            until("the connection is open", || {
                entry.stats().connections_open > 0
            })
            .await;
        } else {
            read_until(&mut stream, end).await;
        }
        entry.drain.send_replace(true);
        entry.closed().await;
    }
}

/// The request is over, and its response waits for a visitor that reads late.
#[tokio::test(start_paused = true)]
async fn a_drain_keeps_the_end_of_a_response() {
    const LENGTH: usize = 16 << 20;
    let entry = HttpEntry::serving(patient(), |_, exchange| async move {
        begin(&exchange, 200, &[], b"");
        let _ = exchange
            .send
            .send_all(vec![b'x'; LENGTH].into(), true)
            .await;
    });
    let mut stream = entry.connect().await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    send(&mut stream, &get).await;
    read_until(&mut stream, "\r\n\r\n").await;
    entry.drain.send_replace(true);
    let mut got = 0;
    let mut buffer = vec![0; 256 * 1024];
    within(async {
        loop {
            // The visitor reads more slowly than a draining connection is checked.
            if got > LENGTH - (1 << 20) {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                count => got += count,
            }
        }
    })
    .await;
    assert!(got > LENGTH, "{got}: with the lines of its chunks");
}

/// A drain over HTTP/2: the rest of the response is in hyper's buffers, and the socket could take it.
#[tokio::test(start_paused = true)]
async fn a_drain_keeps_the_end_of_an_http2_response() {
    const LENGTH: usize = 16 * 1024;
    let entry = HttpEntry::serving(patient(), |_, exchange| async move {
        begin(&exchange, 200, &[], b"");
        let _ = exchange
            .send
            .send_all(vec![b'x'; LENGTH].into(), true)
            .await;
    });
    let mut requests = http2::frames(entry.connect().await, 1_000).await;
    let get = http::Request::get("http://a/").body(()).unwrap();
    let (response, _) = requests.send_request(get, true).unwrap();
    let mut body = within(response).await.unwrap().into_body();
    until("the request is over on one side", || {
        entry.stats().requests_open == 0 || entry.links[0].far.open_requests() == 0
    })
    .await;
    entry.drain.send_replace(true);
    // Meanwhile the connection is checked several times.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut got = 0;
    within(async {
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            got += data.len();
        }
    })
    .await;
    assert_eq!(got, LENGTH);
}
