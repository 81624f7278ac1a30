//! Converts refusals of [`crate::control`] to gRPC statuses and back.

use std::error::Error as _;

use adit_proto::REASON_METADATA;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::control::{CallError, ControlReadError, Refusal, RefusalReason};

/// A status that carries a reason code of `docs/protocol.md`.
pub(super) fn with_reason(mut status: Status, reason: &'static str) -> Status {
    let reason = MetadataValue::from_static(reason);
    status.metadata_mut().insert(REASON_METADATA, reason);
    status
}

/// The status of a refused call.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn status_of(refusal: Refusal) -> Status {
    let code = match refusal.reason {
        RefusalReason::Version => Code::FailedPrecondition,
        RefusalReason::BadRequest => Code::InvalidArgument,
        RefusalReason::Unauthenticated | RefusalReason::StaleSession => Code::Unauthenticated,
        RefusalReason::Forbidden => Code::PermissionDenied,
        RefusalReason::ClientIdTaken | RefusalReason::GroupTaken => Code::AlreadyExists,
        RefusalReason::Limit => Code::ResourceExhausted,
        RefusalReason::ProtocolError | RefusalReason::Internal => Code::Internal,
    };
    with_reason(Status::new(code, refusal.detail), refusal.reason.as_str())
}

/// Why a call failed, by the status that it ended with. A status without a known reason (from a newer server, or from a
/// program between client and server) is classified by its code.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn error_of(status: Status) -> CallError {
    let detail = status.message().to_owned();
    let word = status.metadata().get(REASON_METADATA);
    let known = word.and_then(|word| RefusalReason::parse(word.to_str().ok()?));
    let reason = match (known, status.code()) {
        (Some(reason), _) => reason,
        (None, Code::Unauthenticated) => RefusalReason::Unauthenticated,
        (None, Code::PermissionDenied) => RefusalReason::Forbidden,
        (None, Code::AlreadyExists) => RefusalReason::ClientIdTaken,
        (None, Code::FailedPrecondition) => RefusalReason::Version,
        (None, Code::InvalidArgument | Code::OutOfRange) => RefusalReason::BadRequest,
        (None, Code::Unimplemented) => return CallError::NotAdit(detail),
        (None, _) => return CallError::Lost(detail),
    };
    CallError::Refused(Refusal { reason, detail })
}

/// Why a message of a client's control stream could not be read. A status with a source is an error of the connection.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn read_error_of(status: Status) -> ControlReadError {
    let detail = status.message().to_owned();
    match status.source() {
        Some(_) => ControlReadError::Lost(detail),
        None => ControlReadError::Unreadable(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_cross_as_they_are() {
        for reason in RefusalReason::ALL {
            let refusal = Refusal::new(reason, "the detail");
            let error = error_of(status_of(refusal.clone()));
            assert_eq!(error, CallError::Refused(refusal));
        }
    }

    #[test]
    fn statuses_without_a_known_reason_are_classified_by_code() {
        let reason_of = |code| error_of(Status::new(code, "")).reason();
        let bad_request = Some(RefusalReason::BadRequest);
        assert_eq!(reason_of(Code::OutOfRange), bad_request);
        let taken = Some(RefusalReason::ClientIdTaken);
        assert_eq!(reason_of(Code::AlreadyExists), taken);
        let unauthenticated = Some(RefusalReason::Unauthenticated);
        let newer = with_reason(Status::unauthenticated(""), "a newer reason");
        assert_eq!(error_of(newer).reason(), unauthenticated);
        let lost = error_of(Status::unavailable("gone"));
        assert_eq!(lost, CallError::Lost("gone".into()));
        let foreign = error_of(Status::unimplemented("no such method"));
        assert_eq!(foreign, CallError::NotAdit("no such method".into()));
    }
}
