//! Requests that the peer opens, and their receiver.

use adit_codec::RequestHead;

use crate::exchange::Exchange;

/// A request that the peer opened.
#[derive(Debug)]
pub struct IncomingRequest {
    /// The head of the request, without the body in its message: that body is the first part.
    pub head: RequestHead,
    /// The handle of the request.
    pub exchange: Exchange,
}

/// Receives the requests that the peer opens. Called by the reader of the lane: it must not block.
pub trait Dispatch: Send + Sync {
    /// Receives one request. Dropping it cancels it; a refusal is `exchange.send.reset(ResetCode::Refused, …)`.
    fn dispatch(&self, opened: IncomingRequest);
}
