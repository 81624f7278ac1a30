//! One request on one connection: the request is written and the response forwarded at the same time, each within its
//! deadlines, and the request's record is finished.

use adit_net::Stream;
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::ResetCode;
use adit_link::{Exchange, SendHalf, Timer};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::Instant,
};

use super::{
    request::{Http1Record, Http1Request},
    request_head::is_idempotent,
    request_writer::RequestWriter,
    response_reader::ResponseReader,
};
use crate::{
    config::Config,
    forward::{error::ForwardError, record::Outcome, resources::Resources},
};

/// The state of a connection after an exchange.
pub(super) enum After {
    /// The connection can serve another request.
    Reuse,
    Close,
    /// The visitor's direction was aborted: the service receives the bytes before the abort, and then a reset.
    ResetBehind,
    /// The connection was dead before the exchange: this request is to be sent again on a new connection.
    Retry(Http1Request),
    /// The connection has changed to another protocol; these are the first bytes of that protocol from the service.
    Upgraded(Http1Request, Bytes),
}

/// How an exchange completed.
enum Completed {
    /// The connection is reusable.
    Reusable,
    /// The connection must be closed.
    NotReusable,
    /// The service has changed to the protocol that was offered.
    Upgraded,
}

/// Runs the exchanges of one connection, one after the other, with the same buffers and timer.
pub(super) struct ExchangeDriver {
    writer: RequestWriter,
    reader: ResponseReader,
    timer: Timer,
}

impl ExchangeDriver {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            writer: RequestWriter::new(),
            reader: ResponseReader::new(config.turn_bytes),
            timer: Timer::default(),
        }
    }

    /// Ready when `deadline` has passed.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.timer.poll(cx, deadline)
    }

    /// Serves a request and finishes its record, unless the request continues elsewhere ([`After::Retry`],
    /// [`After::Upgraded`]).
    pub(super) async fn serve(
        &mut self,
        socket: &mut Stream,
        request: Http1Request,
        reused: bool,
        resources: &Resources,
    ) -> After {
        let Http1Request {
            mut record,
            exchange: Exchange { send, recv },
        } = request;
        self.writer.begin(recv, Instant::now());
        self.reader.begin(&record.head, record.service.compression);
        let result =
            poll_fn(|cx| self.poll_exchange(cx, socket, &mut record, &send, resources)).await;
        let after = match result {
            Ok(Completed::Upgraded) => match self.writer.take_rest() {
                Some(recv) => {
                    let exchange = Exchange { send, recv };
                    After::Upgraded(Http1Request { record, exchange }, self.reader.take_early())
                }
                None => {
                    record.reset(
                        send,
                        ResetCode::Internal,
                        "no visitor's direction to upgrade",
                    );
                    After::Close
                }
            },
            Ok(completed) => {
                if !self.writer.is_done() {
                    self.writer.stop();
                }
                record.finish(Outcome::Completed);
                match completed {
                    Completed::Reusable => After::Reuse,
                    Completed::NotReusable | Completed::Upgraded => After::Close,
                }
            }
            Err(ForwardError::Abandoned) => {
                record.finish(Outcome::of_abandoned(&send));
                if self.writer.is_aborted() {
                    After::ResetBehind
                } else {
                    After::Close
                }
            }
            Err(ForwardError::Reset(code, reason)) => {
                record.reset(send, code, &reason);
                After::Close
            }
            Err(ForwardError::ConnectionLost(reason)) => match self.writer.take_unread() {
                Some(recv) if reused && may_retry(&record) => {
                    record.timeline.on_retry();
                    let exchange = Exchange { send, recv };
                    After::Retry(Http1Request { record, exchange })
                }
                _ => {
                    record.reset(send, ResetCode::ServiceAborted, &reason);
                    After::Close
                }
            },
        };
        self.writer.clear();
        after
    }

    /// Polls both directions and their deadlines.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
        record: &mut Http1Record,
        send: &SendHalf,
        resources: &Resources,
    ) -> Poll<Result<Completed, ForwardError>> {
        let was_read = self.reader.is_done();
        let is_written = self.writer.poll(cx, socket, record)?.is_ready();
        if self.writer.has_written() {
            record.timeline.on_head_written();
        }
        if self.writer.is_reset() {
            self.reader.on_reset();
        }
        let is_read = match self.reader.poll(cx, socket, send, resources, record) {
            // The response is not needed any more, but the service receives the bytes that the visitor sent before its
            // abort.
            Poll::Ready(Err(ForwardError::Abandoned))
                if !is_written && self.writer.is_receiving(cx) =>
            {
                false
            }
            read => read?.is_ready(),
        };
        if self.writer.is_broken() && self.reader.has_begun() {
            self.writer.stop();
        }
        if is_read && is_written {
            return Poll::Ready(Ok(self.completed()));
        }
        if is_read && !self.reader.is_upgraded() {
            // An early response (P-3.6): the service may continue to read, unless it closes the connection or announces
            // that.
            if !self.reader.keeps_alive() || poll_unsolicited(cx, socket).is_ready() {
                return Poll::Ready(Ok(Completed::NotReusable));
            }
            if !was_read {
                self.writer.set_progress(Instant::now());
            }
        }
        self.poll_overdue(cx, &resources.config, is_written, is_read)
    }

    fn completed(&self) -> Completed {
        if self.reader.is_upgraded() {
            Completed::Upgraded
        } else if self.writer.is_done() && self.reader.keeps_alive() {
            Completed::Reusable
        } else {
            Completed::NotReusable
        }
    }

    /// Ready when the service has neither read nor responded in time.
    fn poll_overdue(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        is_written: bool,
        is_read: bool,
    ) -> Poll<Result<Completed, ForwardError>> {
        let blocked = self.writer.is_blocked();
        let wait = if blocked && is_read {
            config.early_response_timeout
        } else if blocked {
            config.stall_timeout
        } else if is_written && self.reader.awaits_head() {
            config.response_timeout
        } else {
            return Poll::Pending;
        };
        let deadline = self.writer.progress_at() + wait;
        if self.timer.poll(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(if is_read {
            Ok(Completed::NotReusable)
        } else if blocked {
            Err(timed_out("read none of the request", wait))
        } else {
            Err(timed_out("did not respond", wait))
        })
    }
}

/// Whether the request may be sent a second time.
fn may_retry(record: &Http1Record) -> bool {
    !record.timeline.is_retried() && is_idempotent(&record.head.method)
}

fn timed_out(what: &str, wait: Duration) -> ForwardError {
    let reason = format!("the service {what} within {wait:?}");
    ForwardError::Reset(ResetCode::ServiceTimeout, reason.into())
}

/// Ready when the service sends bytes or closes the connection while no response is due.
pub(super) fn poll_unsolicited(cx: &mut Context<'_>, socket: &mut Stream) -> Poll<()> {
    let mut byte = [0];
    Pin::new(socket)
        .poll_read(cx, &mut ReadBuf::new(&mut byte))
        .map(|_| ())
}
