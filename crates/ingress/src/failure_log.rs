//! A line for each request that failed here or behind here.

use std::time::Instant;

use adit_auth::Grant;
use adit_codec::Side;
use adit_link::{Failure, Reason};
use adit_trace::{LineBudget, Printable};
use uuid::Uuid;

/// Of the whole process: a service that is down fails every request.
static LINES: LineBudget = LineBudget::new(5);

/// Logs a failure that is not the visitor's own. `route` is where the request was led, if it was.
pub(crate) fn log_failure(
    failure: &Failure,
    request_id: &Uuid,
    visitor: &str,
    route: Option<&(Grant, Side)>,
) {
    let is_visitors = failure.reason.http_status() < 500 || failure.reason == Reason::NoTunnel;
    if is_visitors || !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let Some(left_out) = LINES.take(Instant::now()) else {
        return;
    };
    if left_out > 0 {
        tracing::info!(requests = left_out, "more requests failed");
    }
    let grant = route.map(|(grant, _)| grant);
    let tunnel = grant.and_then(Grant::tunnel);
    tracing::info!(
        request_id = %request_id,
        reason = failure.reason.as_str(),
        tunnel = tunnel.map(|tunnel| tunnel.as_str()),
        client = grant.map(|grant| grant.client().as_str()),
        visitor,
        "request failed: {}",
        Printable(&failure.detail)
    );
}
