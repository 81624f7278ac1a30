//! The handle on one request, for the task that serves it on either side.

mod canceller;
mod recv;
pub(crate) mod request;
mod send;

use std::{any::Any, sync::Arc, time::Duration};

use adit_codec::RequestId;

use self::request::Request;
pub use self::{canceller::Canceller, recv::RecvHalf, send::SendHalf};
use crate::{credit_wait::CreditWait, inbox::Inbox, lane::state::LaneState};

/// A request: both directions of it.
#[derive(Debug)]
pub struct Exchange {
    /// The direction that this end sends.
    pub send: SendHalf,
    /// The peer's direction.
    pub recv: RecvHalf,
}

impl Exchange {
    pub(crate) fn new(
        lane: Arc<LaneState>,
        id: RequestId,
        inbox: Arc<Inbox>,
        sent_all: bool,
    ) -> Self {
        let request = Arc::new(Request::new(lane, id, inbox, sent_all));
        Self {
            send: SendHalf::new(request.clone()),
            recv: RecvHalf::new(request),
        }
    }

    /// Attaches a value to the request, such as its permits: it is dropped when the request settles or fails, whichever
    /// is first. A second call replaces the value of the first.
    pub fn hold(&self, held: impl Any + Send) {
        self.recv.request().inbox.hold(Box::new(held));
    }

    /// How long received parts may wait for the task of this request before the request is reset; by default
    /// [`LaneConfig::stall`](crate::LaneConfig::stall). An interactive session may pause for longer than an HTTP exchange.
    pub fn set_stall(&self, stall: Duration) {
        self.recv.request().inbox.lock().stall = Some(stall);
    }

    /// From now on `watch` measures how long [`SendHalf::poll_ready`], and every method that is built on it, waits until
    /// payload may be sent. A second call replaces the first watch.
    pub fn watch_credit(&self, watch: Arc<CreditWait>) {
        self.recv.request().inbox.lock().credit_wait = Some(watch);
    }

    /// The request's id on its data stream.
    pub fn id(&self) -> RequestId {
        self.recv.request().id
    }
}
