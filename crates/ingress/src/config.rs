//! Bounds and times of the entries.

use std::time::Duration;

use adit_link::turn::TURN_BYTES;

/// Bounds and times of the HTTP entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// A request's head must be whole within this, from its first byte; the first one from the connection on.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A visitor that sends the body it owes, or takes the answer it is sent, at less than the lowest rate for this long is
    /// reset (F12). Who calls over gRPC owes no messages.
    pub stall_timeout: Duration,
    /// The lowest rate; 0: one byte within `stall_timeout`.
    pub min_rate_bytes_per_sec: u64,
    /// While others wait for permits, a body that comes at less than the lowest rate for this long is reset.
    pub shortage_grace: Duration,
    /// The service's answer must begin within this, from the end of the request or the last part of it that has come. A
    /// call of gRPC has the time that its visitor gives it.
    pub service_timeout: Duration,
    /// A body that waits for `100 Continue` is read after this much silence of the service (P-3.5).
    pub continue_wait: Duration,
    /// A visitor of HTTP/1 that has shut its sending side (FIN) gets its answer if the answer, or more of it, comes within
    /// this, from when the request is whole: a visitor that left looks the same.
    pub half_close_timeout: Duration,
    /// Bodies up to this long, when their length is known, ride in the head's message (P-3.2). At most the lanes'
    /// initial window.
    pub inline_body_bytes: usize,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub max_streams: u32,
    /// A visitor of HTTP/2 who takes nothing of an answer that has failed long since keeps it from being forgotten. Its
    /// connection is told to end after this, and ended after this again; so is one that is idle and told to end.
    pub release_timeout: Duration,
    /// A WebSocket's visitor for whom something waits and who takes nothing for this long is reset. Long: a page in the
    /// background may sleep. One that is only silent is left alone for ever.
    pub session_stall: Duration,
    /// The system asks after a WebSocket's visitor that has been silent for this long, and gives up one whose machine is
    /// gone; `None` never asks.
    pub session_keepalive: Option<Duration>,
    /// The end of a WebSocket, once it has begun, is not waited for longer than this: an answer to a close frame, the
    /// last frames on their way to a visitor who takes none of them.
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
            max_streams: 128,
            release_timeout: Duration::from_secs(10),
            session_stall: Duration::from_secs(60 * 60),
            session_keepalive: Some(Duration::from_secs(60)),
            close_timeout: Duration::from_secs(5),
            turn_bytes: TURN_BYTES,
        }
    }
}

/// Bounds and times of the TCP entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpConfig {
    /// Connections at a time; more are reset at once.
    pub max_connections: usize,
    /// The service must have accepted within this, from when the connection has been led to a client.
    pub accept_timeout: Duration,
    /// A visitor for whom something waits and who takes nothing for this long is reset (F12). Long: a terminal may be
    /// paused over lunch. One that is only silent, or has shut one direction, is left alone for ever.
    pub stall: Duration,
    /// While others wait for permits, a connection over which no byte has gone in either direction for this long is reset.
    pub shortage_grace: Duration,
    /// The system asks after a visitor that has been silent for this long, and gives up one whose machine is gone;
    /// `None` never asks.
    pub keepalive: Option<Duration>,
    /// Of what a visitor has said before its connection is opened, this much at most rides in the head's message
    /// (P-10.1). Never more than half of a lane's initial window.
    pub first_bytes: usize,
    /// Read at a time while bytes keep coming: a message's worth (P-2.1).
    pub read_buffer_bytes: usize,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            accept_timeout: Duration::from_secs(15),
            shortage_grace: Duration::from_secs(3),
            stall: Duration::from_secs(60 * 60),
            keepalive: Some(Duration::from_secs(60)),
            first_bytes: 8 * 1024,
            read_buffer_bytes: 64 * 1024,
        }
    }
}

/// Bounds and times of the UDP entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// Flows at a time on each port, at least one; the one that has been silent longest makes room (P-11.2).
    pub max_flows: usize,
    /// Bytes of one flow's datagrams that wait while its destination is being found; the oldest make room (P-11.3). One
    /// datagram may always wait.
    pub max_waiting_bytes_per_flow: usize,
    /// The same of all flows of all ports.
    pub max_waiting_bytes: usize,
    /// A flow that has ended here for its silence is reset when the other side has not ended it too after this.
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
