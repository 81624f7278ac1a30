//! Visitors of HTTP/1 that leave while nothing is read from their sockets (P-7.3).

use std::{sync::Arc, time::Duration};

use adit_ingress::HttpConfig;
use adit_link::Reason;
use adit_testlink::{
    HttpEntry, Route,
    exchanges::{body_of, respond},
    http_config,
    http1::{read_to_end, send},
    never, pass,
    tcp::reset,
    until, within,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify};

/// More than credit and hyper's buffers can take, so that the rest waits in the socket; less than the socket can hold,
/// because otherwise a FIN would not arrive.
const UPLOAD: usize = 96 * 1024;

/// A configuration in which only the timeout of the departure ends a request.
fn patient() -> HttpConfig {
    let hour = Duration::from_secs(3600);
    HttpConfig {
        head_timeout: hour,
        idle_timeout: hour,
        stall_timeout: hour,
        service_timeout: hour,
        half_close_timeout: hour,
        ..http_config()
    }
}

#[derive(Debug, Clone, Copy)]
enum Leaves {
    Fin,
    Reset,
}

fn leave(stream: TcpStream, how: Leaves) {
    match how {
        Leaves::Fin => drop(stream),
        Leaves::Reset => reset(stream),
    }
}

/// A service that reads nothing and never responds.
fn silent(config: HttpConfig) -> HttpEntry {
    HttpEntry::serving(config, |_, exchange| async move {
        exchange.send.closed().await;
    })
}

#[tokio::test]
async fn visitor_gone_mid_upload_is_released_while_service_reads_nothing() {
    for how in [Leaves::Fin, Leaves::Reset] {
        for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
            let entry = silent(patient());
            let mut stream = entry.connect_tcp().await;
            let chunk = if framing.starts_with('T') {
                "fffffff\r\n"
            } else {
                ""
            };
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{chunk}");
            send(&mut stream, &head).await;
            within(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
            entry.opened().await;
            leave(stream, how);
            entry.settled().await;
            assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1, "{how:?}");
        }
    }
}

#[tokio::test]
async fn visitor_gone_behind_pipelined_bytes_is_released() {
    for how in [Leaves::Fin, Leaves::Reset] {
        let entry = silent(HttpConfig {
            half_close_timeout: Duration::from_millis(100),
            ..patient()
        });
        let mut stream = entry.connect_tcp().await;
        let two = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        send(&mut stream, &two).await;
        entry.opened().await;
        send(&mut stream, &two).await;
        leave(stream, how);
        entry.settled().await;
        assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1, "{how:?}");
    }
}

#[tokio::test]
async fn visitor_gone_while_waiting_for_a_client_is_released() {
    for how in [Leaves::Fin, Leaves::Reset] {
        let never = Route::director(&[], |_, _| never());
        let entry = never.http(patient());
        let mut stream = entry.connect_tcp().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
        send(&mut stream, &head).await;
        within(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
        until("a request is open", || entry.stats().requests_open > 0).await;
        leave(stream, how);
        entry.settled().await;
    }
}

/// The whole request is in the socket: the visitor has shut only its sending side.
#[tokio::test]
async fn half_closed_visitor_with_unread_whole_upload_is_served() {
    let now = Arc::new(Notify::new());
    let starts = now.clone();
    let entry = HttpEntry::serving(patient(), move |_, mut exchange| {
        let starts = starts.clone();
        async move {
            starts.notified().await;
            let (body, _) = body_of(&mut exchange).await.unwrap();
            respond(&exchange, 200, &[], body.len().to_string().as_bytes());
        }
    });
    let length = UPLOAD.to_string();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut stream = entry.connect_tcp().await;
    send(&mut stream, &head).await;
    within(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
    stream.shutdown().await.unwrap();
    entry.opened().await;
    // The socket is checked in the meantime.
    pass(Duration::from_millis(900)).await;
    now.notify_one();
    let response = read_to_end(&mut stream).await.unwrap();
    assert!(response.ends_with(&length), "{response}");
}

#[tokio::test]
async fn half_closed_visitor_is_reset_after_the_half_close_timeout() {
    // The time is longer than the transfer of the body takes.
    let entry = silent(HttpConfig {
        half_close_timeout: Duration::from_millis(300),
        ..patient()
    });
    for body in [0, 10, UPLOAD] {
        let mut stream = entry.connect_tcp().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
        send(&mut stream, &head).await;
        within(stream.write_all(&vec![b'x'; body])).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap_err(), "");
        entry.settled().await;
    }
    let default = HttpConfig::default().half_close_timeout;
    assert_eq!(default, Duration::from_secs(5), "a few seconds");
}
