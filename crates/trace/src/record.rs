//! Everything about one request at its end.

use std::time::Instant;

use crate::timeline::Timeline;

/// Which end of the tunnel tells of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// The one the visitor came to.
    Ingress,
    /// The one that has the service.
    Egress,
}

impl Edge {
    /// Its name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// One request, connection or flow that is over. Texts are empty, and numbers 0, where something is not known or does not
/// apply.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Who tells.
    pub edge: Edge,
    /// What it was: `http`, `grpc`, `websocket`, `tcp`, `udp`.
    pub protocol: &'static str,
    /// Which side opened it on the link: `server` or `client`; empty when it came to no link.
    pub opener: &'static str,
    /// Its UUID, the same at both ends.
    pub request_uuid: [u8; 16],
    /// Whose the tunnel is.
    pub user: &'a str,
    /// The group of clients that the tunnel belongs to: another group may have a tunnel of the same name.
    pub group: &'a str,
    /// The client at the other end, or this one.
    pub client: &'a str,
    /// The tunnel, or the upstream.
    pub tunnel: &'a str,
    /// The revision of the tunnel's definition.
    pub revision: u64,
    /// The visitor's address.
    pub visitor: &'a str,
    /// `http` or `https`; empty for sessions.
    pub scheme: &'static str,
    /// The request's method.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// The port that the visitor came to.
    pub port: u16,
    /// The path, without the query: that may hold secrets.
    pub path: &'a str,
    /// `HTTP/1.1` and the like.
    pub version: &'static str,
    /// The status of HTTP.
    pub status: u16,
    /// The status of gRPC, where one was seen.
    pub grpc_status: Option<u16>,
    /// Where the service is, at its end.
    pub service: &'a str,
    /// Why it failed, as section 7 of the protocol names it; `None`: it did not.
    pub reason: Option<&'static str>,
    /// Payload from the visitor towards the service, in bytes.
    pub received_bytes: u64,
    /// Payload towards the visitor, in bytes.
    pub sent_bytes: u64,
    /// Tries on other clients after the first.
    pub retries: u32,
    /// When it began.
    pub started: Instant,
    /// When the answer began.
    pub answered: Option<Instant>,
    /// When it was over.
    pub ended: Instant,
    /// Its phases, if it is traced.
    pub timeline: Option<&'a Timeline>,
}
