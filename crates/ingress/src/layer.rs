//! One link of the chain that every request passes.

use std::{any::Any, future::Future, pin::Pin};

use adit_link::Failure;

use crate::{session::Session, visit::Visit};

/// A future on the heap, free to move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a request holds while it lasts, such as a permit.
pub type Held = Box<dyn Any + Send>;

/// What a layer says about a request.
pub enum Verdict {
    /// Go on.
    Continue,
    /// Go on, and keep this as long as the request lasts.
    Hold(Held),
    /// Wait, then go on and keep what came of it.
    Wait(BoxFuture<Result<Held, Failure>>),
    /// No further: the visitor is told why.
    Stop(Failure),
}

/// One link of the chain: a plugin, a limit, an authorization. Requests pass the chain in its order, answers in the
/// reverse order.
pub trait Layer: Send + Sync + 'static {
    /// Sees, and may change, a request before it is directed.
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        let _ = visit;
        Verdict::Continue
    }

    /// Sees a TCP connection or a UDP flow before it is directed.
    fn on_session(&self, session: &Session) -> Verdict {
        let _ = session;
        Verdict::Continue
    }

    /// Sees, and may change, the head of a service's answer. Failures made here do not pass it.
    fn on_response(&self, visit: &Visit, response: &mut http::response::Parts) {
        let _ = (visit, response);
    }
}
