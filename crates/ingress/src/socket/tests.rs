use std::net::SocketAddr;

use adit_link::{Failure, Reason};
use tokio::net::TcpListener;

use super::*;
use crate::{Admission, Direction, Director, HttpConfig, Session, Visit, visit::Scheme};

struct Nowhere;

impl Director for Nowhere {
    fn direct(&self, _: &Visit, _: &[u64]) -> Direction {
        Direction::Fail(Failure::new(Reason::NoTunnel, "there is none"))
    }

    fn direct_session(&self, _: &Session, _: &[u64]) -> Direction {
        Direction::Fail(Failure::new(Reason::NoTunnel, "there is none"))
    }

    fn may_retry(&self) -> bool {
        false
    }
}

async fn socket(speaks: Speaks) -> (VisitorSocket, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let visitor = TcpStream::connect(addr).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let connection = Arc::new(Connection::new(peer, addr.port(), Scheme::Http));
    let admission = Admission::new(Vec::new(), Arc::new(Nowhere));
    let http = Http::new(HttpConfig::default(), admission);
    let socket = VisitorSocket::new(stream, speaks, connection, http);
    (socket, visitor)
}

/// Reads this, and gives the times before and behind it.
fn read(socket: &mut VisitorSocket, bytes: &str) -> [std::time::Instant; 2] {
    let before = std::time::Instant::now();
    socket.on_read(&mut bytes.as_bytes().to_vec());
    [before, std::time::Instant::now()]
}

#[tokio::test]
async fn a_request_of_http1_began_with_the_first_byte_of_its_head() {
    let (mut socket, _visitor) = socket(Speaks::Http1).await;
    let connection = socket.connection.clone();
    let begins = |[before, after]: [std::time::Instant; 2]| {
        let began = connection.take_head_began();
        assert!(before <= began && began <= after);
    };
    for _ in 0..2 {
        // Empty lines are no head.
        read(&mut socket, "\r\n");
        let first = read(&mut socket, "GET / HT");
        read(&mut socket, "TP/1.1\r\nHost: a\r");
        read(&mut socket, "\n\r\n");
        begins(first);
        // In one piece, behind the end of a body.
        read(
            &mut socket,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo",
        );
        connection.take_head_began();
        let next = read(&mut socket, "dyGET / HTTP/1.1\r\n\r\n");
        begins(next);
    }
    // Right behind one that had begun before, nothing is known of it.
    let first = read(&mut socket, "GET / HT");
    read(&mut socket, "TP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    begins(first);
    let asked = std::time::Instant::now();
    assert!(connection.take_head_began() >= asked);
}

#[tokio::test]
async fn a_request_of_an_idle_http2_connection_began_with_what_was_read_last() {
    let (mut socket, _visitor) = socket(Speaks::Http2).await;
    let connection = socket.connection.clone();
    read(&mut socket, "a preface");
    let [before, after] = read(&mut socket, "a head");
    let began = connection.take_head_began();
    assert!(before <= began && began <= after);
    // While others run, it begins when it is understood.
    connection.open.fetch_add(1, Ordering::Relaxed);
    read(&mut socket, "a head");
    let asked = std::time::Instant::now();
    assert!(connection.take_head_began() >= asked);
}
