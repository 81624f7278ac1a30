//! Why an exchange failed, whose fault it is, and whether another client may try.

use std::{borrow::Cow, fmt};

use adit_codec::ResetCode;
use adit_trace::Printable;
use thiserror::Error;

/// The reason codes of `docs/protocol.md`, section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule matches host and path.
    NoTunnel,
    /// The tunnel is known, no client connected in time.
    NoClient,
    /// No permit was free in time, or the visitor exceeds a rate.
    Limit,
    /// The visitor's request cannot be carried.
    BadRequest,
    /// The visitor's head exceeds the bound.
    HeaderTooLarge,
    /// The certificate of the visitor's connection is not for the host of the request.
    Misdirected,
    /// The request has passed this server before.
    Loop,
    /// A layer does not admit the visitor.
    AccessDenied,
    /// The visitor has not proved who it is.
    UnauthenticatedVisitor,
    /// The visitor's address is banned.
    Banned,
    /// The client cannot reach its service.
    DialFailed,
    /// The service did not respond in time.
    ServiceTimeout,
    /// The service closed early.
    ServiceAborted,
    /// The client refused; no service has seen the request.
    Refused,
    /// The client is leaving; no service has seen the request.
    Draining,
    /// The link was lost.
    LinkLost,
    /// The peer violated a rule of the protocol.
    ProtocolError,
    /// The peer exceeded its credit.
    FlowControl,
    /// The visitor made no progress.
    Stalled,
    /// The visitor left.
    Cancelled,
    /// An internal error of adit.
    Internal,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 21] = [
        Self::NoTunnel,
        Self::NoClient,
        Self::Limit,
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::Misdirected,
        Self::Loop,
        Self::AccessDenied,
        Self::UnauthenticatedVisitor,
        Self::Banned,
        Self::DialFailed,
        Self::ServiceTimeout,
        Self::ServiceAborted,
        Self::Refused,
        Self::Draining,
        Self::LinkLost,
        Self::ProtocolError,
        Self::FlowControl,
        Self::Stalled,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The code in headers, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTunnel => "no_tunnel",
            Self::NoClient => "no_client",
            Self::Limit => "limit",
            Self::BadRequest => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::Misdirected => "misdirected",
            Self::Loop => "loop",
            Self::AccessDenied => "access_denied",
            Self::UnauthenticatedVisitor => "unauthenticated_visitor",
            Self::Banned => "banned",
            Self::DialFailed => "dial_failed",
            Self::ServiceTimeout => "service_timeout",
            Self::ServiceAborted => "service_aborted",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::LinkLost => "link_lost",
            Self::ProtocolError => "protocol_error",
            Self::FlowControl => "flow_control",
            Self::Stalled => "stalled",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status of the error response, if the head of the response has not been sent.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::NoTunnel => 404,
            Self::NoClient | Self::Limit => 503,
            Self::BadRequest => 400,
            Self::HeaderTooLarge => 431,
            Self::Misdirected => 421,
            Self::Loop => 508,
            Self::UnauthenticatedVisitor => 401,
            Self::AccessDenied | Self::Banned => 403,
            Self::ServiceTimeout => 504,
            Self::Stalled => 408,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::DialFailed
            | Self::ServiceAborted
            | Self::Refused
            | Self::Draining
            | Self::LinkLost
            | Self::ProtocolError
            | Self::FlowControl => 502,
        }
    }

    /// The gRPC status for the same failure (P-8.4).
    pub const fn grpc_status(self) -> u8 {
        match self {
            Self::Cancelled | Self::Stalled => 1,
            Self::BadRequest | Self::Misdirected => 3,
            Self::ServiceTimeout => 4,
            Self::AccessDenied | Self::Banned => 7,
            Self::Limit | Self::HeaderTooLarge => 8,
            Self::Loop => 9,
            Self::NoTunnel => 12,
            Self::ProtocolError | Self::FlowControl | Self::Internal => 13,
            Self::NoClient
            | Self::DialFailed
            | Self::ServiceAborted
            | Self::Refused
            | Self::Draining
            | Self::LinkLost => 14,
            Self::UnauthenticatedVisitor => 16,
        }
    }

    const fn of_reset(code: ResetCode) -> Self {
        match code {
            ResetCode::Unspecified | ResetCode::Internal => Self::Internal,
            ResetCode::Cancelled => Self::Cancelled,
            ResetCode::Refused => Self::Refused,
            ResetCode::ProtocolError => Self::ProtocolError,
            ResetCode::FlowControl => Self::FlowControl,
            ResetCode::DialFailed => Self::DialFailed,
            ResetCode::ServiceTimeout => Self::ServiceTimeout,
            ResetCode::ServiceAborted => Self::ServiceAborted,
            ResetCode::Stalled => Self::Stalled,
            ResetCode::Limit => Self::Limit,
            ResetCode::Draining => Self::Draining,
            // The server routed to a client that does not serve the tunnel any more.
            ResetCode::NoTunnel => Self::NoTunnel,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the request may be sent to another client (P-6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No.
    Never,
    /// If repeating the request does no harm: GET, HEAD, OPTIONS without a body.
    IfSafe,
    /// The request may be retried for any method: no service has seen it.
    Always,
}

const END_OF_PEER: &str = "the peer ended the data stream";

/// How an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// The code.
    pub reason: Reason,
    /// The detail for the log. A visitor sees [`Failure::public_detail`].
    pub detail: Cow<'static, str>,
    /// The detail is from the peer: it may contain names of the peer's network.
    is_of_peer: bool,
}

impl Failure {
    /// A failure with a detail.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            is_of_peer: false,
        }
    }

    /// The failure by a reset from the peer, with the peer's text.
    pub fn of_reset(code: ResetCode, text: &[u8]) -> Self {
        let detail = Printable(&String::from_utf8_lossy(text)).to_string();
        Self {
            is_of_peer: true,
            ..Self::new(Reason::of_reset(code), detail)
        }
    }

    /// The detail, unless it is from the peer: then it may contain addresses of the peer's network, which are for logs
    /// only.
    pub fn public_detail(&self) -> &str {
        if self.is_of_peer { "" } else { &self.detail }
    }

    /// The failure when the peer has ended the data stream between two messages.
    pub(crate) const fn end_of_peer() -> Self {
        Self {
            reason: Reason::LinkLost,
            detail: Cow::Borrowed(END_OF_PEER),
            is_of_peer: false,
        }
    }

    /// Whether this failure is [`Failure::end_of_peer`].
    pub(crate) fn is_end_of_peer(&self) -> bool {
        self.reason == Reason::LinkLost && self.detail == END_OF_PEER
    }

    /// Whether another client may try, before the head of the response has arrived.
    pub const fn retry(&self) -> Retry {
        match self.reason {
            Reason::Refused | Reason::Draining => Retry::Always,
            Reason::LinkLost => Retry::IfSafe,
            _ => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_trace::GRPC_STATUSES;

    use super::*;

    #[test]
    fn p_8_4_the_protocol_page_lists_every_reason_with_its_statuses() {
        let page = include_str!("../../../docs/protocol.md");
        for reason in Reason::ALL {
            let grpc = GRPC_STATUSES[usize::from(reason.grpc_status())];
            let row = format!("| `{reason}` | {} | {grpc} |", reason.http_status());
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_reset_keeps_its_reason_and_its_text_is_printable() {
        for code in 1..=12 {
            let code = ResetCode::from_wire(code).unwrap();
            assert_eq!(Failure::of_reset(code, b"").reason.as_str(), code.reason());
        }
        let failure = Failure::of_reset(ResetCode::DialFailed, b"no\r\nway\0");
        assert_eq!(failure.detail, "no\\r\\nway\\u{0}");
        assert_eq!(failure.to_string(), "dial_failed: no\\r\\nway\\u{0}");
        assert_eq!(failure.public_detail(), "");
        assert_eq!(Failure::new(Reason::Limit, "full").public_detail(), "full");
    }

    #[test]
    fn retries_are_those_of_the_protocol_page() {
        let page = include_str!("../../../docs/protocol.md");
        for reason in Reason::ALL {
            let start = format!("| `{reason}` |");
            let row = page.lines().find(|line| line.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("no row for {reason}"));
            let column = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
            let expected = match column {
                "yes" => Retry::Always,
                "no" => Retry::Never,
                _ if column.starts_with("if safe") => Retry::IfSafe,
                _ => panic!("unknown text in the column of retries: {row}"),
            };
            assert_eq!(Failure::new(reason, "").retry(), expected, "{row}");
        }
    }
}
