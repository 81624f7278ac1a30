//! A request whose body is sent while its answer is awaited.

use std::sync::Arc;

use adit_codec::{AnswerHead, ResetCode};
use adit_link::{Failure, Part, Reason, RecvHalf, Retry, SendHalf};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use crate::{
    answer::{Answer, Head, final_head},
    body::Sending,
    call::Terms,
    http::Http,
    pump::{Progress, Pump},
};

/// A request whose body is being sent while its answer is awaited.
pub(crate) struct Streaming<'a> {
    pub(crate) http: &'a Http,
    pub(crate) terms: Terms,
    /// Before the body has been begun.
    pub(crate) send: Option<SendHalf>,
    /// After that.
    pub(crate) pump: Option<Pump<Incoming>>,
    /// What is to be sent before the rest of it.
    pub(crate) first: Bytes,
    pub(crate) body: &'a mut Option<Incoming>,
    /// Where it says how much of the body it has read.
    pub(crate) pumped: &'a mut Option<Arc<Progress>>,
}

impl Streaming<'_> {
    /// Sends the body and waits for the final answer.
    pub(crate) async fn answer(mut self, mut recv: RecvHalf) -> Result<Answer, Failure> {
        let opened = Instant::now();
        if !self.terms.expects {
            self.start();
        }
        loop {
            let due = self.due(opened);
            let part = tokio::select! {
                biased;
                part = recv.part() => part,
                () = until(due) => {
                    if self.pump.is_none() {
                        self.start();
                    } else if self.due(opened) <= due {
                        return Err(self.give_up());
                    }
                    continue;
                }
            };
            if matches!(&part, Some(Ok(Part::Answer(AnswerHead::Http(head)))) if head.status == 100)
            {
                self.start();
                continue;
            }
            match final_head(part) {
                Ok(None) => {}
                Ok(Some(head)) => return Ok(self.end(head, recv)),
                Err(failure) => return Err(self.fail(failure).await),
            }
        }
    }

    /// When there has been enough silence: for the body to be begun, or for the exchange to be given up.
    fn due(&self, opened: Instant) -> Option<Instant> {
        match &self.pump {
            None => Some(opened + self.http.config.continue_wait),
            Some(pump) => Some(pump.progress() + self.terms.answer_within?),
        }
    }

    /// Begins to read the body, which makes hyper send `100 Continue` if the visitor waits for it.
    fn start(&mut self) {
        if let Some(body) = self.body.take()
            && let Some(send) = self.send.take()
        {
            let first = std::mem::take(&mut self.first);
            let pump = Pump::start(first, body, send, self.terms.stall);
            *self.pumped = Some(pump.log());
            self.pump = Some(pump);
        }
    }

    fn end(self, head: Head, recv: RecvHalf) -> Answer {
        // A body that nobody asked for is not read.
        drop(self.body.take());
        let sending = match (self.pump, self.send) {
            (Some(pump), _) => Sending::Pumped(pump),
            (None, Some(send)) => Sending::Unasked(send),
            (None, None) => Sending::Done,
        };
        Answer {
            head,
            recv,
            sending,
        }
    }

    fn give_up(mut self) -> Failure {
        let late = "the service did not answer in time";
        if let Some(pump) = self.pump.take() {
            pump.reset(ResetCode::ServiceTimeout, late);
        }
        Failure::new(Reason::ServiceTimeout, late)
    }

    /// The exchange has failed: whose fault it was, and the body back if it has not been begun.
    async fn fail(self, failure: Failure) -> Failure {
        let Some(pump) = self.pump else {
            return failure;
        };
        if let Some(blamed) = pump.failure() {
            return blamed;
        }
        if failure.retry() == Retry::Never {
            // The exchange may be alive yet, and the pump waiting for its credit.
            pump.reset(ResetCode::ProtocolError, "the answer could not be used");
            return failure;
        }
        *self.body = pump.untouched().await;
        failure
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
