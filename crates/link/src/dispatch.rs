//! Requests that the peer opens, and who takes them.

use adit_codec::RequestHead;

use crate::exchange::Exchange;

/// A request that the peer opened.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Its head, without the body that rode along: that is the first part.
    pub head: RequestHead,
    /// The handle on it.
    pub exchange: Exchange,
}

/// Takes the requests that the peer opens. Called by the lane's reader: it must not block, only hand on.
pub trait Dispatch: Send + Sync {
    /// Takes one request. Dropping it cancels it; a refusal is `exchange.send.reset(ResetCode::Refused, …)`.
    fn dispatch(&self, opened: IncomingRequest);
}
