//! Calls of gRPC (section 8 of the protocol).
//!
//! A call is an exchange of HTTP/2 whose body is a sequence of messages and whose outcome is in the trailers. Messages
//! are not parsed here. There are two differences from plain HTTP: a silence is bounded only by the visitor's own
//! deadline, and every failure is a status that gRPC libraries understand.

use adit_link::Failure;
use http::Response;
use tokio::time::Instant;

use crate::forward::{
    context::HttpContext,
    deadline::Deadline,
    dispatch::forward,
    error_response::{respond_to_rejected, respond_with_error},
    inbound::Inbound,
    options::ForwardOptions,
    record::RequestRecord,
    response::respond,
    response_body::ResponseBody,
};

/// Serves one call.
///
/// # Errors
/// When the visitor has left.
pub(super) async fn serve(
    context: &HttpContext,
    mut record: Box<RequestRecord>,
    body: Inbound,
) -> Result<Response<ResponseBody>, Failure> {
    let deadline = match Deadline::of(&record.request.headers, Instant::now()) {
        Ok(deadline) => deadline,
        Err(failure) => return respond_with_error(&failure, record, false),
    };
    // A stream may be silent for days in both directions, before its first message and after it. Bytes that wait for a
    // visitor or a service have timeouts of their own.
    let options = ForwardOptions {
        response_timeout: None,
        stall_timeout: None,
        expect_continue: false,
        deadline,
        cancel_at_once: true,
        interim: None,
    };
    let forwarding = forward(context, &mut record, body, options);
    let response = match deadline {
        // The future is dropped at the deadline, which resets its exchange with `CANCELLED` (P-8.3).
        Some(deadline) => deadline.bound(forwarding).await,
        None => forwarding.await,
    };
    match response {
        Ok(response) => respond(response, record, deadline),
        Err(rejected) => respond_to_rejected(rejected, record, false),
    }
}
