//! Bounds and times of the way to the services.

use std::time::Duration;

use adit_link::{Compression, turn::TURN_BYTES};

use crate::connect::tls::Tls;

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge in clear text and by ALPN over TLS.
    Http2,
    /// Bytes, on a connection for each visitor's.
    Tcp,
    /// Datagrams, on a socket for each visitor's flow.
    Udp,
}

/// Version of the header that tells a TCP service who the visitor is (P-10.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// How it is reached over TLS; `None` is clear text. For HTTP/2 only: requests to other services that have it are
    /// reset.
    pub tls: Option<Tls>,
    /// Replaces the visitor's `Host`.
    pub host_rewrite: Option<String>,
    /// Headers added to each request, replacing those of the same name.
    pub custom_headers: Vec<(String, String)>,
    /// Written to a TCP service before anything else.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How answers cross to the other side, where it can inflate them (P-13.1).
    pub compression: Option<Compression>,
    /// A UDP flow ends after this long without a datagram in either direction (P-11.4).
    pub session_timeout: Duration,
}

impl ServiceConfig {
    /// A service at this address, with nothing added to what visitors send.
    pub fn new(host: impl Into<String>, port: u16, protocol: Protocol) -> Self {
        Self {
            host: host.into(),
            port,
            protocol,
            tls: None,
            host_rewrite: None,
            custom_headers: Vec::new(),
            proxy_protocol: None,
            compression: None,
            session_timeout: Duration::from_secs(60),
        }
    }
}

/// Bounds and times; one for all services, each bound counts for each service on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Connecting may take this long, the handshake of TLS included.
    pub dial_timeout: Duration,
    /// The answer must begin within this, from when the request has been written. A call of gRPC has the time that its
    /// visitor gives it.
    pub response_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// A service that reads nothing of a request for this long is given up.
    pub stall_timeout: Duration,
    /// The same for a TCP service or a WebSocket, whose program may be stopped for longer.
    pub tcp_stall_timeout: Duration,
    /// The system asks after a TCP service that has been silent for this long, and gives up one whose machine is gone;
    /// `None` never asks.
    pub tcp_keepalive: Option<Duration>,
    /// The end of a WebSocket, once it has begun, is not waited for longer than this: an answer to a close frame, the
    /// last frames on their way to a service that takes none of them.
    pub close_timeout: Duration,
    /// A service that has answered may go on reading the request; one that reads nothing for this long will not.
    pub early_response_timeout: Duration,
    /// Connections at a time; over HTTP/2, requests at a time.
    pub max_connections: usize,
    /// Connections of HTTP/2 at a time. Requests that are short share one; those whose bodies are still to come have one
    /// each until there are as many as this, and share them then.
    pub max_http2_connections: usize,
    /// Idle connections kept.
    pub max_idle: usize,
    /// Requests that wait for a connection; more are reset with `LIMIT`.
    pub max_waiting: usize,
    /// An answer's body of at most this many bytes rides in the head's message when it is there with the head.
    pub inline_body_bytes: usize,
    /// Flow-control window of each HTTP/2 stream: what a service may have sent that no visitor has taken yet.
    pub http2_stream_window_bytes: u32,
    /// Work of one connection in one turn ([`adit_link::turn`]): bytes read, and frames of a WebSocket.
    pub turn_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            tcp_stall_timeout: Duration::from_secs(60 * 60),
            tcp_keepalive: Some(Duration::from_secs(60)),
            close_timeout: Duration::from_secs(5),
            early_response_timeout: Duration::from_secs(1),
            max_connections: 4_096,
            max_http2_connections: 256,
            max_idle: 512,
            max_waiting: 1_024,
            inline_body_bytes: 8 * 1024,
            http2_stream_window_bytes: 64 * 1024,
            turn_bytes: TURN_BYTES,
        }
    }
}
