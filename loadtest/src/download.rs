//! Fetches one body and checks it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pattern::{Checksum, Pattern};
use crate::response;

/// A body that was received completely and unchanged.
#[derive(Debug, Serialize)]
pub(crate) struct Download {
    /// Length of the body.
    pub(crate) bytes: u64,
    /// The checksum of the body, in hexadecimal.
    pub(crate) checksum: String,
    /// Seconds from the request to the last byte, without connecting.
    pub(crate) seconds: f64,
    /// The length of the body divided by `seconds`.
    pub(crate) gbit_per_s: f64,
    /// Microseconds from the request to the first byte of the response.
    pub(crate) first_byte_us: u64,
}

/// The body was not received correctly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The connection ended too early.
    #[error("the connection ended after {got} bytes of the body")]
    Cut {
        /// The number of bytes received before the end.
        got: u64,
    },
    /// The response is not HTTP/1.1 with a content-length.
    #[error("the response is not HTTP/1.1 with a content-length")]
    Unreadable,
    /// The target responded with an error.
    #[error("the target responded with status {0} instead of 200")]
    Status(u16),
    /// The body has another length than requested.
    #[error("the response has {got} bytes instead of {wanted}")]
    Length {
        /// The announced length.
        got: u64,
        /// The requested length.
        wanted: u64,
    },
    /// A byte was changed, lost or duplicated.
    #[error("the body is not what the service sent, within {within} bytes after offset {offset}")]
    WrongBytes {
        /// The offset of the read that differs.
        offset: u64,
        /// The length of that read.
        within: usize,
    },
}

/// Fetches `path` over a new connection and checks that its body is `wanted` bytes of the pattern.
///
/// # Errors
/// Returns a [`DownloadError`] for anything except exactly this body.
pub(crate) async fn fetch(
    target: SocketAddr,
    host: &str,
    path: &str,
    wanted: u64,
) -> Result<Download, DownloadError> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let begun = Instant::now();
    stream.write_all(request.as_bytes()).await?;

    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    let mut first_byte: Option<Duration> = None;
    let head = loop {
        match response::parse(&buffer[..filled]) {
            Ok(Some(head)) => break head,
            Ok(None) if filled < buffer.len() => {
                let read = stream.read(&mut buffer[filled..]).await?;
                if read == 0 {
                    return Err(DownloadError::Cut { got: 0 });
                }
                first_byte.get_or_insert_with(|| begun.elapsed());
                filled += read;
            }
            Ok(None) | Err(response::Unreadable) => return Err(DownloadError::Unreadable),
        }
    };
    if head.status != 200 {
        return Err(DownloadError::Status(head.status));
    }
    if head.length != wanted {
        return Err(DownloadError::Length {
            got: head.length,
            wanted,
        });
    }
    let mut sum = Checksum::new();
    let mut got = 0;
    let mut piece = head.end..filled;
    loop {
        let bytes = &buffer[piece];
        if got + bytes.len() as u64 > wanted || !Pattern::shared().matches(got, bytes) {
            return Err(DownloadError::WrongBytes {
                offset: got,
                within: bytes.len(),
            });
        }
        sum.update(bytes);
        got += bytes.len() as u64;
        if got == wanted {
            break;
        }
        piece = 0..stream.read(&mut buffer).await?;
        if piece.is_empty() {
            return Err(DownloadError::Cut { got });
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Download {
        bytes: got,
        checksum: format!("{:016x}", sum.finish().1),
        seconds,
        gbit_per_s: got as f64 * 8.0 / 1e9 / seconds,
        first_byte_us: u64::try_from(first_byte.unwrap_or_default().as_micros())
            .unwrap_or(u64::MAX),
    })
}
