//! Limits and timeouts of the entries.

use std::time::Duration;

use adit_link::turn::TURN_BYTES;
use adit_splice::EdgeTimeouts;

use crate::layers::TrustedProxies;

/// Limits and timeouts of the HTTP entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The head of a request must be complete within this time, from its first byte; the first head from the start of
    /// the connection.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this time.
    pub idle_timeout: Duration,
    /// A visitor that sends a request body or reads a response at less than the lowest rate for this long is reset (F12).
    /// The messages of a gRPC call have no lowest rate.
    pub stall_timeout: Duration,
    /// The lowest rate; 0 means one byte within `stall_timeout`.
    pub min_rate_bytes_per_sec: u64,
    /// While other requests wait for permits, a request body at less than the lowest rate for this long is reset.
    pub shortage_grace: Duration,
    /// The service's response must begin within this time, from the end of the request or the last part of it that has
    /// arrived. A call of gRPC has the deadline of its visitor.
    pub service_timeout: Duration,
    /// A body that waits for `100 Continue` is read if the service has been silent for this long (P-3.5).
    pub continue_wait: Duration,
    /// A visitor of HTTP/1 that has shut its sending side (FIN) receives its response if the response, or more of it,
    /// arrives within this time, from the end of the request: a visitor that has left looks the same.
    pub half_close_timeout: Duration,
    /// Request bodies of a known length up to this cross in the message of the head (P-3.2). At most the lanes'
    /// initial window.
    pub inline_body_bytes: usize,
    /// Open connections; more are closed at once.
    pub max_connections: usize,
    /// Open connections of one address, or one IPv6 /64; more are closed at once.
    pub max_connections_per_address: usize,
    /// Peers whose connections do not count for an address: they carry requests of many visitors.
    pub trusted_proxies: TrustedProxies,
    /// Open requests on one HTTP/2 connection.
    pub max_streams: u32,
    /// A visitor of HTTP/2 that reads nothing of a failed response keeps its memory in use. Its connection receives
    /// GOAWAY after this time, and is closed after the same time again; so is an idle connection that has received
    /// GOAWAY.
    pub release_timeout: Duration,
    /// The visitor of a WebSocket is reset if bytes wait for it and it reads none for this long. Long, because a page
    /// in the background may pause. A silent WebSocket never times out.
    pub session_stall: Duration,
    /// TCP keepalive probes start after a WebSocket's visitor has been silent for this long, and detect a visitor whose
    /// machine is gone; `None` sends no probes.
    pub session_keepalive: Option<Duration>,
    /// A WebSocket that is closing ends after this time, even without the reply to a close frame, or while a visitor
    /// does not read the last frames.
    pub close_timeout: Duration,
    /// Work of one connection in one turn ([`adit_link::turn`]): bytes read, and frames of a WebSocket.
    pub turn_bytes: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            min_rate_bytes_per_sec: 64,
            shortage_grace: Duration::from_secs(3),
            service_timeout: Duration::from_secs(60),
            continue_wait: Duration::from_secs(1),
            half_close_timeout: Duration::from_secs(5),
            inline_body_bytes: 8 * 1024,
            max_connections: 20_000,
            max_connections_per_address: usize::MAX,
            trusted_proxies: TrustedProxies::default(),
            max_streams: 128,
            release_timeout: Duration::from_secs(10),
            session_stall: Duration::from_secs(60 * 60),
            session_keepalive: Some(Duration::from_secs(60)),
            close_timeout: Duration::from_secs(5),
            turn_bytes: TURN_BYTES,
        }
    }
}

impl HttpConfig {
    /// A configuration with these times and default bounds.
    pub fn with_timeouts(timeouts: &EdgeTimeouts) -> Self {
        Self {
            head_timeout: timeouts.head,
            idle_timeout: timeouts.idle,
            stall_timeout: timeouts.stall,
            shortage_grace: timeouts.shortage_grace,
            service_timeout: timeouts.service,
            continue_wait: timeouts.continue_wait,
            half_close_timeout: timeouts.half_close,
            release_timeout: timeouts.release,
            session_stall: timeouts.session_stall,
            session_keepalive: timeouts.keepalive(),
            close_timeout: timeouts.session_close,
            ..Self::default()
        }
    }
}

/// Limits and timeouts of the TCP entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpConfig {
    /// Open connections; more are reset at once.
    pub max_connections: usize,
    /// Open connections of one address, or one IPv6 /64; more are reset at once.
    pub max_connections_per_address: usize,
    /// Open connections to one tunnel; more are reset at once.
    pub max_connections_per_tunnel: usize,
    /// Peers whose connections do not count for an address: they carry those of many visitors.
    pub trusted_proxies: TrustedProxies,
    /// The service must accept within this time, from when the connection has been sent to a client.
    pub accept_timeout: Duration,
    /// A visitor is reset if bytes wait for it and it reads none for this long (F12). Long, because a terminal may be
    /// paused for an hour. A connection that is silent, or shut in one direction, never times out.
    pub stall: Duration,
    /// While other requests wait for permits, a connection without a byte in either direction for this long is reset.
    pub shortage_grace: Duration,
    /// TCP keepalive probes start after a visitor has been silent for this long, and detect a visitor whose machine is
    /// gone; `None` sends no probes.
    pub keepalive: Option<Duration>,
    /// The most bytes that cross with the head, of those that a visitor has sent before its connection is opened
    /// (P-10.1). Never more than half of a lane's initial window.
    pub first_bytes: usize,
    /// Bytes per read while bytes keep arriving: the payload of one message (P-2.1).
    pub read_buffer_bytes: usize,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: usize::MAX,
            max_connections_per_tunnel: usize::MAX,
            trusted_proxies: TrustedProxies::default(),
            accept_timeout: Duration::from_secs(15),
            shortage_grace: Duration::from_secs(3),
            stall: Duration::from_secs(60 * 60),
            keepalive: Some(Duration::from_secs(60)),
            first_bytes: 8 * 1024,
            read_buffer_bytes: 64 * 1024,
        }
    }
}

impl TcpConfig {
    /// A configuration with these times and default bounds.
    pub fn with_timeouts(timeouts: &EdgeTimeouts) -> Self {
        Self {
            accept_timeout: timeouts.session_setup,
            stall: timeouts.session_stall,
            shortage_grace: timeouts.shortage_grace,
            keepalive: timeouts.keepalive(),
            ..Self::default()
        }
    }
}

/// Limits and timeouts of the UDP entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// Open flows of each port, at least one; the flow that has been silent longest is evicted (P-11.2).
    pub max_flows: usize,
    /// Bytes of datagrams of one flow that wait while it is routed; the oldest make room (P-11.3). One datagram may always
    /// wait.
    pub max_waiting_bytes_per_flow: usize,
    /// Bytes of datagrams that wait while their flows are routed, of all flows of all ports together.
    pub max_waiting_bytes: usize,
    /// A flow that was ended for its silence is reset if the other side has not ended it within this time.
    pub end_timeout: Duration,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            max_flows: 4_096,
            max_waiting_bytes_per_flow: 256 * 1024,
            max_waiting_bytes: 4 << 20,
            end_timeout: Duration::from_secs(5),
        }
    }
}
