//! Failures as statuses of gRPC (P-8.4), for both ends of the tunnel.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use uuid::Uuid;

use crate::failure::{Failure, Reason};

/// The bytes of `grpc-message` that are percent-encoded, besides those that are not ASCII (grpc/grpc,
/// doc/PROTOCOL-HTTP2.md, "Status-Message").
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The time in milliseconds after which a client that retries by itself may do so (grpc/proposal, A6, "Pushback").
const PUSHBACK_MS: &str = "1000";

/// The content type of a response with trailers only.
pub const GRPC_CONTENT_TYPE: &str = "application/grpc";

/// The status that ends a call of gRPC early, as header lines for its trailers, or for a response with trailers only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcStatus {
    code: String,
    message: String,
    reason: Reason,
    request_id: String,
}

impl GrpcStatus {
    /// The status of a failed request. The message is the public detail of the failure, or else its reason.
    pub fn of_failure(failure: &Failure, request: &Uuid) -> Self {
        let reason = failure.reason;
        let message = match failure.public_detail() {
            "" => reason.as_str(),
            detail => detail,
        };
        Self::new(reason.grpc_status(), message, reason, request)
    }

    /// A status with this code and message.
    pub fn new(code: u8, message: &str, reason: Reason, request: &Uuid) -> Self {
        Self {
            code: code.to_string(),
            message: encode_grpc_message(message),
            reason,
            request_id: request.to_string(),
        }
    }

    /// Names and values of the header lines. All values are visible ASCII and spaces.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let pushback = matches!(self.reason, Reason::NoClient | Reason::Limit);
        [
            ("grpc-status", &*self.code),
            ("grpc-message", &*self.message),
            ("adit-reason", self.reason.as_str()),
            ("adit-request-id", &*self.request_id),
        ]
        .into_iter()
        .chain(pushback.then_some(("grpc-retry-pushback-ms", PUSHBACK_MS)))
    }
}

/// The value of `grpc-message` for a text.
pub fn encode_grpc_message(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The status in a value of `grpc-status`.
pub fn parse_grpc_status(value: &[u8]) -> Option<u16> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_4_messages_are_percent_encoded() {
        assert_eq!(encode_grpc_message("Hello, `web` ~"), "Hello, `web` ~");
        assert_eq!(encode_grpc_message("100 %\n\u{7f}"), "100 %25%0A%7F");
        assert_eq!(encode_grpc_message("Grüße ☃"), "Gr%C3%BC%C3%9Fe %E2%98%83");
    }

    #[test]
    fn p_8_4_every_failure_has_status_reason_and_request() {
        let uuid = Uuid::from_u128(7);
        for reason in Reason::ALL {
            let status = GrpcStatus::of_failure(&Failure::new(reason, ""), &uuid);
            let value = |wanted: &str| {
                let mut lines = status.lines();
                let line = lines.find(|(name, _)| *name == wanted);
                line.map(|(_, value)| value.to_owned())
            };
            let code = reason.grpc_status();
            assert_eq!(value("grpc-status").unwrap(), code.to_string());
            assert_eq!(
                parse_grpc_status(code.to_string().as_bytes()),
                Some(code.into())
            );
            assert_eq!(value("grpc-message").unwrap(), reason.as_str());
            assert_eq!(value("adit-reason").unwrap(), reason.as_str());
            assert_eq!(value("adit-request-id").unwrap(), uuid.to_string());
            let is_transient = matches!(reason, Reason::NoClient | Reason::Limit);
            assert_eq!(value("grpc-retry-pushback-ms").is_some(), is_transient);
        }
    }

    #[test]
    fn p_8_4_the_message_is_the_public_detail() {
        let failure = Failure::new(Reason::BadRequest, "malformed grpc-timeout");
        let status = GrpcStatus::of_failure(&failure, &Uuid::nil());
        assert_eq!(status.message, "malformed grpc-timeout");
    }

    #[test]
    fn invalid_statuses_are_not_parsed() {
        for value in [&b""[..], b"x", b"-1", b"70000", b"\xff"] {
            assert_eq!(parse_grpc_status(value), None);
        }
    }
}
