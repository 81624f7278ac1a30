//! Settings of services, and the bounds and timeouts for all of them.

use std::time::Duration;

use adit_link::{Compression, turn::TURN_BYTES};
use adit_splice::{EdgeTimeouts, SESSION_TIMEOUT};

use crate::connect::tls::Tls;

/// The protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: with prior knowledge in clear text, by ALPN over TLS.
    Http2,
    /// HTTP/2 or HTTP/1.1, as the service chooses by ALPN; HTTP/1.1 in clear text.
    Either,
    /// TCP bytes, with one connection for each visitor's.
    Tcp,
    /// UDP datagrams, with one socket for each visitor's flow.
    Udp,
}

/// Version of the PROXY header, which passes the addresses of the visitor to a TCP service (P-10.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// The service of one tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The protocol of the service.
    pub protocol: Protocol,
    /// TLS towards the service; `None` is clear text. For HTTP only: requests to other services with TLS are reset.
    pub tls: Option<Tls>,
    /// Replaces the visitor's `Host`.
    pub host_rewrite: Option<String>,
    /// Headers added to each request; they replace headers of the same name.
    pub custom_headers: Vec<(String, String)>,
    /// The PROXY header that is written to a TCP service before any payload.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The compression of responses on the link, if the peer supports it (P-13.1).
    pub compression: Option<Compression>,
    /// The time without a datagram in either direction after which a UDP flow ends (P-11.4).
    pub session_timeout: Duration,
}

impl ServiceConfig {
    /// A service at this address, which receives requests as visitors send them.
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
            session_timeout: SESSION_TIMEOUT,
        }
    }
}

/// Bounds and timeouts. They apply to all services, each bound to each service on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The time to connect, the handshake of TLS included.
    pub dial_timeout: Duration,
    /// The time from the end of the request to the start of the response. Does not apply to gRPC, whose visitors set
    /// deadlines of their own.
    pub response_timeout: Duration,
    /// The time after which an idle connection is closed.
    pub idle_timeout: Duration,
    /// The time without progress after which a service that does not read the request fails it.
    pub stall_timeout: Duration,
    /// The stall timeout of TCP services and WebSockets, whose programs may be suspended for longer.
    pub tcp_stall_timeout: Duration,
    /// The time without data after which TCP keepalive probes are sent on connections of TCP services, WebSockets and
    /// upgrades; `None` sends none.
    pub tcp_keepalive: Option<Duration>,
    /// The longest time that a WebSocket may take to close: until the other end has sent its close frame, and the
    /// service has read the last frames.
    pub close_timeout: Duration,
    /// The time without progress after which the rest of a request is dropped, if the response is complete already.
    pub early_response_timeout: Duration,
    /// The most connections at a time; over HTTP/2, the most requests.
    pub max_connections: usize,
    /// The most connections of HTTP/2 at a time. Requests that have been received completely share one; requests whose
    /// bodies have not arrived yet have one each up to this number, and share them above it.
    pub max_http2_connections: usize,
    /// The most idle connections that are kept.
    pub max_idle: usize,
    /// The most requests that wait for a connection; further ones are reset with `LIMIT`.
    pub max_waiting: usize,
    /// The largest body that is sent in the message of the response's head, if it has arrived with the head.
    pub inline_body_bytes: usize,
    /// The flow-control window of each HTTP/2 stream: the bytes that a service may send before the visitor reads them.
    pub http2_stream_window_bytes: u32,
    /// The work of one connection in one turn ([`adit_link::turn`]): bytes read, and frames of a WebSocket.
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

impl Config {
    /// A configuration with these times and default bounds.
    pub fn with_timeouts(timeouts: &EdgeTimeouts) -> Self {
        Self {
            dial_timeout: timeouts.dial,
            response_timeout: timeouts.service,
            idle_timeout: timeouts.idle,
            stall_timeout: timeouts.stall,
            tcp_stall_timeout: timeouts.session_stall,
            tcp_keepalive: timeouts.keepalive(),
            close_timeout: timeouts.session_close,
            early_response_timeout: timeouts.early_response,
            ..Self::default()
        }
    }
}
