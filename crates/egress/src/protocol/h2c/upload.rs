//! The visitor's direction on its way to a stream of HTTP/2.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_codec::{HeaderBlock, ResetCode};
use adit_link::{Part, Payload, RecvHalf};
use bytes::Buf;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout};

use crate::{fields::is_barred_from_trailers, request::moved::Moved};

/// What h2 sends. Each payload gives its credit back when h2 has written it and drops it.
pub(super) enum Piece {
    Payload(Payload),
    /// The end and nothing else.
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

/// The visitor's direction of one request. Dropping it resets the stream, unless it has [run out](Upload::run_out): what
/// h2 holds of it would keep the stream open for as long as the service does not read.
pub(super) struct Upload<'m> {
    moved: &'m Moved,
    /// None once it is over.
    recv: Option<RecvHalf>,
    stream: SendStream<Piece>,
    /// Of the announced length.
    left: Option<u64>,
    /// Waits for the service's window; whether it is the last.
    held: Option<(Payload, bool)>,
    /// Since when the service has given no window.
    held_since: Option<Instant>,
    over_since: Option<Instant>,
    /// The stream ends by itself.
    left_alone: bool,
}

impl<'m> Upload<'m> {
    /// Of a request that announces `length`, or does not.
    pub(super) fn new(
        recv: RecvHalf,
        stream: SendStream<Piece>,
        length: Option<u64>,
        moved: &'m Moved,
    ) -> Self {
        // Of a request without a body the head was the end.
        let bare = is_bare(&recv, length);
        Self {
            moved,
            recv: (!bare).then_some(recv),
            stream,
            left: length,
            held: None,
            held_since: None,
            over_since: bare.then(Instant::now),
            left_alone: false,
        }
    }

    /// Since when nothing more has been going to be sent: the answer is awaited from then on.
    pub(super) fn over_since(&self) -> Option<Instant> {
        self.over_since
    }

    /// Sends as it comes, until it is over: sent, wanted no more by the service, or given up by the visitor.
    ///
    /// # Errors
    /// What is wrong with the visitor's body; the stream has been reset.
    ///
    /// # Cancel safety
    /// Yes.
    pub(super) async fn run(&mut self) -> Result<(), &'static str> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Goes on behind the answer as long as the service reads; one that reads nothing for `patience` will not.
    pub(super) async fn run_out(mut self, patience: Duration) {
        loop {
            // The answer stands, whatever becomes of the rest.
            if timeout(patience, self.run()).await.is_ok() {
                self.left_alone = true;
                return;
            }
            if self
                .held_since
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
            // What the service has to say about it comes with the answer, or instead of it.
            if !matches!(self.stream.poll_reset(cx), Poll::Pending) {
                self.stop();
                return Poll::Ready(Ok(()));
            }
            if let Some((payload, last)) = self.held.take() {
                if !has_room(&mut self.stream, cx) {
                    self.held = Some((payload, last));
                    self.held_since.get_or_insert_with(Instant::now);
                    // Nothing else would tell that nobody is there any more.
                    ready!(recv.poll_failure(cx));
                    self.stop();
                    return Poll::Ready(Ok(()));
                }
                self.held_since = None;
                self.send(Piece::Payload(payload), last);
                continue;
            }
            let part = ready!(recv.poll_part(cx));
            let last = recv.is_ended();
            match part {
                Some(Ok(Part::Data(payload))) => {
                    if let Err(why) = self.count(payload.remaining() as u64, last) {
                        return self.fault(why);
                    }
                    if payload.has_remaining() {
                        self.held = Some((payload, last));
                    } else if last {
                        self.send(Piece::End, true);
                    }
                }
                Some(Ok(Part::Trailers(trailers))) => {
                    if let Err(why) = self.count(0, true) {
                        return self.fault(why);
                    }
                    // Fails only when the stream is over.
                    let _ = self.stream.send_trailers(map_of(&trailers));
                    self.end();
                }
                Some(Ok(_)) => return self.fault("no part of a request's body"),
                // The visitor left: a reset throws away what h2 still holds.
                Some(Err(_)) => {
                    if recv.is_aborted() {
                        ready!(recv.poll_delivered(cx));
                    }
                    self.stop();
                }
                None => {
                    if let Err(why) = self.count(0, true) {
                        return self.fault(why);
                    }
                    self.send(Piece::End, true);
                }
            }
        }
    }

    fn send(&mut self, piece: Piece, last: bool) {
        if self.stream.send_data(piece, last).is_err() {
            // The stream is over.
            self.stop();
        } else if last {
            self.end();
        }
    }

    /// All of it has been given to h2.
    fn end(&mut self) {
        self.recv = None;
        self.over_since = Some(Instant::now());
    }

    /// Nobody sends or nobody reads on. The visitor is told, or the request would count as broken off after its answer
    /// (P-3.6).
    fn stop(&mut self) {
        self.held = None;
        self.stream.send_reset(Reason::CANCEL);
        if let Some(recv) = self.recv.take()
            && !recv.is_ended()
        {
            recv.stop(ResetCode::Cancelled);
        }
        self.over_since = Some(Instant::now());
    }

    fn fault(&mut self, why: &'static str) -> Poll<Result<(), &'static str>> {
        self.stream.send_reset(Reason::PROTOCOL_ERROR);
        self.stop();
        Poll::Ready(Err(why))
    }

    /// Counts what was announced.
    fn count(&mut self, bytes: u64, last: bool) -> Result<(), &'static str> {
        self.moved.receive(bytes);
        let Some(left) = &mut self.left else {
            return Ok(());
        };
        *left = left
            .checked_sub(bytes)
            .ok_or("the request's body is longer than its content-length")?;
        if last && *left > 0 {
            return Err("the request's body is shorter than its content-length");
        }
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if !self.left_alone {
            self.stop();
        }
    }
}

/// Whether a request's head is all of it. Where a length is announced the end is a fault, which the body reports.
pub(super) fn is_bare(recv: &RecvHalf, length: Option<u64>) -> bool {
    recv.is_ended() && length.is_none_or(|length| length == 0)
}

/// Whether a payload may be given to h2: then its stream may send at least a part of it, and holds at most one more. No
/// more is asked for than a byte: a claim to the connection's window is held even while nothing is sent.
fn has_room(stream: &mut SendStream<Piece>, cx: &mut Context<'_>) -> bool {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match stream.poll_capacity(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(0))) => {}
            // What is wrong shows when it is sent.
            Poll::Ready(_) => return true,
        }
    }
    true
}

fn map_of(trailers: &HeaderBlock) -> HeaderMap {
    let lines = trailers
        .lines()
        .filter(|(name, _)| !is_barred_from_trailers(name));
    lines
        .filter_map(|(name, value)| {
            Some((
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            ))
        })
        .collect()
}
