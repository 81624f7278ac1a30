//! The identifiers of the wire.

use std::fmt;

/// One end of a link. It determines the lowest bit of the ids that this end opens (P-2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The public side; its ids are even.
    Server,
    /// The private side; its ids are odd.
    Client,
}

impl Side {
    /// The other side.
    pub const fn peer(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }

    /// The first id this end opens. 0 is the stream itself, so the server starts at 2.
    pub const fn first_id(self) -> RequestId {
        match self {
            Self::Server => RequestId(2),
            Self::Client => RequestId(1),
        }
    }
}

/// The id of a request on one data stream: ids grow and are never reused (P-2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// The data stream itself: control messages.
    pub const STREAM: Self = Self(0);

    /// The id with this number on the wire.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number on the wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The end that opened the request.
    pub const fn opener(self) -> Side {
        if self.0 & 1 == 0 {
            Side::Server
        } else {
            Side::Client
        }
    }

    /// The opener's next id; `None` after 2^63 requests.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(2) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value),+ }

        impl $name {
            /// The value with this number on the wire; `None` if this version does not know the number.
            pub const fn from_wire(value: u64) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// The number on the wire.
            pub const fn to_wire(self) -> u8 {
                self as u8
            }
        }
    };
}

wire_enum! {
    /// The protocol of a request; a field of opening messages.
    ProtocolType {
        /// The field is not set.
        Unspecified = 0,
        /// HTTP exchange.
        Http = 1,
        /// gRPC call.
        Grpc = 2,
        /// WebSocket connection.
        WebSocket = 3,
        /// TCP connection.
        Tcp = 4,
        /// UDP flow.
        Udp = 5,
        /// Control messages of the link.
        Control = 6,
    }
}

impl ProtocolType {
    /// The name of the protocol in configuration, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Control => "control",
        }
    }
}

wire_enum! {
    /// The declared type of a message; the payload decides (P-2.4).
    MessageType {
        /// The field is not set.
        Unspecified = 0,
        /// Opens a request.
        Request = 1,
        /// The response to a request.
        Response = 2,
        /// Payload bytes, or the plain end.
        StreamChunk = 3,
        /// Trailers, which end a direction.
        Trailers = 4,
        /// Credit.
        Window = 5,
        /// Requests the end of one direction.
        StopSending = 6,
        /// Ends both directions.
        Reset = 7,
        /// A WebSocket frame.
        Frame = 8,
        /// A UDP datagram.
        Datagram = 9,
        /// Reopens a request after a loss.
        Resume = 10,
        /// Control messages of the link.
        Control = 11,
    }
}

wire_enum! {
    /// How payload is compressed on the hop (P-13.3).
    Compression {
        /// DEFLATE (RFC 1951).
        Gzip = 1,
        /// Zstandard (RFC 8878).
        Zstd = 2,
    }
}

impl Compression {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// The algorithm with this name, as [`Compression::as_str`] spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == name)
    }

    /// The name in configuration, announcements, logs and metrics, and that of the capability (P-13.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

wire_enum! {
    /// Why a request, or one direction of it, was ended.
    ResetCode {
        /// The field is not set, or is from a newer version.
        Unspecified = 0,
        /// The other side does not need the request any more; this is not an error.
        Cancelled = 1,
        /// The request was never passed to the service.
        Refused = 2,
        /// A rule of the protocol was violated.
        ProtocolError = 3,
        /// Credit was exceeded.
        FlowControl = 4,
        /// The service cannot be reached.
        DialFailed = 5,
        /// The service did not respond in time.
        ServiceTimeout = 6,
        /// The service closed early.
        ServiceAborted = 7,
        /// The visitor made no progress.
        Stalled = 8,
        /// A limit was reached.
        Limit = 9,
        /// An internal error of adit.
        Internal = 10,
        /// The client is leaving.
        Draining = 11,
        /// This client does not have the tunnel.
        NoTunnel = 12,
    }
}

impl ResetCode {
    /// The reason code of `docs/protocol.md`, section 7.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unspecified | Self::Internal => "internal",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::ProtocolError => "protocol_error",
            Self::FlowControl => "flow_control",
            Self::DialFailed => "dial_failed",
            Self::ServiceTimeout => "service_timeout",
            Self::ServiceAborted => "service_aborted",
            Self::Stalled => "stalled",
            Self::Limit => "limit",
            Self::Draining => "draining",
            Self::NoTunnel => "no_tunnel",
        }
    }

    /// Whether no service has seen the request, so that any method may be tried elsewhere (P-6.3).
    pub const fn is_unseen(self) -> bool {
        matches!(self, Self::Refused | Self::Draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_opener() {
        for side in [Side::Server, Side::Client] {
            let first = side.first_id();
            assert_eq!(first.opener(), side);
            let next = first.next().unwrap();
            assert_eq!(next.opener(), side);
            assert_eq!(next.value(), first.value() + 2);
            assert_eq!(side.peer().peer(), side);
            assert_ne!(side.peer(), side);
        }
        assert_eq!(RequestId::new(u64::MAX - 1).next(), None);
        assert_eq!(Side::Server.first_id().value(), 2);
        assert_eq!(Side::Client.first_id().value(), 1);
    }

    #[test]
    fn ids_print_as_numbers() {
        assert_eq!(format!("{}", RequestId::new(7)), "7");
        assert_eq!(format!("{:?}", RequestId::new(7)), "#7");
    }

    #[test]
    fn only_refused_and_draining_are_unseen() {
        for value in 0..=12 {
            let code = ResetCode::from_wire(value).unwrap();
            assert_eq!(
                code.is_unseen(),
                matches!(code, ResetCode::Refused | ResetCode::Draining)
            );
            assert_eq!(u64::from(code.to_wire()), value);
        }
        assert_eq!(ResetCode::from_wire(13), None);
    }

    #[test]
    fn reasons_are_those_of_the_protocol_page() {
        let page = include_str!("../../../docs/protocol.md");
        for value in 0..=12 {
            let reason = ResetCode::from_wire(value).unwrap().reason();
            assert!(page.contains(&format!("| `{reason}` |")), "{reason}");
        }
    }
}
