//! The seam for layers: plugins, limits, authorization.

use std::{any::Any, future::Future, pin::Pin};

use adit_link::Failure;

use crate::forward::{request_meta::RequestMeta, session::Session};

/// A future on the heap, free to move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A value that a request holds until it ends, such as a permit.
pub type Held = Box<dyn Any + Send>;

/// The decision of a layer about a request.
pub enum Verdict {
    /// Continue with the next layer.
    Continue,
    /// Continue, and hold this until the request ends.
    Hold(Held),
    /// Wait, then continue and hold the result.
    Wait(BoxFuture<Result<Held, Failure>>),
    /// Reject the request with a failure.
    Reject(Failure),
}

/// One step that requests pass on their way to a client: a plugin, a limit, an authorization. Requests pass the layers in
/// their order, responses in the reverse order.
pub trait Layer: Send + Sync + 'static {
    /// Inspects a request before it is routed, and may change it.
    fn on_request(&self, request: &mut RequestMeta) -> Verdict {
        let _ = request;
        Verdict::Continue
    }

    /// Inspects a TCP connection or a UDP flow before it is routed.
    fn on_session(&self, session: &Session) -> Verdict {
        let _ = session;
        Verdict::Continue
    }

    /// Inspects the head of a service's response, and may change it. Error responses do not pass the layers.
    fn on_response(&self, request: &RequestMeta, response: &mut http::response::Parts) {
        let _ = (request, response);
    }
}
