//! Sends the visitor's direction of a request to a stream of HTTP/2.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_codec::{HeaderBlock, ResetCode, fields::is_message_control};
use adit_link::{Part, Payload, RecvHalf};
use bytes::Buf;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout};

use crate::forward::payload_counts::PayloadCounts;

/// A piece of a body for h2. Its credit is returned when h2 has written and dropped it.
pub(super) enum Piece {
    Payload(Payload),
    /// The end of the body, without data.
    End,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Payload(payload) => payload.remaining(),
            Self::End => 0,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Payload(payload) => payload.chunk(),
            Self::End => &[],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Payload(payload) => payload.advance(count),
            Self::End => {}
        }
    }
}

/// Sends the visitor's direction of one request. Dropping it resets the stream, unless
/// [`run_out`](RequestWriter::run_out) has ended: data buffered by h2 would keep the stream open as long as the service
/// does not read.
pub(super) struct RequestWriter<'r> {
    counts: &'r PayloadCounts,
    /// `None` once the direction has ended.
    recv: Option<RecvHalf>,
    stream: SendStream<Piece>,
    /// Bytes of the body that have not arrived yet, if the head states a length.
    left: Option<u64>,
    /// Payload that waits for the service's window, and whether it is the last.
    waiting: Option<(Payload, bool)>,
    /// Since when the service's window has been full.
    waiting_since: Option<Instant>,
    ended_at: Option<Instant>,
    /// Whether dropping this does not reset the stream.
    keeps_stream: bool,
}

impl<'r> RequestWriter<'r> {
    /// A writer for a request. `length`: the length of its body, if the head states it.
    pub(super) fn new(
        recv: RecvHalf,
        stream: SendStream<Piece>,
        length: Option<u64>,
        counts: &'r PayloadCounts,
    ) -> Self {
        // A request without a body has ended with its head.
        let has_ended = has_no_body(&recv, length);
        Self {
            counts,
            recv: (!has_ended).then_some(recv),
            stream,
            left: length,
            waiting: None,
            waiting_since: None,
            ended_at: has_ended.then(Instant::now),
            keeps_stream: false,
        }
    }

    /// When the direction ended; the time to respond counts from then.
    pub(super) const fn ended_at(&self) -> Option<Instant> {
        self.ended_at
    }

    /// Sends the direction to its end: the last byte, a reset by the service, or an abort by the visitor.
    ///
    /// # Errors
    /// The violation of the protocol by the visitor's body; the stream has been reset.
    ///
    /// # Cancel safety
    /// If it is dropped, nothing is lost; the next call continues.
    pub(super) async fn run(&mut self) -> Result<(), &'static str> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Continues to send after the response as long as the service reads; ends when it has read nothing for `patience`.
    pub(super) async fn run_out(mut self, patience: Duration) {
        loop {
            // The response is complete, so errors of the rest do not matter.
            if timeout(patience, self.run()).await.is_ok() {
                self.keeps_stream = true;
                return;
            }
            if self
                .waiting_since
                .is_some_and(|since| since.elapsed() >= patience)
            {
                return;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        loop {
            let Some(recv) = &mut self.recv else {
                return Poll::Ready(Ok(()));
            };
            // The cause of a reset is reported by the response, or by its error.
            if !matches!(self.stream.poll_reset(cx), Poll::Pending) {
                self.stop();
                return Poll::Ready(Ok(()));
            }
            if let Some((payload, last)) = self.waiting.take() {
                if !has_room(&mut self.stream, cx) {
                    self.waiting = Some((payload, last));
                    self.waiting_since.get_or_insert_with(Instant::now);
                    // While nothing is received, only this poll reports that the visitor has left.
                    ready!(recv.poll_failure(cx));
                    self.stop();
                    return Poll::Ready(Ok(()));
                }
                self.waiting_since = None;
                self.send(Piece::Payload(payload), last);
                continue;
            }
            let part = ready!(recv.poll_part(cx));
            let last = recv.is_ended();
            match part {
                Some(Ok(Part::Data(payload))) => {
                    if let Err(why) = self.count(payload.remaining() as u64, last) {
                        return self.fail(why);
                    }
                    if payload.has_remaining() {
                        self.waiting = Some((payload, last));
                    } else if last {
                        self.send(Piece::End, true);
                    }
                }
                Some(Ok(Part::Trailers(trailers))) => {
                    if let Err(why) = self.count(0, true) {
                        return self.fail(why);
                    }
                    // This fails only if the stream has ended.
                    let _ = self.stream.send_trailers(map_of(&trailers));
                    self.end();
                }
                Some(Ok(_)) => return self.fail("unexpected message in a request body"),
                // The visitor has left: a reset discards what h2 has buffered.
                Some(Err(_)) => {
                    if recv.is_aborted() {
                        ready!(recv.poll_delivered(cx));
                    }
                    self.stop();
                }
                None => {
                    if let Err(why) = self.count(0, true) {
                        return self.fail(why);
                    }
                    self.send(Piece::End, true);
                }
            }
        }
    }

    fn send(&mut self, piece: Piece, last: bool) {
        if self.stream.send_data(piece, last).is_err() {
            // The stream has ended.
            self.stop();
        } else if last {
            self.end();
        }
    }

    /// Notes that the whole direction has been passed to h2.
    fn end(&mut self) {
        self.recv = None;
        self.ended_at = Some(Instant::now());
    }

    /// Called when one of the two sides has stopped. The visitor receives `StopSending`; without it the request would
    /// count as aborted after its response (P-3.6).
    fn stop(&mut self) {
        self.waiting = None;
        self.stream.send_reset(Reason::CANCEL);
        if let Some(recv) = self.recv.take()
            && !recv.is_ended()
        {
            recv.stop(ResetCode::Cancelled);
        }
        self.ended_at = Some(Instant::now());
    }

    fn fail(&mut self, why: &'static str) -> Poll<Result<(), &'static str>> {
        self.stream.send_reset(Reason::PROTOCOL_ERROR);
        self.stop();
        Poll::Ready(Err(why))
    }

    /// Counts bytes of the body against the length that its head states.
    fn count(&mut self, bytes: u64, last: bool) -> Result<(), &'static str> {
        self.counts.add_from_visitor(bytes);
        let Some(left) = &mut self.left else {
            return Ok(());
        };
        *left = left
            .checked_sub(bytes)
            .ok_or("the request body is longer than its Content-Length")?;
        if last && *left > 0 {
            return Err("the request body is shorter than its Content-Length");
        }
        Ok(())
    }
}

impl Drop for RequestWriter<'_> {
    fn drop(&mut self) {
        if !self.keeps_stream {
            self.stop();
        }
    }
}

/// Whether a request ends with its head. With a stated length above 0 it does not: the missing body is reported as an error.
pub(super) fn has_no_body(recv: &RecvHalf, length: Option<u64>) -> bool {
    recv.is_ended() && length.is_none_or(|length| length == 0)
}

/// Whether a payload may be passed to h2: the stream can send at least a part of it, and buffers at most one more.
/// Reserves only one byte, because h2 keeps a reservation of the connection's window even while nothing is sent.
fn has_room(stream: &mut SendStream<Piece>, cx: &mut Context<'_>) -> bool {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match stream.poll_capacity(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(0))) => {}
            // An error is reported when the payload is sent.
            Poll::Ready(_) => return true,
        }
    }
    true
}

fn map_of(trailers: &HeaderBlock) -> HeaderMap {
    let lines = trailers
        .lines()
        .filter(|(name, _)| !is_message_control(name));
    lines
        .filter_map(|(name, value)| {
            Some((
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            ))
        })
        .collect()
}
