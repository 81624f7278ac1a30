//! A request whose body is sent while its answer is awaited.

use adit_codec::{HttpResponse, ResetCode};
use adit_link::{Failure, Part, Reason, RecvHalf, Retry, SendHalf};
use hyper::body::Incoming;
use tokio::time::sleep_until;

use crate::{
    answer::{Answer, final_head},
    body::Sending,
    http::Http,
    pump::Pump,
};

/// A request whose body is being sent while its answer is awaited.
pub(crate) struct Streaming<'a> {
    pub(crate) http: &'a Http,
    /// Before the body has been begun.
    pub(crate) send: Option<SendHalf>,
    /// After that.
    pub(crate) pump: Option<Pump<Incoming>>,
    pub(crate) body: &'a mut Option<Incoming>,
}

impl Streaming<'_> {
    /// Sends the body and waits for the final answer.
    pub(crate) async fn answer(
        mut self,
        mut recv: RecvHalf,
        expects: bool,
    ) -> Result<Answer, Failure> {
        let opened = tokio::time::Instant::now();
        if !expects {
            self.start();
        }
        loop {
            let due = match &self.pump {
                None => opened + self.http.config.continue_wait,
                Some(pump) => pump.progress() + self.http.config.service_timeout,
            };
            let part = tokio::select! {
                biased;
                part = recv.part() => part,
                () = sleep_until(due) => {
                    match &self.pump {
                        None => self.start(),
                        Some(pump) if pump.progress() + self.http.config.service_timeout > due => {}
                        Some(_) => return Err(self.give_up()),
                    }
                    continue;
                }
            };
            if matches!(&part, Some(Ok(Part::Answer(head))) if head.status == 100) {
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

    /// Begins to read the body, which makes hyper send `100 Continue` if the visitor waits for it.
    fn start(&mut self) {
        if let Some(body) = self.body.take()
            && let Some(send) = self.send.take()
        {
            self.pump = Some(Pump::start(body, send, self.http.config.stall_timeout));
        }
    }

    fn end(self, head: Box<HttpResponse>, recv: RecvHalf) -> Answer {
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
