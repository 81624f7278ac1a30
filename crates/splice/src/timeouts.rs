//! The timeouts at the edges of a tunnel, as the settings define them.

use std::time::Duration;

/// A UDP flow may be silent for this long unless its tunnel sets another time (P-11.4): longer than a service takes to
/// respond, shorter than most address translators keep a mapping.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// The timeouts at both edges of a tunnel: towards visitors (`ingress`) and towards services (`egress`). Each
/// crate makes its own configuration of it, so that one setting means the same at both edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeTimeouts {
    /// Longest time to connect to a service.
    pub dial: Duration,
    /// Longest time to the head of a service's response.
    pub service: Duration,
    /// A visitor or a service without progress for this long is reset.
    pub stall: Duration,
    /// While requests wait for permits: a TCP connection without a byte in either direction, or a body slower than the lowest
    /// rate, is reset after this time.
    pub shortage_grace: Duration,
    /// Longest time for a visitor's request head.
    pub head: Duration,
    /// An idle keep-alive connection, of a visitor or to a service, is closed after this time.
    pub idle: Duration,
    /// A TCP connection or a WebSocket without progress for this long is reset: their programs may pause for longer.
    pub session_stall: Duration,
    /// Longest time for the other side to accept a TCP connection.
    pub session_setup: Duration,
    /// TCP keepalive probes a peer after this silence; zero: never.
    pub session_keepalive: Duration,
    /// Longest time for the end of a WebSocket, or of a UDP flow, once it has begun.
    pub session_close: Duration,
    /// If a service responds before it has read the whole request, the rest of the request is dropped once the service
    /// has read nothing for this long.
    pub early_response: Duration,
    /// A body that waits for `100 Continue` is sent anyway after this silence of the service (P-3.5).
    pub continue_wait: Duration,
    /// The request of a visitor of HTTP/1 that has closed its sending side is kept for this long, from the end of the
    /// request.
    pub half_close: Duration,
    /// An HTTP/2 connection whose visitor does not read failed responses gets GOAWAY after this time, and is closed
    /// after the same time again.
    pub release: Duration,
}

impl EdgeTimeouts {
    /// The silence after which TCP keepalive probes a peer, if it does.
    #[must_use]
    pub fn keepalive(&self) -> Option<Duration> {
        Some(self.session_keepalive).filter(|silence| !silence.is_zero())
    }
}

impl Default for EdgeTimeouts {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(5),
            service: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            shortage_grace: Duration::from_secs(3),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            // A user may leave a terminal idle over lunch.
            session_stall: Duration::from_secs(3_600),
            session_setup: Duration::from_secs(15),
            session_keepalive: Duration::from_secs(60),
            session_close: Duration::from_secs(5),
            early_response: Duration::from_secs(1),
            continue_wait: Duration::from_secs(1),
            half_close: Duration::from_secs(5),
            release: Duration::from_secs(10),
        }
    }
}
