//! Which close frames have crossed.

/// Where frames come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The visitor's connection, or the service's.
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
    /// A close frame has come from it.
    has_closed: bool,
    /// One has gone to it: its own peer's, or one of ours.
    was_told: bool,
}

/// Which close frames have come from the two ends of a WebSocket, and gone to them.
///
/// After a close frame nothing more goes to the same end (RFC 6455, 5.5.1), and nothing more that comes from there is
/// heeded. When one has come from each, the WebSocket is closed (7.1.3 and 7.1.4).
#[derive(Debug, Clone, Copy, Default)]
pub struct Closing {
    socket: End,
    link: End,
}

impl Closing {
    /// With none so far.
    pub const fn new() -> Self {
        const NONE: End = End {
            has_closed: false,
            was_told: false,
        };
        Self {
            socket: NONE,
            link: NONE,
        }
    }

    /// Whether a frame that comes from there goes on to the other end.
    pub const fn passes(&self, from: Hop) -> bool {
        !self.has_closed(from) && !self.was_told(from.other())
    }

    /// A close frame has come whole; `passed`: and has gone on to the other end.
    pub fn on_close(&mut self, from: Hop, passed: bool) {
        self.end(from).has_closed = true;
        if passed {
            self.end(from.other()).was_told = true;
        }
    }

    /// Whether a close frame of our own may go to this end: the first one. It counts as gone then.
    pub fn tell(&mut self, to: Hop) -> bool {
        !std::mem::replace(&mut self.end(to).was_told, true)
    }

    /// Whether a close frame has come from there.
    pub const fn has_closed(&self, from: Hop) -> bool {
        match from {
            Hop::Socket => self.socket.has_closed,
            Hop::Link => self.link.has_closed,
        }
    }

    /// Whether a close frame has gone there.
    pub const fn was_told(&self, to: Hop) -> bool {
        match to {
            Hop::Socket => self.socket.was_told,
            Hop::Link => self.link.was_told,
        }
    }

    /// Whether both ends have closed.
    pub const fn is_complete(&self) -> bool {
        self.socket.has_closed && self.link.has_closed
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
    fn p_9_6_one_close_frame_from_each_end_is_the_end() {
        for first in [Hop::Socket, Hop::Link] {
            let mut closing = Closing::default();
            let second = first.other();
            assert!(closing.passes(first) && closing.passes(second));
            closing.on_close(first, true);
            assert!(!closing.passes(first), "nothing after a close frame");
            assert!(closing.passes(second), "the other may finish what it says");
            assert!(!closing.is_complete());
            closing.on_close(second, true);
            assert!(closing.is_complete());
            assert!(!closing.passes(second));
        }
    }

    #[test]
    fn what_was_told_by_us_is_not_told_again() {
        let mut closing = Closing::default();
        assert!(closing.tell(Hop::Socket));
        assert!(!closing.tell(Hop::Socket));
        assert!(!closing.passes(Hop::Link), "nothing after our close frame");
        closing.on_close(Hop::Link, false);
        assert!(closing.tell(Hop::Link));
        closing.on_close(Hop::Socket, false);
        assert!(closing.is_complete());

        let mut closing = Closing::default();
        closing.on_close(Hop::Socket, true);
        assert!(!closing.tell(Hop::Link), "the visitor's own has gone there");
        assert!(closing.tell(Hop::Socket));
    }
}
