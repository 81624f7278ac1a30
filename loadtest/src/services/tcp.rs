//! Bytes: the first byte of a connection selects what the service does.
//!
//! | begins with | then |
//! |---|---|
//! | `d` and a length (8 bytes, big-endian) | the service sends that many bytes of the pattern, and ends the stream |
//! | `u` and a length | the service reads that many bytes and compares them with the pattern; the response is `1`, or `0` when a byte was wrong |
//! | anything else | the service echoes all further bytes, until the visitor closes its half |

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pattern::{PIECE, Pattern};

/// How much of the pattern is written at once.
const WRITE_BYTES: u64 = 64 * 1024;

pub(super) async fn serve(mut stream: TcpStream) -> Option<()> {
    match stream.read_u8().await.ok()? {
        b'd' => down(stream).await,
        b'u' => up(stream).await,
        _ => echo(stream).await,
    }
}

async fn down(mut stream: TcpStream) -> Option<()> {
    let wanted = stream.read_u64().await.ok()?;
    let mut offset = 0;
    while offset < wanted {
        let piece = Pattern::shared().piece(offset, (wanted - offset).min(WRITE_BYTES));
        stream.write_all(piece).await.ok()?;
        offset += piece.len() as u64;
    }
    stream.shutdown().await.ok()
}

async fn up(mut stream: TcpStream) -> Option<()> {
    let wanted = stream.read_u64().await.ok()?;
    let mut buffer = vec![0; PIECE];
    let (mut offset, mut right) = (0, true);
    while offset < wanted {
        let read = stream
            .read(&mut buffer)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        right &= Pattern::shared().matches(offset, &buffer[..read]);
        offset += read as u64;
    }
    right &= offset == wanted;
    stream
        .write_u8(if right { b'1' } else { b'0' })
        .await
        .ok()?;
    stream.shutdown().await.ok()
}

async fn echo(mut stream: TcpStream) -> Option<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer).await.ok()?;
        if read == 0 {
            return stream.shutdown().await.ok();
        }
        stream.write_all(&buffer[..read]).await.ok()?;
    }
}
