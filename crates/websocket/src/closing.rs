//! Tracks which close frames have been received and sent.

/// A side of the relay: one of the two connections between which frames are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The connection of the visitor or of the service.
    Socket,
    /// The tunnel.
    Link,
}

impl Hop {
    const fn other(self) -> Self {
        match self {
            Self::Socket => Self::Link,
            Self::Link => Self::Socket,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct End {
    /// A close frame has been received from it.
    close_received: bool,
    /// A close frame has been sent to it: a forwarded one, or one that this side created.
    close_sent: bool,
}

/// Which close frames have been received from the two ends of a WebSocket, and sent to them.
///
/// After a close frame nothing more is sent to the same end (RFC 6455, 5.5.1), and what is received after one is discarded.
/// When one has been received from each end, the WebSocket is closed (7.1.3 and 7.1.4).
#[derive(Debug, Clone, Copy, Default)]
pub struct Closing {
    socket: End,
    link: End,
}

impl Closing {
    /// The state before any close frame.
    pub const fn new() -> Self {
        const NONE: End = End {
            close_received: false,
            close_sent: false,
        };
        Self {
            socket: NONE,
            link: NONE,
        }
    }

    /// Whether a frame from this end is forwarded to the other one.
    pub const fn passes(&self, from: Hop) -> bool {
        !self.close_received(from) && !self.close_sent(from.other())
    }

    /// A whole close frame has been received; `passed`: and forwarded to the other end.
    pub fn on_close(&mut self, from: Hop, passed: bool) {
        self.end(from).close_received = true;
        if passed {
            self.end(from.other()).close_sent = true;
        }
    }

    /// Whether a close frame of this side may be sent to this end: only the first one may. It counts as sent from then
    /// on.
    pub fn claim_close(&mut self, to: Hop) -> bool {
        !std::mem::replace(&mut self.end(to).close_sent, true)
    }

    /// Whether a close frame has been received from this end.
    pub const fn close_received(&self, from: Hop) -> bool {
        match from {
            Hop::Socket => self.socket.close_received,
            Hop::Link => self.link.close_received,
        }
    }

    /// Whether a close frame has been sent to this end.
    pub const fn close_sent(&self, to: Hop) -> bool {
        match to {
            Hop::Socket => self.socket.close_sent,
            Hop::Link => self.link.close_sent,
        }
    }

    /// Whether both ends have closed.
    pub const fn is_complete(&self) -> bool {
        self.socket.close_received && self.link.close_received
    }

    fn end(&mut self, hop: Hop) -> &mut End {
        match hop {
            Hop::Socket => &mut self.socket,
            Hop::Link => &mut self.link,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_9_6_one_close_frame_from_each_end_closes() {
        for first in [Hop::Socket, Hop::Link] {
            let mut closing = Closing::default();
            let second = first.other();
            assert!(closing.passes(first) && closing.passes(second));
            closing.on_close(first, true);
            assert!(!closing.passes(first), "nothing after a close frame");
            assert!(closing.passes(second), "the other end may finish");
            assert!(!closing.is_complete());
            closing.on_close(second, true);
            assert!(closing.is_complete());
            assert!(!closing.passes(second));
        }
    }

    #[test]
    fn our_close_frame_is_sent_once_to_each_end() {
        let mut closing = Closing::default();
        assert!(closing.claim_close(Hop::Socket));
        assert!(!closing.claim_close(Hop::Socket));
        assert!(!closing.passes(Hop::Link), "nothing after our close frame");
        closing.on_close(Hop::Link, false);
        assert!(closing.claim_close(Hop::Link));
        closing.on_close(Hop::Socket, false);
        assert!(closing.is_complete());

        let mut closing = Closing::default();
        closing.on_close(Hop::Socket, true);
        assert!(
            !closing.claim_close(Hop::Link),
            "the visitor's own has gone there"
        );
        assert!(closing.claim_close(Hop::Socket));
    }
}
