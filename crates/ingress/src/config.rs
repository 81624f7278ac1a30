//! Bounds and times of the HTTP entry.

use std::time::Duration;

/// Bounds and times of the HTTP entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// A request's head must be whole within this, from its first byte; the first one from the connection on.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A visitor that neither sends the body it owes nor takes the answer it is sent for this long is reset (F12).
    pub stall_timeout: Duration,
    /// The service's answer must begin within this, from the end of the request or the last part of it that has come.
    pub service_timeout: Duration,
    /// A body that waits for `100 Continue` is read after this much silence of the service (P-3.5).
    pub continue_wait: Duration,
    /// A visitor that has shut its sending side gets its answer, unless nothing could be sent to it for this long: a
    /// visitor that left looks just the same.
    pub half_close_timeout: Duration,
    /// Bodies up to this long, when their length is known, ride in the head's message (P-3.2). At most the lanes'
    /// initial window.
    pub inline_body_bytes: usize,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub max_streams: u32,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            service_timeout: Duration::from_secs(60),
            continue_wait: Duration::from_secs(1),
            half_close_timeout: Duration::from_secs(30),
            inline_body_bytes: 8 * 1024,
            max_connections: 20_000,
            max_streams: 128,
        }
    }
}
