//! Writes requests to the socket.

use adit_net::Stream;
use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_codec::{ResetCode, fields::is_message_control};
use adit_link::{Part, Payload, RecvHalf};
use bytes::Buf as _;
use tokio::{io::AsyncWrite as _, time::Instant};

use super::{
    header_line::put_line,
    request::Http1Record,
    request_head::{RequestBody, RequestFraming, write_head},
};
use crate::forward::{error::ForwardError, payload_counts::PayloadCounts};

/// Payload of at most this many bytes is copied after the head or chunk size: one buffer and one system call are cheaper
/// than a vectored write.
const COPY_BYTES: usize = 4 * 1024;
/// Bytes gathered for one write.
const GATHER_BYTES: usize = 16 * 1024;
/// A buffer that has grown larger than this is not kept for the next request.
const KEEP_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head has not been encoded yet.
    Start,
    /// Parts of the body are received and written.
    Streaming,
    /// The body has been received to its end; the last of it may wait for the socket.
    Received,
    /// The visitor has aborted the request; the bytes before the abort may wait for the socket.
    Aborted,
    /// The request has been written.
    Done,
    /// The socket cannot be written to any more.
    Broken,
}

/// Writes one request after the other to one connection.
pub(super) struct RequestWriter {
    state: State,
    recv: Option<RecvHalf>,
    framing: RequestFraming,
    /// Head, chunk framing and small payloads; the bytes before `at` have been written.
    out: Vec<u8>,
    at: usize,
    /// A large payload that follows `out`, and the line end after it.
    body: Option<Payload>,
    suffix: &'static [u8],
    /// Payloads that were copied to `out`; their credit is returned when `out` has been written (P-4.5).
    copied: Vec<Payload>,
    /// A part of the body has been received: the request cannot be sent again.
    consumed: bool,
    /// The head, or a part of it, has been written.
    written: bool,
    /// The socket's buffer is full.
    blocked: bool,
    /// The service has reset the connection.
    reset: bool,
    /// When bytes were last written.
    progress_at: Instant,
}

impl RequestWriter {
    pub(super) fn new() -> Self {
        Self {
            state: State::Done,
            recv: None,
            framing: RequestFraming::Length(0),
            out: Vec::new(),
            at: 0,
            body: None,
            suffix: b"",
            copied: Vec::new(),
            consumed: false,
            written: false,
            blocked: false,
            reset: false,
            progress_at: Instant::now(),
        }
    }

    /// Begins a request, whose body is received from `recv`.
    pub(super) fn begin(&mut self, recv: RecvHalf, now: Instant) {
        self.clear();
        self.recv = Some(recv);
        self.state = State::Start;
        self.progress_at = now;
    }

    /// Removes the state of the request. Does not stop the visitor's direction; [`RequestWriter::stop`] does.
    pub(super) fn clear(&mut self) {
        self.state = State::Done;
        self.recv = None;
        self.discard();
        self.consumed = false;
        self.written = false;
        self.blocked = false;
        self.reset = false;
        if self.out.capacity() > KEEP_BYTES {
            self.out = Vec::new();
        }
    }

    fn discard(&mut self) {
        self.out.clear();
        self.at = 0;
        self.body = None;
        self.suffix = b"";
        self.copied.clear();
    }

    /// The visitor's direction, if the request can still be sent on another connection.
    pub(super) fn take_unread(&mut self) -> Option<RecvHalf> {
        if self.consumed {
            None
        } else {
            self.recv.take()
        }
    }

    /// The visitor's direction after a request that has been written: it carries the protocol of an upgrade.
    pub(super) fn take_rest(&mut self) -> Option<RecvHalf> {
        self.recv.take()
    }

    /// Whether a part of the request has been written.
    pub(super) const fn has_written(&self) -> bool {
        self.written
    }

    /// Whether the request has been written to its end.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the socket cannot be written to any more.
    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the service has reset the connection.
    pub(super) const fn is_reset(&self) -> bool {
        self.reset
    }

    /// Whether the visitor has aborted the request, and the bytes before the abort have been written.
    pub(super) fn is_aborted(&self) -> bool {
        self.state == State::Aborted
    }

    /// Whether the visitor's direction may still deliver bytes, up to its abort.
    pub(super) fn is_receiving(&self, cx: &mut Context<'_>) -> bool {
        let recv = self.recv.as_ref();
        matches!(self.state, State::Start | State::Streaming | State::Aborted)
            && recv.is_some_and(|recv| recv.poll_failure(cx).is_pending())
    }

    /// Whether the socket's send buffer is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// When bytes were last written, or the request began.
    pub(super) fn progress_at(&self) -> Instant {
        self.progress_at
    }

    pub(super) fn set_progress(&mut self, now: Instant) {
        self.progress_at = now;
    }

    /// Stops the visitor's direction: no more of the request will be read (P-3.6).
    pub(super) fn stop(&mut self) {
        if let Some(recv) = self.recv.take()
            && !recv.is_ended()
        {
            recv.stop(ResetCode::Cancelled);
        }
        self.discard();
        self.blocked = false;
        self.state = State::Broken;
    }

    /// Writes as much as the socket takes. Ready when nothing more will be written: the request is complete, or the socket is
    /// broken.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
        record: &Http1Record,
    ) -> Poll<Result<(), ForwardError>> {
        if self.state == State::Start {
            self.start(cx, record)?;
        }
        loop {
            if matches!(self.state, State::Done | State::Broken) {
                return Poll::Ready(Ok(()));
            }
            self.blocked = true;
            let written = ready!(self.poll_write(cx, socket));
            self.blocked = false;
            if let Err(error) = written {
                self.discard();
                self.state = State::Broken;
                // EPIPE follows an orderly end of the service's direction; any other error is a reset.
                self.reset = error.kind() != io::ErrorKind::BrokenPipe;
            } else if self.state == State::Aborted {
                return Poll::Ready(Err(ForwardError::Abandoned));
            } else if self.state == State::Received {
                self.state = State::Done;
            } else if self.state == State::Streaming && !self.gather(cx, &record.payload)? {
                return Poll::Pending;
            }
        }
    }

    /// Encodes the head for the known state of the body, and the start of the body.
    fn start(&mut self, cx: &mut Context<'_>, record: &Http1Record) -> Result<(), ForwardError> {
        let Some(recv) = &mut self.recv else {
            return Err(ForwardError::Abandoned);
        };
        // With an upgrade offer, the whole body is in the opening message (P-3.7).
        let offers_upgrade = !record.head.upgrade.is_empty();
        let first = match recv.poll_part(cx) {
            Poll::Ready(Some(Err(_))) => return Err(ForwardError::Abandoned),
            Poll::Ready(Some(Ok(part))) => Some(part),
            Poll::Ready(None) => None,
            Poll::Pending if offers_upgrade => None,
            Poll::Pending => {
                self.framing = self.put_head(record, RequestBody::Streamed)?;
                self.state = State::Streaming;
                return Ok(());
            }
        };
        self.consumed = first.is_some();
        let body = match &first {
            None => RequestBody::None,
            Some(Part::Data(payload)) if offers_upgrade || recv.is_ended() => {
                RequestBody::Whole(payload.remaining() as u64)
            }
            Some(_) => RequestBody::Streamed,
        };
        self.framing = self.put_head(record, body)?;
        self.state = State::Streaming;
        match first {
            Some(part) => self.put(part, &record.payload)?,
            None => self.end()?,
        }
        if offers_upgrade && self.state == State::Streaming {
            self.end()?;
        }
        if self.state == State::Streaming && self.body.is_none() {
            self.gather(cx, &record.payload)?;
        }
        Ok(())
    }

    fn put_head(
        &mut self,
        record: &Http1Record,
        body: RequestBody,
    ) -> Result<RequestFraming, ForwardError> {
        let trace = record.traceparent();
        let (head, service) = (&record.head, &record.service);
        write_head(&mut self.out, head, service, body, trace.as_deref()).map_err(|_| {
            ForwardError::Reset(
                ResetCode::ProtocolError,
                "the Content-Length of the request differs from the length of its body".into(),
            )
        })
    }

    /// Receives parts for the next write. Returns false if there are none.
    fn gather(
        &mut self,
        cx: &mut Context<'_>,
        counts: &PayloadCounts,
    ) -> Result<bool, ForwardError> {
        while self.state == State::Streaming && self.body.is_none() && self.out.len() < GATHER_BYTES
        {
            let Some(recv) = &mut self.recv else {
                return Err(ForwardError::Abandoned);
            };
            match recv.poll_part(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.end()?,
                // The abort is received after the parts before it (P-6.2).
                Poll::Ready(Some(Err(_))) if recv.is_aborted() => {
                    self.state = State::Aborted;
                }
                Poll::Ready(Some(Err(_))) => return Err(ForwardError::Abandoned),
                Poll::Ready(Some(Ok(part))) => {
                    self.consumed = true;
                    self.put(part, counts)?;
                }
            }
        }
        let is_last = matches!(self.state, State::Received | State::Aborted);
        Ok(is_last || self.body.is_some() || !self.out.is_empty())
    }

    fn put(&mut self, part: Part, counts: &PayloadCounts) -> Result<(), ForwardError> {
        match part {
            Part::Data(payload) => {
                counts.add_from_visitor(payload.remaining() as u64);
                self.put_payload(payload)
            }
            Part::Trailers(trailers) => {
                if self.framing == RequestFraming::Chunked {
                    self.out.extend_from_slice(b"0\r\n");
                    for (name, value) in trailers.lines() {
                        if !is_message_control(name) {
                            put_line(&mut self.out, name, value);
                        }
                    }
                    self.out.extend_from_slice(b"\r\n");
                    self.state = State::Received;
                    Ok(())
                } else {
                    self.end()
                }
            }
            _ => Err(ForwardError::Reset(
                ResetCode::ProtocolError,
                "unexpected message in a request body".into(),
            )),
        }
    }

    fn put_payload(&mut self, payload: Payload) -> Result<(), ForwardError> {
        let length = payload.remaining();
        let is_last = self.recv.as_ref().is_some_and(RecvHalf::is_ended);
        let mut suffix: &'static [u8] = b"";
        match &mut self.framing {
            RequestFraming::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or_else(|| {
                    ForwardError::Reset(
                        ResetCode::ProtocolError,
                        "the request body is longer than its Content-Length".into(),
                    )
                })?;
            }
            RequestFraming::Chunked if length == 0 => {}
            RequestFraming::Chunked => {
                // Writing to memory cannot fail.
                let _ = write!(self.out, "{length:x}\r\n");
                suffix = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            }
        }
        if length <= COPY_BYTES {
            self.out.extend_from_slice(payload.chunk());
            self.out.extend_from_slice(suffix);
            self.copied.push(payload);
        } else {
            self.body = Some(payload);
            self.suffix = suffix;
        }
        if !is_last {
            return Ok(());
        }
        if self.framing == RequestFraming::Chunked && length > 0 {
            self.state = State::Received;
            return Ok(());
        }
        self.end()
    }

    /// Called when the body has been received to its end.
    fn end(&mut self) -> Result<(), ForwardError> {
        match self.framing {
            RequestFraming::Length(0) => {}
            RequestFraming::Length(_) => {
                return Err(ForwardError::Reset(
                    ResetCode::ProtocolError,
                    "the request body is shorter than its Content-Length".into(),
                ));
            }
            RequestFraming::Chunked => self.out.extend_from_slice(b"0\r\n\r\n"),
        }
        self.state = State::Received;
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &mut Stream) -> Poll<io::Result<()>> {
        let mut is_first = true;
        loop {
            let head = &self.out[self.at..];
            let body = self.body.as_ref().map_or(&[][..], |body| body.chunk());
            let total = head.len() + body.len() + self.suffix.len();
            if total == 0 {
                // Sends bytes that a TLS session has buffered.
                ready!(Pin::new(&mut *socket).poll_flush(cx))?;
                self.discard();
                return Poll::Ready(Ok(()));
            }
            let socket = Pin::new(&mut *socket);
            let written = if total == head.len() {
                ready!(socket.poll_write(cx, head))?
            } else {
                let slices = [
                    IoSlice::new(head),
                    IoSlice::new(body),
                    IoSlice::new(self.suffix),
                ];
                ready!(socket.poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // The clock was read when the request began; a request that is written at once needs no second read.
            if !is_first || written < total || self.consumed {
                self.progress_at = Instant::now();
            }
            is_first = false;
            self.written = true;
            self.advance(written);
        }
    }

    fn advance(&mut self, mut written: usize) {
        let of_head = written.min(self.out.len() - self.at);
        self.at += of_head;
        written -= of_head;
        if let Some(body) = &mut self.body {
            let of_body = written.min(body.remaining());
            body.advance(of_body);
            written -= of_body;
        }
        self.suffix = &self.suffix[written.min(self.suffix.len())..];
    }
}
