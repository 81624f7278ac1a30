//! A TCP connection or a UDP flow of a visitor. It names no host: its port selects the tunnel.

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
            started,
        }
    }
}
