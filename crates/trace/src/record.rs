//! The record of a finished request.

use std::time::Instant;

use crate::timeline::Timeline;

/// The end of the tunnel that recorded a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// The end that the visitor connected to.
    Ingress,
    /// The end that has the service.
    Egress,
}

impl Edge {
    /// The name of the edge in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A finished request, connection or flow. Texts are empty, and numbers 0, where a value is unknown or does not apply.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The end that recorded the request.
    pub edge: Edge,
    /// The protocol of the request: `http`, `grpc`, `websocket`, `tcp`, `udp`.
    pub protocol: &'static str,
    /// The side that opened the request on the link: `server` or `client`; empty when it was never opened on a link.
    pub opener: &'static str,
    /// The UUID of the request, the same at both ends.
    pub request_uuid: [u8; 16],
    /// The owner of the tunnel.
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
    /// The requested host.
    pub host: &'a str,
    /// The port that the visitor connected to.
    pub port: u16,
    /// The path without the query, which may hold secrets.
    pub path: &'a str,
    /// Version of HTTP, such as `HTTP/1.1`.
    pub version: &'static str,
    /// The status of HTTP.
    pub status: u16,
    /// The status of gRPC, if there was one.
    pub grpc_status: Option<u16>,
    /// The address of the service, at the end that has it.
    pub service: &'a str,
    /// The reason of the failure, by section 7 of the protocol; `None` for success.
    pub reason: Option<&'static str>,
    /// Payload from the visitor to the service, in bytes.
    pub received_bytes: u64,
    /// Payload to the visitor, in bytes.
    pub sent_bytes: u64,
    /// Attempts on other clients after the first.
    pub retries: u32,
    /// When the request began.
    pub started: Instant,
    /// When the response began.
    pub responded: Option<Instant>,
    /// When the request ended.
    pub ended: Instant,
    /// The phases of the request, if it is traced.
    pub timeline: Option<&'a Timeline>,
}

impl<'a> Record<'a> {
    /// The texts of the record: user, group, client, tunnel, visitor, method, host, path, service.
    pub const fn texts(&self) -> [&'a str; 9] {
        [
            self.user,
            self.group,
            self.client,
            self.tunnel,
            self.visitor,
            self.method,
            self.host,
            self.path,
            self.service,
        ]
    }

    /// A copy with these texts, in the order of [`Record::texts`], and this timeline, which may outlive the request.
    pub const fn with_texts<'b>(
        &self,
        texts: [&'b str; 9],
        timeline: Option<&'b Timeline>,
    ) -> Record<'b> {
        let [
            user,
            group,
            client,
            tunnel,
            visitor,
            method,
            host,
            path,
            service,
        ] = texts;
        Record {
            edge: self.edge,
            protocol: self.protocol,
            opener: self.opener,
            request_uuid: self.request_uuid,
            user,
            group,
            client,
            tunnel,
            revision: self.revision,
            visitor,
            scheme: self.scheme,
            method,
            host,
            port: self.port,
            path,
            version: self.version,
            status: self.status,
            grpc_status: self.grpc_status,
            service,
            reason: self.reason,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            retries: self.retries,
            started: self.started,
            responded: self.responded,
            ended: self.ended,
            timeline,
        }
    }
}
