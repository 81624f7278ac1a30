//! Gives requests up: the reason for the opener, and a line in the log.

use std::sync::{Arc, LazyLock};

use adit_codec::{Open, ResetCode};
use adit_link::{LogLimit, SendHalf};
use adit_trace::Printable;
use uuid::Uuid;

/// Refuses or gives up a request, saying why to the opener and in the log. What has been sent of its answer arrives before
/// that (P-6.2).
pub(crate) fn give_up(send: SendHalf, open: &Open, code: ResetCode, why: &str) {
    log_failure(open, code, why);
    tracing::debug!(
        target: "adit::egress",
        request_id = %Uuid::from_bytes(open.request_uuid),
        reason = code.reason(),
        why,
        "request reset"
    );
    match code {
        ResetCode::ServiceAborted | ResetCode::ServiceTimeout | ResetCode::ProtocolError => {
            send.abort(code, why);
        }
        // Of the others no service has seen anything.
        _ => send.reset(code, why),
    }
}

/// Of the whole process: a service that is down fails every request.
static LINES: LazyLock<Arc<LogLimit<FailedRequest>>> = LazyLock::new(|| {
    LogLimit::per_sec(5, |failed: &FailedRequest, count| {
        tracing::warn!(
            target: "adit::egress",
            tunnel = %failed.tunnel,
            reason = failed.reason,
            request_id = %failed.id,
            count = (count > 1).then_some(count),
            "request failed: {}; {}",
            failed.why,
            failed.advice
        );
    })
});

struct FailedRequest {
    id: Uuid,
    tunnel: String,
    reason: &'static str,
    why: String,
    advice: &'static str,
}

/// A line for the person who runs the service: what is wrong with it, and what to do.
fn log_failure(open: &Open, code: ResetCode, why: &str) {
    let advice = match code {
        ResetCode::DialFailed => "start the service, or correct its address in the tunnel",
        ResetCode::ServiceTimeout => "see whether the service is busy",
        ResetCode::ServiceAborted => "the log of the service may say why",
        ResetCode::Limit => "wait, or raise the limit",
        ResetCode::NoTunnel | ResetCode::ProtocolError => {
            "see whether the settings of the tunnel fit the service, and both sides are up to date"
        }
        ResetCode::FlowControl | ResetCode::Internal | ResetCode::Unspecified => {
            "this is a fault of adit"
        }
        // The visitor's doing, or this side's own will.
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
        why: Printable(why).to_string(),
        advice,
    });
}
