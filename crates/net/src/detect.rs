//! Detection of HTTP/2 by the first bytes of a connection (RFC 9113, 3.4), or by what TLS has agreed on.

use std::{future::poll_fn, io};

use crate::stream::Stream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a peer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, by ALPN or with prior knowledge.
    Http2,
}

impl HttpVersion {
    /// Waits for the first bytes of a client; `None` when it closed the connection without sending any. The next reader
    /// of the stream receives these bytes first. The caller bounds the wait.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    ///
    /// # Cancel safety
    /// No byte is lost.
    ///
    /// # Cost
    /// One read of the transport if the preface, or a byte that differs from it, arrives in one piece; none after ALPN.
    pub async fn detect(stream: &mut Stream) -> io::Result<Option<Self>> {
        match stream.alpn() {
            Some(b"h2") => return Ok(Some(Self::Http2)),
            Some(_) => return Ok(Some(Self::Http1)),
            None => {}
        }
        loop {
            if let Some(version) = Self::of(stream.read_ahead()) {
                return Ok(Some(version));
            }
            if poll_fn(|cx| stream.poll_read_ahead(cx)).await? == 0 {
                // For HTTP/1, a part of the HTTP/2 preface is an incomplete request, which the reader of HTTP/1
                // reports.
                let has_begun = !stream.read_ahead().is_empty();
                return Ok(has_begun.then_some(Self::Http1));
            }
        }
    }

    /// The version by the first bytes; `None` while they do not determine it.
    fn of(first: &[u8]) -> Option<Self> {
        if first.starts_with(PREFACE) {
            Some(Self::Http2)
        } else if PREFACE.starts_with(first) {
            None
        } else {
            Some(Self::Http1)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn detected(pieces: &[&[u8]]) -> Option<HttpVersion> {
        let addr = ([192, 0, 2, 1], 1).into();
        let (mut visitor, mut stream) = Stream::in_memory(1024, addr, addr);
        let sending = async move {
            for piece in pieces {
                visitor.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (version, ()) = tokio::join!(HttpVersion::detect(&mut stream), sending);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, pieces.concat(), "all bytes are replayed");
        version.unwrap()
    }

    #[tokio::test]
    async fn the_preface_differs_from_a_request_line() {
        let (http1, http2) = (Some(HttpVersion::Http1), Some(HttpVersion::Http2));
        assert_eq!(detected(&[PREFACE]).await, http2);
        assert_eq!(detected(&[PREFACE, b"a frame"]).await, http2);
        assert_eq!(detected(&[b"GET / HTTP/1.1\r\n"]).await, http1);
        assert_eq!(detected(&[b"G"]).await, http1);
        assert_eq!(detected(&[b"P", b"OST / HTTP/1.1\r\n"]).await, http1);
        assert_eq!(detected(&[b"PRI * HTTP/1.1\r\n"]).await, http1);
        assert_eq!(detected(&[]).await, None);
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces() {
        let pieces = [&PREFACE[..3], &PREFACE[3..20], &PREFACE[20..]];
        assert_eq!(detected(&pieces).await, Some(HttpVersion::Http2));
    }

    #[tokio::test]
    async fn part_of_a_preface_is_left_to_http1() {
        assert_eq!(detected(&[&PREFACE[..9]]).await, Some(HttpVersion::Http1));
    }

    #[tokio::test]
    async fn a_cancelled_detection_loses_no_bytes() {
        let addr = ([192, 0, 2, 1], 1).into();
        let (mut visitor, mut stream) = Stream::in_memory(1024, addr, addr);
        visitor.write_all(&PREFACE[..5]).await.unwrap();
        tokio::select! {
            biased;
            version = HttpVersion::detect(&mut stream) => panic!("{version:?}"),
            () = std::future::ready(()) => {}
        }
        visitor.write_all(&PREFACE[5..]).await.unwrap();
        let version = HttpVersion::detect(&mut stream).await.unwrap();
        assert_eq!(version, Some(HttpVersion::Http2));
        assert_eq!(stream.read_ahead(), PREFACE);
    }
}
