//! A request whose body is sent while its answer is awaited.

use adit_codec::ResetCode;
use adit_link::{Failure, Reason, RecvHalf, Retry, SendHalf};
use bytes::Bytes;
use http::Version;
use tokio::time::{Instant, sleep_until};

use crate::{
    access::Access,
    answer::{Answer, Came, Head, came},
    body::Sending,
    call::Terms,
    demand::Demand,
    http::Http,
    inbound::Inbound,
    interim,
    pace::Pace,
    pump::{Owed, Pump},
};

/// A request whose body is being sent while its answer is awaited.
pub(crate) struct Streaming<'a> {
    pub(crate) http: &'a Http,
    pub(crate) terms: Terms<'a>,
    /// Before the body has been begun.
    pub(crate) send: Option<SendHalf>,
    /// After that.
    pub(crate) pump: Option<Pump>,
    pub(crate) demand: &'a Demand,
    /// What is to be sent before the rest of it.
    pub(crate) first: Bytes,
    pub(crate) body: &'a mut Option<Inbound>,
    pub(crate) access: &'a mut Access,
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
                // It does not wait for `100 Continue`, and nobody else has to.
                () = content(self.access, self.body.as_mut()), if self.pump.is_none() => {
                    self.start();
                    continue;
                }
                () = until(due) => {
                    if self.pump.is_none() {
                        self.start();
                        interim::go_on(self.terms.interim).await;
                    } else if self.due(opened) <= due {
                        return Err(self.give_up());
                    }
                    continue;
                }
            };
            match came(part, false) {
                Ok(Came::Interim(head)) => {
                    if head.status == 100 {
                        self.start();
                        if !self.terms.expects {
                            continue;
                        }
                    }
                    interim::pass_on(self.access, self.terms.interim, &head).await;
                }
                Ok(Came::Final(head)) => return Ok(self.end(head, recv)),
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

    /// Begins to read the body, which makes hyper send `100 Continue` over HTTP/1.1 if the visitor waits for it.
    fn start(&mut self) {
        if let Some(body) = self.body.take()
            && let Some(send) = self.send.take()
        {
            let first = std::mem::take(&mut self.first);
            let config = &self.http.config;
            let owed = self.terms.stall.map(|stall| Owed {
                pace: Pace::new(stall, config.min_rate_bytes_per_sec),
                demand: self.demand.clone(),
                grace: config.shortage_grace,
            });
            let at_once = self.terms.cancels_at_once;
            let pump = Pump::start(first, body, send, owed, at_once);
            self.access.pumped = Some(pump.log());
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

/// Waits until some of the content of a visitor's request has come.
async fn content(access: &Access, body: Option<&mut Inbound>) {
    if access.visit.version == Version::HTTP_2
        && let Some(body) = body
    {
        return body.arrives().await;
    }
    let connection = access.connection();
    // Those of HTTP/1.1 are served one after the other: this is the last one.
    let number = connection.requests().saturating_sub(1);
    connection.expectation().content(number).await;
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
