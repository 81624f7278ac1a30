//! One request on its way to a service of HTTP/1.1.

use std::task::{Context, Poll};

use adit_codec::{HttpRequest, ResetCode};
use adit_link::Exchange;

use super::account::Account;

/// A request and the handle on it.
pub(crate) struct Job {
    pub(crate) account: Account<Box<HttpRequest>>,
    pub(crate) exchange: Exchange,
}

impl Job {
    pub(crate) fn new(account: Account<Box<HttpRequest>>, exchange: Exchange) -> Self {
        Self { account, exchange }
    }

    /// Refuses or gives up, saying why.
    pub(crate) fn reset(mut self, code: ResetCode, why: &str) {
        self.account.give_up(self.exchange.send, code, why);
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        matches!(self.exchange.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}
