//! Resets requests: the reason is sent to the opener and logged.

use std::sync::{Arc, LazyLock};

use adit_codec::{Open, ResetCode};
use adit_link::{LogLimit, SendHalf};
use adit_trace::Printable;
use uuid::Uuid;

/// Resets a request and logs why. The part of its response that has been sent arrives before the reset (P-6.2).
pub(crate) fn reset(send: SendHalf, open: &Open, code: ResetCode, reason: &str) {
    log_failure(open, code, reason);
    tracing::debug!(
        target: "adit::egress",
        request_id = %Uuid::from_bytes(open.request_uuid),
        reason = code.reason(),
        why = reason,
        "request reset"
    );
    match code {
        ResetCode::ServiceAborted | ResetCode::ServiceTimeout | ResetCode::ProtocolError => {
            send.abort(code, reason);
        }
        // With any other code the service has not seen the request.
        _ => send.reset(code, reason),
    }
}

/// One limit for the whole process: a service that is down fails every request.
static LINES: LazyLock<Arc<LogLimit<FailedRequest>>> = LazyLock::new(|| {
    LogLimit::per_sec(5, |failed: &FailedRequest, count| {
        tracing::warn!(
            target: "adit::egress",
            tunnel = %failed.tunnel,
            reason = failed.reason,
            request_id = %failed.id,
            count = (count > 1).then_some(count),
            "request failed: {}; {}",
            failed.detail,
            failed.advice
        );
    })
});

struct FailedRequest {
    id: Uuid,
    tunnel: String,
    reason: &'static str,
    detail: String,
    advice: &'static str,
}

/// Logs the failure, and what the operator of the service can do about it.
fn log_failure(open: &Open, code: ResetCode, detail: &str) {
    let advice = match code {
        ResetCode::DialFailed => "start the service, or correct its address in the tunnel",
        ResetCode::ServiceTimeout => "check whether the service is overloaded",
        ResetCode::ServiceAborted => "check the log of the service",
        ResetCode::Limit => "retry later, or raise the limit",
        ResetCode::NoTunnel | ResetCode::ProtocolError => {
            "check that the settings of the tunnel match the service, and that both sides are up to date"
        }
        ResetCode::FlowControl | ResetCode::Internal | ResetCode::Unspecified => {
            "this is a bug in adit"
        }
        // These resets are caused by the visitor, or intended by this side.
        ResetCode::Cancelled | ResetCode::Refused | ResetCode::Stalled | ResetCode::Draining => {
            return;
        }
    };
    if !tracing::enabled!(target: "adit::egress", tracing::Level::WARN) {
        return;
    }
    LINES.note(FailedRequest {
        id: Uuid::from_bytes(open.request_uuid),
        tunnel: Printable(&open.tunnel).to_string(),
        reason: code.reason(),
        detail: Printable(detail).to_string(),
        advice,
    });
}
