//! A TCP connection or a UDP flow of a visitor. Its port selects the tunnel, or the host of TLS that is passed through.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_codec::ProtocolType;
use uuid::Uuid;

use crate::forward::request_meta::{Visitor, new_uuid};

/// After a visitor has left, the bytes that it sent before are still delivered to the service, unless the service takes
/// none of them for this long: a visitor that has left must not keep its permits.
pub(crate) const DELIVERY_AFTER_DEPARTURE: Duration = Duration::from_secs(1);

/// A TCP connection or a UDP flow of a visitor.
#[derive(Debug, Clone)]
pub struct Session {
    /// The id of the session on both sides: a UUIDv7.
    pub uuid: Uuid,
    /// TCP or UDP.
    pub protocol: ProtocolType,
    /// The visitor.
    pub visitor: Visitor,
    /// The local address. A tunnel owns its port.
    pub local: SocketAddr,
    /// The host that the visitor asks for in TLS that is passed through: it selects the tunnel, instead of the port.
    pub host: Option<Box<str>>,
    /// When the session began.
    pub started: Instant,
}

impl Session {
    pub(crate) fn new(
        protocol: ProtocolType,
        peer: SocketAddr,
        local: SocketAddr,
        started: Instant,
    ) -> Self {
        Self {
            uuid: new_uuid(),
            protocol,
            visitor: Visitor::new(peer),
            local,
            host: None,
            started,
        }
    }
}
