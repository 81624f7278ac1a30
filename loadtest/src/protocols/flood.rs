//! Peers that send data without content that costs the target work, as fast as the target reads it.
//!
//! The peers run on their own thread, so that the measured load waits for the target and not for them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::HostileClient;
use super::visitor::{Entries, FLOOD_HTTP_HOST, FLOOD_WEBSOCKET_HOST};

/// The number of bytes that are written at once.
const BLOCK_BYTES: usize = 16 * 1024;

/// The size of the send buffer of a flood's socket.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

/// The pause before a peer reconnects after the target has ended its connection.
const COMES_BACK_AFTER: Duration = Duration::from_millis(250);

/// A kind of flood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    /// The number of connections at once.
    pub(crate) connections: usize,
    sender: Sender,
}

/// The kind of peer, and what it sends.
#[derive(Debug, Clone, Copy)]
enum Sender {
    /// A visitor of HTTP/1 with a chunked body: this pattern, repeatedly.
    Chunks(&'static str),
    /// A visitor of HTTP/1 that requests this path, whose response never ends.
    Get(&'static str),
    /// A visitor with a WebSocket: binary frames without payload.
    EmptyFrames,
    /// A visitor of HTTP/2: this frame, repeatedly.
    Http2(&'static [u8]),
    /// A client: this message, repeatedly.
    Client(Message),
}

/// The message with which a client floods its data stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    /// A message without any field.
    Empty,
    /// A heartbeat that requests a response.
    Heartbeat,
    /// A window for a request that has ended.
    LateWindow,
}

/// A frame with length 0, an undefined type and stream 0.
const UNKNOWN_FRAME: &[u8] = &[0, 0, 0, 0xfe, 0, 0, 0, 0, 0];
/// A PING frame, which requires a response.
const PING_FRAME: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// A SETTINGS frame without settings, which also requires a response.
const SETTINGS_FRAME: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

impl Flood {
    /// All floods in the order of the report.
    pub(crate) const ALL: [Self; 13] = [
        Self::of("leading zeros", 100, Sender::Chunks("0000000000000000")),
        Self::of(
            "blanks of chunks",
            100,
            Sender::Chunks("1                \r\nx\r\n"),
        ),
        Self::of(
            "chunk extensions",
            100,
            Sender::Chunks("1;extension=flood\r\nx\r\n"),
        ),
        Self::of("chunks of a byte", 100, Sender::Chunks("1\r\nx\r\n")),
        Self::of("service: leading zeros", 100, Sender::Get("/zeros")),
        Self::of("service: chunks of a byte", 100, Sender::Get("/chunks")),
        Self::of("empty WebSocket frames", 100, Sender::EmptyFrames),
        Self::of("unknown HTTP/2 frames", 100, Sender::Http2(UNKNOWN_FRAME)),
        Self::of("HTTP/2 pings", 100, Sender::Http2(PING_FRAME)),
        Self::of("HTTP/2 settings", 100, Sender::Http2(SETTINGS_FRAME)),
        Self::of("client: no-ops", 4, Sender::Client(Message::Empty)),
        Self::of("client: heartbeats", 4, Sender::Client(Message::Heartbeat)),
        Self::of(
            "client: late windows",
            4,
            Sender::Client(Message::LateWindow),
        ),
    ];

    const fn of(name: &'static str, connections: usize, sender: Sender) -> Self {
        Self {
            name,
            connections,
            sender,
        }
    }

    /// Starts the flood.
    ///
    /// # Errors
    /// Returns an error when the thread cannot be started.
    pub(crate) fn start(self, entries: &Entries) -> io::Result<Running> {
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let peers = (entries.clone(), counts.clone());
        let thread = std::thread::Builder::new()
            .name("flood".into())
            .spawn(move || {
                let (entries, counts) = peers;
                runtime.block_on(async move {
                    let mut all = JoinSet::new();
                    for number in 0..self.connections {
                        all.spawn(self.sender.flood(entries.clone(), number, counts.clone()));
                    }
                    // An error also means the end: the peer has disconnected.
                    let _ = stopped.await;
                });
            })?;
        Ok(Running {
            begun: Instant::now(),
            counts,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// The result of a flood.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) sent_mb_per_s: f64,
    /// Connections that the target ended or refused.
    pub(crate) ended: u64,
}

#[derive(Debug, Default)]
struct Counts {
    sent_bytes: AtomicU64,
    ended: AtomicU64,
}

/// A running flood; dropping it ends the flood.
pub(crate) struct Running {
    begun: Instant,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// The result up to now.
    pub(crate) fn outcome(&self) -> Outcome {
        let sent = self.counts.sent_bytes.load(Relaxed) as f64;
        Outcome {
            sent_mb_per_s: sent / 1e6 / self.begun.elapsed().as_secs_f64().max(1e-3),
            ended: self.counts.ended.load(Relaxed),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its tasks end at their next await.
            let _ = thread.join();
        }
    }
}

impl Sender {
    /// Floods on one connection, and on a new connection when that has been ended.
    async fn flood(self, entries: Entries, number: usize, counts: Arc<Counts>) {
        loop {
            // The peer reconnects, however the connection ended.
            let _ = self.flood_once(&entries, number, &counts).await;
            counts.ended.fetch_add(1, Relaxed);
            sleep(COMES_BACK_AFTER).await;
        }
    }

    async fn flood_once(self, entries: &Entries, number: usize, counts: &Counts) -> io::Result<()> {
        match self {
            Self::Chunks(pattern) => {
                let head = format!(
                    "POST /sink HTTP/1.1\r\nHost: {FLOOD_HTTP_HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                over_tcp(
                    entries.flood_http,
                    head.as_bytes(),
                    pattern.as_bytes(),
                    counts,
                )
                .await
            }
            Self::Get(path) => {
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: {FLOOD_HTTP_HOST}\r\nConnection: close\r\n\r\n"
                );
                let mut stream = TcpStream::connect(entries.flood_http).await?;
                stream.write_all(head.as_bytes()).await?;
                let mut buffer = vec![0; BLOCK_BYTES];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return Ok(()),
                        read => drop(counts.sent_bytes.fetch_add(read as u64, Relaxed)),
                    }
                }
            }
            Self::EmptyFrames => {
                let head = format!(
                    "GET / HTTP/1.1\r\nHost: {FLOOD_WEBSOCKET_HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                // The value of the mask does not matter for an empty payload.
                let frame = [0x82, 0x80, 0, 0, 0, 0];
                over_tcp(entries.flood_websocket, head.as_bytes(), &frame, counts).await
            }
            Self::Http2(frame) => {
                let head = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS_FRAME].concat();
                over_tcp(entries.flood_http, &head, frame, counts).await
            }
            Self::Client(message) => {
                let Some(tunnel) = entries.tunnel else {
                    return Err(io::Error::other(
                        "this target has no port for clients of adit",
                    ));
                };
                let block = repeated(&message.encode());
                let client = HostileClient::connect(tunnel, &format!("hostile-{number}")).await?;
                client
                    .flood(block, |bytes| {
                        counts.sent_bytes.fetch_add(bytes as u64, Relaxed);
                    })
                    .await
            }
        }
    }
}

/// Writes `head`, and then `pattern` repeatedly; received bytes are discarded.
async fn over_tcp(
    addr: SocketAddr,
    head: &[u8],
    pattern: &[u8],
    counts: &Counts,
) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // The target still reads the bytes in the kernel's buffer when a flood has ended, which overlaps with the next
    // flood.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let mut stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    stream.write_all(head).await?;
    let (mut read, mut write) = stream.split();
    let block = repeated(pattern);
    let sending = async {
        loop {
            write.write_all(&block).await?;
            counts.sent_bytes.fetch_add(block.len() as u64, Relaxed);
        }
    };
    let reading = async {
        let mut buffer = vec![0; BLOCK_BYTES];
        while read.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        ended = sending => ended,
        ended = reading => ended,
    }
}

/// A block of about the block size that repeats the complete pattern.
fn repeated(pattern: &[u8]) -> Bytes {
    pattern
        .repeat((BLOCK_BYTES / pattern.len().max(1)).max(1))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_whole_patterns() {
        for pattern in [&b"1\r\nx\r\n"[..], UNKNOWN_FRAME, PING_FRAME, b"0"] {
            let block = repeated(pattern);
            assert_eq!(block.len() % pattern.len(), 0);
            assert!(block.len() <= BLOCK_BYTES && block.len() > BLOCK_BYTES - pattern.len());
        }
    }

    #[test]
    fn the_names_of_floods_differ() {
        let names: std::collections::BTreeSet<_> = Flood::ALL.map(|flood| flood.name).into();
        assert_eq!(names.len(), Flood::ALL.len());
    }
}
