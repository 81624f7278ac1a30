//! One request to a service of HTTP/1.1.

use std::task::{Context, Poll, Waker};

use adit_codec::{HttpRequest, ResetCode};
use adit_link::Exchange;

use crate::forward::record::RequestRecord;

/// The record of a request to a service of HTTP/1.1.
pub(crate) type Http1Record = RequestRecord<Box<HttpRequest>>;

/// A request for a connection: its record and its exchange.
pub(super) struct Http1Request {
    pub(super) record: Http1Record,
    pub(super) exchange: Exchange,
}

impl Http1Request {
    /// Resets the request with a reason, and reports it.
    pub(super) fn reset(self, code: ResetCode, reason: &str) {
        self.record.reset(self.exchange.send, code, reason);
    }

    /// Whether the opener does not wait for the response any more.
    pub(super) fn is_abandoned(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.exchange.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}
