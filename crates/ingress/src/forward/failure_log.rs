//! Writes a log line for each request that failed on this side or further along its path.

use std::sync::{Arc, LazyLock};

use adit_auth::{ClientId, Grant, TunnelName};
use adit_codec::Side;
use adit_link::{Failure, LogLimit, Reason};
use adit_trace::Printable;
use uuid::Uuid;

/// One limit for the whole process: a service that is down fails every request.
static LINES: LazyLock<Arc<LogLimit<FailedRequest>>> = LazyLock::new(|| {
    LogLimit::per_sec(5, |failed: &FailedRequest, count| {
        tracing::info!(
            request_id = %failed.id,
            reason = failed.reason,
            tunnel = failed.tunnel.as_ref().map(TunnelName::as_str),
            client = failed.client.as_ref().map(ClientId::as_str),
            visitor = failed.visitor,
            count = (count > 1).then_some(count),
            "request failed: {}",
            failed.detail
        );
    })
});

struct FailedRequest {
    id: Uuid,
    reason: &'static str,
    tunnel: Option<TunnelName>,
    client: Option<ClientId>,
    visitor: String,
    detail: String,
}

/// Logs a failure that the visitor did not cause. `route` is the destination of the last attempt, if there was one.
pub(crate) fn log_failure(
    failure: &Failure,
    request_id: &Uuid,
    visitor: &str,
    route: Option<&(Grant, Side)>,
) {
    let reason = failure.reason.as_str();
    tracing::debug!(%request_id, reason, "{}", failure.detail);
    let is_visitors = failure.reason.http_status() < 500 || failure.reason == Reason::NoTunnel;
    if is_visitors || !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let grant = route.map(|(grant, _)| grant);
    LINES.note(FailedRequest {
        id: *request_id,
        reason,
        tunnel: grant.and_then(Grant::tunnel).cloned(),
        client: grant.map(|grant| grant.client().clone()),
        visitor: visitor.to_owned(),
        detail: Printable(&failure.detail).to_string(),
    });
}
