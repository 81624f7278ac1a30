//! The end of a connection, seen without reading it.

/// How the peer has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// FIN: the peer sends nothing behind the unread bytes.
    Fin,
    /// The connection failed.
    Reset,
}
