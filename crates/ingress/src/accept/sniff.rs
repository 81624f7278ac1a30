//! Tells HTTP/2 with prior knowledge from HTTP/1 by the first bytes of a connection (RFC 9113, 3.4).
//!
//! The bytes are looked at, not taken: a builder that reads them first hands them on one piece ahead of the rest, and
//! the HTTP/1 reader then doubles its buffer for the second piece.

use std::{io, time::Duration};

use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A preface that came in pieces is looked at again after this; looking does not wait while anything is there.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a visitor speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DetectedProtocol {
    Http1,
    Http2,
}

/// Waits for the first bytes; `None` when the visitor left without any. The caller bounds the wait.
///
/// # Errors
/// Those of the socket.
///
/// # Cancel safety
/// Nothing is taken.
pub(crate) async fn sniff(stream: &TcpStream) -> io::Result<Option<DetectedProtocol>> {
    let mut start = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut start).await?;
        let start = start.get(..count).unwrap_or_default();
        if count == 0 {
            return Ok(None);
        }
        if !PREFACE.starts_with(start) {
            return Ok(Some(DetectedProtocol::Http1));
        }
        if count == PREFACE.len() {
            return Ok(Some(DetectedProtocol::Http2));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> Option<DetectedProtocol> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut visitor = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let sending = async {
            for piece in pieces {
                visitor.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            if pieces.is_empty() {
                visitor.shutdown().await.unwrap();
            }
            visitor
        };
        let (speaks, _visitor) = tokio::join!(sniff(&stream), sending);
        let mut left = [0; 4];
        if pieces.is_empty() {
            assert_eq!(stream.peek(&mut left).await.unwrap(), 0);
        } else {
            assert!(
                stream.peek(&mut left).await.unwrap() > 0,
                "nothing was taken"
            );
        }
        speaks.unwrap()
    }

    #[tokio::test]
    async fn the_preface_is_told_from_a_request_line() {
        assert_eq!(sniffed(&[PREFACE]).await, Some(DetectedProtocol::Http2));
        assert_eq!(
            sniffed(&[b"GET / HTTP/1.1\r\n"]).await,
            Some(DetectedProtocol::Http1)
        );
        assert_eq!(sniffed(&[b"G"]).await, Some(DetectedProtocol::Http1));
        assert_eq!(
            sniffed(&[b"P", b"OST / HTTP/1.1\r\n"]).await,
            Some(DetectedProtocol::Http1)
        );
        assert_eq!(
            sniffed(&[b"PRI * HTTP/1.1\r\n"]).await,
            Some(DetectedProtocol::Http1)
        );
        assert_eq!(sniffed(&[]).await, None);
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces() {
        assert_eq!(
            sniffed(&[&PREFACE[..3], &PREFACE[3..20], &PREFACE[20..]]).await,
            Some(DetectedProtocol::Http2)
        );
    }
}
