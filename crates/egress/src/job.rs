//! One request on its way to a service.

use std::{borrow::Cow, task::Context, task::Poll};

use adit_codec::{HttpRequest, Open, ResetCode};
use adit_link::{Exchange, Failure, SendHalf};
use uuid::Uuid;

use crate::account::Account;

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

/// Refuses or gives up a request, saying why to the opener and in the log.
pub(crate) fn give_up(send: SendHalf, open: &Open, code: ResetCode, why: &str) {
    tracing::debug!(
        target: "adit::egress",
        request_id = %Uuid::from_bytes(open.request_uuid),
        reason = code.reason(),
        why,
        "request reset"
    );
    send.reset(code, why);
}

/// Why an exchange ended before its answer was whole.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nobody waits for it any more: the visitor left, the link was lost.
    Gone,
    /// The peer is to be told.
    Reset(ResetCode, Cow<'static, str>),
    /// The connection ended before a single byte of the answer.
    Died(String),
}

impl Broken {
    pub(crate) fn aborted(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Reset(ResetCode::ServiceAborted, why.into())
    }
}

impl From<Failure> for Broken {
    fn from(_: Failure) -> Self {
        Self::Gone
    }
}
