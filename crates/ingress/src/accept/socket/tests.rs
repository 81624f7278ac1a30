use std::net::SocketAddr;

use adit_link::{Failure, Reason};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{Admission, Direction, Director, HttpConfig, RequestMeta, Session};

struct Nowhere;

impl Director for Nowhere {
    fn direct(&self, _: &RequestMeta, _: &[u64]) -> Direction {
        Direction::Fail(Failure::new(Reason::NoTunnel, "no tunnel"))
    }

    fn direct_session(&self, _: &Session, _: &[u64]) -> Direction {
        Direction::Fail(Failure::new(Reason::NoTunnel, "no tunnel"))
    }

    fn may_retry(&self) -> bool {
        false
    }
}

async fn socket(version: HttpVersion) -> (VisitorSocket, TcpStream) {
    socket_with(version, &HttpConfig::default()).await
}

async fn socket_with(version: HttpVersion, config: &HttpConfig) -> (VisitorSocket, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let visitor = TcpStream::connect(addr).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let connection = Arc::new(Connection::new(peer, addr.port(), Scheme::Http));
    let admission = Admission::new(Vec::new(), Arc::new(Nowhere));
    let context = Arc::new(HttpContext::new(config.clone(), admission, Arc::default()));
    let socket = VisitorSocket::new(stream.into(), version, connection, context);
    (socket, visitor)
}

/// Reads these bytes, and returns the times before and after.
fn read(socket: &mut VisitorSocket, bytes: &str) -> [std::time::Instant; 2] {
    let before = std::time::Instant::now();
    socket.on_read(&mut bytes.as_bytes().to_vec());
    [before, std::time::Instant::now()]
}

#[tokio::test]
async fn http1_request_begins_with_the_first_byte_of_its_head() {
    let (mut socket, _visitor) = socket(HttpVersion::Http1).await;
    let connection = socket.connection.clone();
    let begins = |[before, after]: [std::time::Instant; 2]| {
        let began = connection.take_head_began();
        assert!(before <= began && began <= after);
    };
    for _ in 0..2 {
        // Empty lines do not begin a head.
        read(&mut socket, "\r\n");
        let first = read(&mut socket, "GET / HT");
        read(&mut socket, "TP/1.1\r\nHost: a\r");
        read(&mut socket, "\n\r\n");
        begins(first);
        // The end of a body and the next head arrive in one piece.
        read(
            &mut socket,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo",
        );
        connection.take_head_began();
        let next = read(&mut socket, "dyGET / HTTP/1.1\r\n\r\n");
        begins(next);
    }
    // The start of a head right after another one is unknown.
    let first = read(&mut socket, "GET / HT");
    read(&mut socket, "TP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    begins(first);
    let read_at = std::time::Instant::now();
    assert!(connection.take_head_began() >= read_at);
}

#[tokio::test]
async fn request_of_idle_http2_connection_begins_with_the_last_read() {
    let (mut socket, _visitor) = socket(HttpVersion::Http2).await;
    let connection = socket.connection.clone();
    read(&mut socket, "a preface");
    let [before, after] = read(&mut socket, "a head");
    let began = connection.take_head_began();
    assert!(before <= began && began <= after);
    // While other requests are open, the head begins when it has been read.
    connection.open.fetch_add(1, Ordering::Relaxed);
    read(&mut socket, "a head");
    let read_at = std::time::Instant::now();
    assert!(connection.take_head_began() >= read_at);
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// P-3.9: reading ends with an error after 16 digits of a chunk size.
#[tokio::test]
async fn bytes_behind_an_endless_chunk_size_are_not_read() {
    let (mut socket, mut visitor) = socket(HttpVersion::Http1).await;
    let sent = format!("{CHUNKED}{}", "0".repeat(40));
    visitor.write_all(sent.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let error = socket.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("16 digits"), "{error}");
    assert_eq!(
        String::from_utf8(read).unwrap(),
        format!("{CHUNKED}{}", "0".repeat(16))
    );
    // Further bytes do not change the result.
    visitor.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(socket.read_u8().await.is_err());
}

/// P-3.9: a read without any valid byte is not the end of the stream.
#[tokio::test]
async fn read_that_begins_with_rejected_bytes_is_an_error() {
    let (mut socket, mut visitor) = socket(HttpVersion::Http1).await;
    let start = format!("{CHUNKED}{}", "0".repeat(16));
    visitor.write_all(start.as_bytes()).await.unwrap();
    let mut read = vec![0; start.len()];
    socket.read_exact(&mut read).await.unwrap();
    visitor.write_all(b"0").await.unwrap();
    let error = socket.read(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn visitor_without_pauses_is_read_in_turns() {
    const TURN: usize = 16 * 1024;
    const BUFFER: usize = 4 * 1024;
    const SENT: usize = 1 << 20;
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let config = HttpConfig {
            turn_bytes: TURN,
            ..HttpConfig::default()
        };
        let (mut socket, mut visitor) = socket_with(version, &config).await;
        let sending = tokio::spawn(async move {
            let mut piece = [0; 1024];
            let head = match version {
                HttpVersion::Http1 => {
                    format!("POST / HTTP/1.1\r\nContent-Length: {SENT}\r\n\r\n")
                }
                HttpVersion::Http2 => {
                    // The piece is a DATA frame.
                    piece[1..3].copy_from_slice(&1015_u16.to_be_bytes());
                    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()
                }
            };
            visitor.write_all(head.as_bytes()).await.unwrap();
            visitor.write_all(&piece.repeat(SENT / 1024)).await.unwrap();
            visitor
        });
        let (mut all, mut turns) = (0, 0);
        while all < SENT {
            let mut buffer = [0; BUFFER];
            let mut turn = 0;
            let reading = std::future::poll_fn(|cx| {
                loop {
                    let mut buffer = ReadBuf::new(&mut buffer);
                    match Pin::new(&mut socket).poll_read(cx, &mut buffer) {
                        Poll::Ready(read) => read.unwrap(),
                        Poll::Pending if turn == 0 => return Poll::Pending,
                        Poll::Pending => return Poll::Ready(()),
                    }
                    turn += buffer.filled().len();
                    if all + turn >= SENT {
                        return Poll::Ready(());
                    }
                }
            });
            // The budget of the runtime would end the turn as well, later.
            tokio::task::unconstrained(reading).await;
            assert!(turn < TURN + BUFFER, "{turn} in one turn");
            all += turn;
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns >= SENT / (TURN + BUFFER), "{turns}");
        drop(sending.await.unwrap());
    }
}
