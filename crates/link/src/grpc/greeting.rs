//! What answers at the other end of a connection, for people who have named the wrong port.

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

/// The longest beginning of an answer that an error shows.
const SHOWN_BYTES: usize = 40;

/// What a peer is that does not speak HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// A server of HTTP/1.
    Http1,
    /// A server of TLS.
    Tls,
    /// Something else; how its answer begins.
    Other(String),
}

impl Greeting {
    /// Of the first bytes; `None` for HTTP/2.
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
            Self::Http1 => f.write_str("an HTTP/1 server answers there"),
            Self::Tls => f.write_str("a TLS server answers there"),
            Self::Other(text) => write!(f, "what answers there begins with \"{text}\""),
        }
    }
}

/// What the peer of one connection is, once it has answered and is not HTTP/2. Clones are the same.
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
        // Empty when the peer has ended the connection.
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
    fn what_answers_is_told_by_its_first_bytes() {
        let settings = [0, 0, 18, SETTINGS, 0, 0, 0, 0, 0];
        assert_eq!(Greeting::of(&settings), None);
        let http1 = Greeting::of(b"HTTP/1.1 400 Bad Request\r\n");
        assert_eq!(http1, Some(Greeting::Http1));
        // Python's http.server takes the preface for HTTP/0.9.
        assert_eq!(Greeting::of(b"<!DOCTYPE HTML>"), Some(Greeting::Http1));
        assert_eq!(Greeting::of(&[0x15, 3, 1, 0, 2]), Some(Greeting::Tls));
        let ssh = Greeting::of(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let text = "what answers there begins with \"SSH-2.0-OpenSSH_9.2\\r\\n\"";
        assert_eq!(ssh.to_string(), text);
        let escapes = Greeting::of(&[27; 1000]).unwrap().to_string();
        assert!(escapes.len() < 250 && !escapes.contains('\u{1b}'));
    }
}
