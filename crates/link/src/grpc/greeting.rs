//! Detects a peer that does not use HTTP/2, for users who have configured the wrong port.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use adit_net::Tap;
use tokio::io::{AsyncRead, ReadBuf};

/// Type of the SETTINGS frame, which every server of HTTP/2 sends first (RFC 9113, 3.4).
const SETTINGS: u8 = 4;

/// The most bytes of the peer's first bytes that an error shows.
const SHOWN_BYTES: usize = 40;

/// A peer that does not use HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// A server of HTTP/1.
    Http1,
    /// A server of TLS.
    Tls,
    /// Another protocol, with its first bytes.
    Other(String),
}

impl Greeting {
    /// Detects the protocol by the first bytes; `None` for HTTP/2.
    fn of(first: &[u8]) -> Option<Self> {
        match first {
            [0, _, _, SETTINGS, ..] => None,
            // An alert or a handshake of TLS 1.x.
            [0x15 | 0x16, 0x03, ..] => Some(Self::Tls),
            _ if first.starts_with(b"HTTP/") => Some(Self::Http1),
            _ if first.first() == Some(&b'<') => Some(Self::Http1),
            _ => {
                let shown = first.get(..SHOWN_BYTES).unwrap_or(first);
                Some(Self::Other(shown.escape_ascii().to_string()))
            }
        }
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1 => f.write_str("an HTTP/1 server responds there"),
            Self::Tls => f.write_str("a TLS server responds there"),
            Self::Other(text) => write!(f, "the response there begins with \"{text}\""),
        }
    }
}

/// The detected peer of one connection, once it has sent bytes that are not HTTP/2. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct DetectedPeer(Arc<OnceLock<Greeting>>);

impl DetectedPeer {
    pub(super) fn greeting(&self) -> Option<&Greeting> {
        self.0.get()
    }
}

/// Records what the peer is by the first bytes that it sends.
#[derive(Debug)]
pub(super) struct GreetingTap {
    detected: DetectedPeer,
    has_begun: bool,
}

impl GreetingTap {
    pub(super) const fn new(detected: DetectedPeer) -> Self {
        Self {
            detected,
            has_begun: false,
        }
    }
}

impl Tap for GreetingTap {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_begun {
            return Pin::new(stream).poll_read(cx, buffer);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        self.has_begun = true;
        let first = buffer.filled().get(before..).unwrap_or_default();
        // The bytes are empty when the peer has ended the connection.
        if !first.is_empty()
            && let Some(greeting) = Greeting::of(first)
        {
            let _ = self.detected.0.set(greeting);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_identify_the_peer() {
        let settings = [0, 0, 18, SETTINGS, 0, 0, 0, 0, 0];
        assert_eq!(Greeting::of(&settings), None);
        let http1 = Greeting::of(b"HTTP/1.1 400 Bad Request\r\n");
        assert_eq!(http1, Some(Greeting::Http1));
        // Python's http.server reads the preface as a request of HTTP/0.9.
        assert_eq!(Greeting::of(b"<!DOCTYPE HTML>"), Some(Greeting::Http1));
        assert_eq!(Greeting::of(&[0x15, 3, 1, 0, 2]), Some(Greeting::Tls));
        let ssh = Greeting::of(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let text = "the response there begins with \"SSH-2.0-OpenSSH_9.2\\r\\n\"";
        assert_eq!(ssh.to_string(), text);
        let escapes = Greeting::of(&[27; 1000]).unwrap().to_string();
        assert!(escapes.len() < 250 && !escapes.contains('\u{1b}'));
    }
}
