//! Visitors of HTTP/1 who leave while nothing is read from their sockets. P-7.3.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{sync::Arc, time::Duration};

use adit_ingress::{Direction, HttpConfig};
use adit_link::Reason;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify};

mod world;

use world::{World, answer, body_of, config, director, read_to_end, standard_layers, within};

/// More than credit and hyper's buffers take: the rest waits in the socket. Less than the socket takes, without which a
/// FIN would not arrive.
const UPLOAD: usize = 96 * 1024;

/// No time but that of the departure ends a request.
fn patient() -> HttpConfig {
    let hour = Duration::from_secs(3600);
    HttpConfig {
        head_timeout: hour,
        idle_timeout: hour,
        stall_timeout: hour,
        service_timeout: hour,
        half_close_timeout: hour,
        ..config()
    }
}

#[derive(Debug, Clone, Copy)]
enum Leaves {
    Fin,
    Reset,
}

fn leave(stream: TcpStream, how: Leaves) {
    if matches!(how, Leaves::Reset) {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(stream);
}

async fn opened(world: &World) {
    within(async {
        while world.links[0].far.open_requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A service that takes nothing and never answers.
async fn deaf(config: HttpConfig) -> World {
    World::with(config, |_, exchange| async move {
        exchange.send.closed().await;
    })
    .await
}

#[tokio::test]
async fn visitor_gone_mid_upload_is_released_while_service_reads_nothing() {
    for how in [Leaves::Fin, Leaves::Reset] {
        for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
            let world = deaf(patient()).await;
            let mut stream = world.connect().await;
            let chunk = if framing.starts_with('T') {
                "fffffff\r\n"
            } else {
                ""
            };
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{chunk}");
            stream.write_all(head.as_bytes()).await.unwrap();
            within(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
            opened(&world).await;
            leave(stream, how);
            world.settle().await;
            assert_eq!(world.http.stats().failed(Reason::Cancelled), 1, "{how:?}");
        }
    }
}

#[tokio::test]
async fn visitor_gone_behind_pipelined_bytes_is_released() {
    for how in [Leaves::Fin, Leaves::Reset] {
        let world = deaf(HttpConfig {
            half_close_timeout: Duration::from_millis(100),
            ..patient()
        })
        .await;
        let mut stream = world.connect().await;
        let two = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(two.as_bytes()).await.unwrap();
        opened(&world).await;
        stream.write_all(two.as_bytes()).await.unwrap();
        leave(stream, how);
        world.settle().await;
        assert_eq!(world.http.stats().failed(Reason::Cancelled), 1, "{how:?}");
    }
}

#[tokio::test]
async fn visitor_gone_while_waiting_for_a_client_is_released() {
    for how in [Leaves::Fin, Leaves::Reset] {
        let never = director(|_, _| Direction::Wait(Box::pin(std::future::pending())));
        let world = World::assemble(patient(), standard_layers(), never).await;
        let mut stream = world.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        within(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
        within(async {
            while world.http.stats().requests_open == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        leave(stream, how);
        world.settle().await;
    }
}

/// The whole request lies in the socket: the visitor has only shut its side.
#[tokio::test]
async fn half_closed_visitor_with_unread_whole_upload_is_served() {
    let now = Arc::new(Notify::new());
    let starts = now.clone();
    let world = World::with(patient(), move |_, mut exchange| {
        let starts = starts.clone();
        async move {
            starts.notified().await;
            let (body, _) = body_of(&mut exchange).await.unwrap();
            answer(&exchange, 200, &[], body.len().to_string().as_bytes());
        }
    })
    .await;
    let length = UPLOAD.to_string();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut stream = world.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    within(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
    stream.shutdown().await.unwrap();
    opened(&world).await;
    // The socket is looked at in the meantime.
    tokio::time::sleep(Duration::from_millis(900)).await;
    now.notify_one();
    let answer = read_to_end(&mut stream).await.unwrap();
    assert!(answer.ends_with(&length), "{answer}");
}

#[tokio::test]
async fn half_closed_visitor_is_given_up_after_the_half_close_time() {
    // Long enough not to pass while the body is on its way.
    let world = deaf(HttpConfig {
        half_close_timeout: Duration::from_millis(300),
        ..patient()
    })
    .await;
    for body in [0, 10, UPLOAD] {
        let mut stream = world.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        within(stream.write_all(&vec![b'x'; body])).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap_err(), "");
        world.settle().await;
    }
    let default = HttpConfig::default().half_close_timeout;
    assert_eq!(default, Duration::from_secs(5), "a few seconds");
}
