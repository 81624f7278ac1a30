//! Calls of gRPC (section 8 of the protocol): what they have beside what every request has.
//!
//! A call is an exchange of HTTP/2 whose body is a run of messages and whose outcome stands in the trailers. Nothing
//! here looks at messages. What is different from plain HTTP: neither side owes the other anything, so that only the
//! visitor's own deadline bounds a silence; and every failure is a status that gRPC's libraries understand.

mod deadline;
mod status;

use adit_codec::{EncodedHead, GrpcRequestHead, HeadError, Open};
use adit_link::Failure;
use http::{Response, header::TE};
use tokio::time::Instant;

pub(crate) use self::{
    deadline::{Deadline, Watch},
    status::{reply, status_of, trailers},
};
use crate::{
    access::Access,
    answer::respond,
    body::ResponseBody,
    call::{Terms, carry, fail},
    http::Http,
    inbound::Inbound,
    visit::Visit,
};

/// Serves one call. The error is for a visitor who is not there any more.
pub(crate) async fn serve(
    http: &Http,
    mut access: Access,
    body: Inbound,
) -> Result<Response<ResponseBody>, Failure> {
    let deadline = match Deadline::of(&access.visit.headers, Instant::now()) {
        Ok(deadline) => deadline,
        Err(failure) => return fail(&failure, access, false),
    };
    // A stream may be silent for days, in both directions, before its first message and after it: that is the business
    // of the two ends. What waits and is not taken is another matter, and has its times elsewhere.
    let terms = Terms {
        answer_within: None,
        stall: None,
        expects: false,
        deadline,
        cancels_at_once: true,
        interim: None,
    };
    let carried = carry(http, &mut access, body, terms);
    let answer = match deadline {
        // Dropped at the deadline, it resets its exchange with `CANCELLED` (P-8.3).
        Some(deadline) => deadline.bound(carried).await,
        None => carried.await,
    };
    match answer {
        Ok(answer) => respond(http, answer, access, deadline),
        Err(failure) => fail(&failure, access, false),
    }
}

/// The head of a call as it crosses, with the part of its messages that rides along (P-8.2, P-8.3).
pub(crate) fn head<'h>(
    visit: &Visit,
    open: &Open<&str>,
    lines: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    body: &[u8],
    deadline: Option<Deadline>,
) -> Result<EncodedHead, HeadError> {
    let head = GrpcRequestHead {
        open,
        authority: visit.authority_str().as_bytes(),
        path: visit.path.as_bytes(),
        timeout: deadline.map(|deadline| deadline.left(Instant::now())),
    };
    let own = |name: &[u8]| name == TE.as_str().as_bytes() || name == deadline::HEADER.as_bytes();
    head.encode(lines.filter(|(name, _)| !own(name)), body)
}
