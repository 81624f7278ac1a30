//! Services on real sockets, and byte patterns that differ at neighbouring offsets.

use std::{future::Future, io, sync::LazyLock};

use adit_net::Stream;
use adit_testkit::Rng;
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::within;

/// How a read ends on a connection that was reset.
pub const RESET: Option<io::ErrorKind> = Some(io::ErrorKind::ConnectionReset);

/// A service whose n-th connection `script` handles. Returns its port, and the results of the scripts in the order of
/// their ends.
pub async fn service<F, S, T>(script: S) -> (u16, mpsc::UnboundedReceiver<T>)
where
    S: Fn(TcpStream, usize) -> F + Send + 'static,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, results) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (work, sender) = (script(stream, number), sender.clone());
            tokio::spawn(async move {
                let _ = sender.send(work.await);
            });
        }
    });
    (port, results)
}

/// A service whose results the test does not need. Returns its port.
pub async fn serve<F, S>(script: S) -> u16
where
    S: Fn(TcpStream, usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    service(script).await.0
}

/// Echoes received bytes.
pub async fn echo() -> u16 {
    let echo = |mut stream: TcpStream, _| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    };
    serve(echo).await
}

/// A port on which nothing listens.
pub async fn unused_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Reads to the end, or to an error instead of it.
pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut all = Vec::new();
    let ended = within(stream.read_to_end(&mut all)).await;
    (all, ended.err().map(|error| error.kind()))
}

pub async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    within(stream.read_exact(&mut read)).await.unwrap();
    read
}

/// Closes a connection of any kind with a reset.
pub fn reset(stream: impl Into<Stream>) {
    stream.into().reset_on_drop();
}

/// A pattern of bytes whose period is not a multiple of the sizes of the tunnel's buffers.
#[derive(Clone)]
pub struct Pattern {
    block: Bytes,
    at: usize,
}

impl Pattern {
    /// Patterns of different seeds differ in almost every place.
    pub fn new(seed: u64) -> Self {
        static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
            let mut rng = Rng::from_seed(1);
            let mut next = || rng.next_u64().to_le_bytes()[0];
            // A prime number of bytes.
            (0..1_000_003).map(|_| next()).collect()
        });
        let block = BLOCK.clone();
        let at = usize::try_from(seed).unwrap().wrapping_mul(65_537) % block.len();
        Self { block, at }
    }

    /// The next bytes, at most this many.
    pub fn next(&mut self, bytes: usize) -> Bytes {
        let end = (self.at + bytes).min(self.block.len());
        let piece = self.block.slice(self.at..end);
        self.at = end % self.block.len();
        piece
    }

    /// Whether these are the next bytes.
    pub fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = self.next(bytes.len());
            assert!(bytes[..piece.len()] == piece, "other bytes than were sent");
            bytes = &bytes[piece.len()..];
        }
    }
}

/// Writes this many bytes of a pattern.
pub async fn write_pattern(
    to: &mut (impl AsyncWrite + Unpin),
    pattern: &mut Pattern,
    mut bytes: usize,
) -> io::Result<()> {
    while bytes > 0 {
        let piece = pattern.next(bytes.min(256 * 1024));
        bytes -= piece.len();
        to.write_all(&piece).await?;
    }
    Ok(())
}

/// Reads a pattern to its end and returns its length, with the error instead of the end.
pub async fn read_pattern(
    from: &mut (impl AsyncRead + Unpin),
    mut pattern: Pattern,
) -> (usize, Option<io::ErrorKind>) {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return (total, None),
            Ok(count) => {
                pattern.check(&buffer[..count]);
                total += count;
            }
            Err(error) => return (total, Some(error.kind())),
        }
    }
}
