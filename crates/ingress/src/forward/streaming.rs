//! A request whose body is sent while its response is awaited.

use adit_codec::ResetCode;
use adit_link::{Failure, Reason, RecvHalf, Retry, SendHalf, until};
use bytes::Bytes;
use http::Version;
use tokio::time::Instant;

use crate::{
    config::HttpConfig,
    forward::{
        demand::Demand,
        inbound::Inbound,
        interim,
        options::ForwardOptions,
        pace::Pace,
        pump::{Owed, Pump},
        receive::{ReceivedHead, RequestSend, UpstreamHead, UpstreamResponse, head_of},
        record::RequestRecord,
    },
};

/// A request whose body is sent while its response is awaited.
pub(super) struct Streaming<'a> {
    pub(crate) config: &'a HttpConfig,
    pub(crate) options: ForwardOptions<'a>,
    /// The sending half, until the pump starts.
    pub(crate) send: Option<SendHalf>,
    /// The pump that sends the body, once it has started.
    pub(crate) pump: Option<Pump>,
    pub(crate) demand: &'a Demand,
    /// Bytes to send before the rest of the body.
    pub(crate) first: Bytes,
    pub(crate) body: &'a mut Option<Inbound>,
    pub(crate) record: &'a mut RequestRecord,
}

impl Streaming<'_> {
    /// Sends the body and waits for the final response.
    pub(super) async fn run(mut self, mut recv: RecvHalf) -> Result<UpstreamResponse, Failure> {
        let opened = Instant::now();
        if !self.options.expect_continue {
            self.start();
        }
        loop {
            let due = self.due(opened);
            let part = tokio::select! {
                biased;
                part = recv.part() => part,
                // The visitor sends its body without waiting for `100 Continue`.
                () = content(self.record, self.body.as_mut()), if self.pump.is_none() => {
                    self.start();
                    continue;
                }
                () = until(due) => {
                    if self.pump.is_none() {
                        self.start();
                        interim::send_continue(self.options.interim).await;
                    } else if self.due(opened) <= due {
                        return Err(self.time_out());
                    }
                    continue;
                }
            };
            match head_of(part, false) {
                Ok(ReceivedHead::Interim(head)) => {
                    if head.status == 100 {
                        self.start();
                        if !self.options.expect_continue {
                            continue;
                        }
                    }
                    let (slot, version) = (
                        self.record.connection().interim(),
                        self.record.request.version,
                    );
                    interim::pass_on(slot, version, self.options.interim, &head).await;
                }
                Ok(ReceivedHead::Final(head)) => return Ok(self.end(head, recv)),
                Err(failure) => return Err(self.fail(failure).await),
            }
        }
    }

    /// When the silence has been long enough: to start the body, or to reset the exchange.
    fn due(&self, opened: Instant) -> Option<Instant> {
        match &self.pump {
            None => Some(opened + self.config.continue_wait),
            Some(pump) => Some(pump.last_progress() + self.options.response_timeout?),
        }
    }

    /// Starts to read the body, which makes hyper send `100 Continue` over HTTP/1.1 if the visitor waits for it.
    fn start(&mut self) {
        if let Some(body) = self.body.take()
            && let Some(send) = self.send.take()
        {
            let first = std::mem::take(&mut self.first);
            let config = self.config;
            let owed = self.options.stall_timeout.map(|stall| Owed {
                pace: Pace::new(stall, config.min_rate_bytes_per_sec),
                demand: self.demand.clone(),
                grace: config.shortage_grace,
            });
            let at_once = self.options.cancel_at_once;
            let reserved = self.record.request.reserved.clone();
            let pump = Pump::start(first, body, send, owed, at_once, reserved);
            self.record.pumped = Some(pump.progress());
            self.pump = Some(pump);
        }
    }

    fn end(self, head: UpstreamHead, recv: RecvHalf) -> UpstreamResponse {
        // A body that was not requested is not read.
        drop(self.body.take());
        let request = match (self.pump, self.send) {
            (Some(pump), _) => RequestSend::Streaming(pump),
            (None, Some(send)) => RequestSend::NotRequested(send),
            (None, None) => RequestSend::Done,
        };
        UpstreamResponse {
            head,
            recv,
            request,
        }
    }

    fn time_out(mut self) -> Failure {
        let late = "upstream did not respond in time";
        if let Some(pump) = self.pump.take() {
            pump.reset(ResetCode::ServiceTimeout, late);
        }
        Failure::new(Reason::ServiceTimeout, late)
    }

    /// Called when the exchange has failed. Returns the cause, and puts the body back if no byte of it has been read.
    async fn fail(self, failure: Failure) -> Failure {
        let Some(pump) = self.pump else {
            return failure;
        };
        if let Some(cause) = pump.failure() {
            return cause;
        }
        if failure.retry() == Retry::Never {
            // The exchange may still be open, and the pump may wait for its credit.
            pump.reset(ResetCode::ProtocolError, "the response could not be used");
            return failure;
        }
        *self.body = pump.untouched().await;
        failure
    }
}

/// Waits until a part of the body of the request has arrived.
async fn content(record: &RequestRecord, body: Option<&mut Inbound>) {
    if record.request.version == Version::HTTP_2
        && let Some(body) = body
    {
        return body.arrived().await;
    }
    let connection = record.connection();
    // Requests of HTTP/1.1 are served one after the other, so this is the last one.
    let number = connection.requests().saturating_sub(1);
    connection.expectation().content(number).await;
}
