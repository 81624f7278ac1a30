//! The request on its way into the socket.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_codec::{HttpRequest, ResetCode};
use adit_link::{Part, Payload, RecvHalf};
use bytes::Buf as _;
use tokio::{io::AsyncWrite as _, net::TcpStream, time::Instant};

use crate::{
    fields::is_barred_from_trailers,
    request::{account::Account, broken::Broken, moved::Moved},
};

use super::request::{Body, Framing, put_line, write_head};

/// Payload up to this is copied behind what goes before it: one buffer and one call are cheaper than its pages.
const COPY_BYTES: usize = 4 * 1024;
/// What is gathered for one call.
const GATHER_BYTES: usize = 16 * 1024;
/// More memory than this is not kept for the next request.
const KEEP_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has been written; the head is not made yet.
    Start,
    /// Parts are taken as they come.
    Running,
    /// All has been taken; the last of it may wait for the socket.
    Taken,
    /// The visitor broke off; what came before may wait for the socket.
    BrokenOff,
    /// All has been written.
    Done,
    /// The socket takes no more.
    Broken,
}

/// One request after the other, into one connection.
pub(crate) struct Upload {
    state: State,
    recv: Option<RecvHalf>,
    framing: Framing,
    /// Head, chunk framing and small payloads, written up to `at`.
    out: Vec<u8>,
    at: usize,
    /// A large payload that goes after `out`, and what goes after that.
    body: Option<Payload>,
    suffix: &'static [u8],
    /// Payloads that were copied to `out`: their credit goes back when it has been written (P-4.5).
    copied: Vec<Payload>,
    /// Something of the body has been taken: the request cannot be begun anew.
    consumed: bool,
    /// The socket has taken the head, or the start of it.
    written: bool,
    /// The socket's buffer is full.
    blocked: bool,
    /// The socket takes no more because the service has reset the connection.
    reset: bool,
    /// When the socket last took something.
    progress_at: Instant,
}

impl Upload {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Done,
            recv: None,
            framing: Framing::Length(0),
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

    pub(crate) fn begin(&mut self, recv: RecvHalf, now: Instant) {
        self.clear();
        self.recv = Some(recv);
        self.state = State::Start;
        self.progress_at = now;
    }

    /// Forgets the request. What was not read of it is not asked to stop by this.
    pub(crate) fn clear(&mut self) {
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

    /// The visitor's direction, if the request can still be begun anew on another connection.
    pub(crate) fn take_unread(&mut self) -> Option<RecvHalf> {
        if self.consumed {
            None
        } else {
            self.recv.take()
        }
    }

    /// The visitor's direction, of which the request has been written whole: what comes next is of another protocol.
    pub(crate) fn take_rest(&mut self) -> Option<RecvHalf> {
        self.recv.take()
    }

    /// Whether the request is on its way.
    pub(crate) const fn has_written(&self) -> bool {
        self.written
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether that is because the service has reset the connection.
    pub(crate) const fn is_reset(&self) -> bool {
        self.reset
    }

    /// Whether all that came before the visitor broke off has been written.
    pub(crate) fn is_aborted(&self) -> bool {
        self.state == State::BrokenOff
    }

    /// Whether the visitor's direction goes on: it may still come to the place where it broke off.
    pub(crate) fn goes_on(&self, cx: &mut Context<'_>) -> bool {
        let recv = self.recv.as_ref();
        matches!(self.state, State::Start | State::Running | State::BrokenOff)
            && recv.is_some_and(|recv| recv.poll_failure(cx).is_pending())
    }

    /// Whether the socket keeps the request from going on.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(crate) fn progress_at(&self) -> Instant {
        self.progress_at
    }

    pub(crate) fn set_progress(&mut self, now: Instant) {
        self.progress_at = now;
    }

    /// No more of the request will be read (P-3.6).
    pub(crate) fn stop(&mut self) {
        if let Some(recv) = self.recv.take()
            && !recv.is_ended()
        {
            recv.stop(ResetCode::Cancelled);
        }
        self.discard();
        self.blocked = false;
        self.state = State::Broken;
    }

    /// Writes what the socket takes. Ready when nothing more will be written: all has been, or the socket is broken.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
        account: &Account<Box<HttpRequest>>,
    ) -> Poll<Result<(), Broken>> {
        if self.state == State::Start {
            self.start(cx, account)?;
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
                // A pipe is broken when the service had ended its direction before.
                self.reset = error.kind() != io::ErrorKind::BrokenPipe;
            } else if self.state == State::BrokenOff {
                return Poll::Ready(Err(Broken::Gone));
            } else if self.state == State::Taken {
                self.state = State::Done;
            } else if self.state == State::Running && !self.gather(cx, &account.moved)? {
                return Poll::Pending;
            }
        }
    }

    /// Makes the head, with what is known of the body, and puts the start of the body after it.
    fn start(
        &mut self,
        cx: &mut Context<'_>,
        account: &Account<Box<HttpRequest>>,
    ) -> Result<(), Broken> {
        let Some(recv) = &mut self.recv else {
            return Err(Broken::Gone);
        };
        // Then what rides in the head is the whole body (P-3.7).
        let offers = !account.head.upgrade.is_empty();
        let first = match recv.poll_part(cx) {
            Poll::Ready(Some(Err(_))) => return Err(Broken::Gone),
            Poll::Ready(Some(Ok(part))) => Some(part),
            Poll::Ready(None) => None,
            Poll::Pending if offers => None,
            Poll::Pending => {
                self.framing = self.put_head(account, Body::Streamed)?;
                self.state = State::Running;
                return Ok(());
            }
        };
        self.consumed = first.is_some();
        let body = match &first {
            None => Body::None,
            Some(Part::Data(payload)) if offers || recv.is_ended() => {
                Body::Whole(payload.remaining() as u64)
            }
            Some(_) => Body::Streamed,
        };
        self.framing = self.put_head(account, body)?;
        self.state = State::Running;
        match first {
            Some(part) => self.put(part, &account.moved)?,
            None => self.end()?,
        }
        if offers && self.state == State::Running {
            self.end()?;
        }
        if self.state == State::Running && self.body.is_none() {
            self.gather(cx, &account.moved)?;
        }
        Ok(())
    }

    fn put_head(
        &mut self,
        account: &Account<Box<HttpRequest>>,
        body: Body,
    ) -> Result<Framing, Broken> {
        let Account { head, service, .. } = account;
        let trace = account.traceparent();
        write_head(&mut self.out, head, service, body, trace.as_deref()).map_err(|_| {
            Broken::Reset(
                ResetCode::ProtocolError,
                "the request's content-length is not that of its body".into(),
            )
        })
    }

    /// Takes parts for the next write. False when there is none yet.
    fn gather(&mut self, cx: &mut Context<'_>, moved: &Moved) -> Result<bool, Broken> {
        while self.state == State::Running && self.body.is_none() && self.out.len() < GATHER_BYTES {
            let Some(recv) = &mut self.recv else {
                return Err(Broken::Gone);
            };
            match recv.poll_part(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.end()?,
                // In its place behind what came before it (P-6.2).
                Poll::Ready(Some(Err(_))) if recv.is_aborted() => {
                    self.state = State::BrokenOff;
                }
                Poll::Ready(Some(Err(_))) => return Err(Broken::Gone),
                Poll::Ready(Some(Ok(part))) => {
                    self.consumed = true;
                    self.put(part, moved)?;
                }
            }
        }
        let is_last = matches!(self.state, State::Taken | State::BrokenOff);
        Ok(is_last || self.body.is_some() || !self.out.is_empty())
    }

    fn put(&mut self, part: Part, moved: &Moved) -> Result<(), Broken> {
        match part {
            Part::Data(payload) => {
                moved.receive(payload.remaining() as u64);
                self.put_payload(payload)
            }
            Part::Trailers(trailers) => {
                if self.framing == Framing::Chunked {
                    self.out.extend_from_slice(b"0\r\n");
                    for (name, value) in trailers.lines() {
                        if !is_barred_from_trailers(name) {
                            put_line(&mut self.out, name, value);
                        }
                    }
                    self.out.extend_from_slice(b"\r\n");
                    self.state = State::Taken;
                    Ok(())
                } else {
                    self.end()
                }
            }
            _ => Err(Broken::Reset(
                ResetCode::ProtocolError,
                "no part of a request's body".into(),
            )),
        }
    }

    fn put_payload(&mut self, payload: Payload) -> Result<(), Broken> {
        let length = payload.remaining();
        let is_last = self.recv.as_ref().is_some_and(RecvHalf::is_ended);
        let mut suffix: &'static [u8] = b"";
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or_else(|| {
                    Broken::Reset(
                        ResetCode::ProtocolError,
                        "the request's body is longer than its content-length".into(),
                    )
                })?;
            }
            Framing::Chunked if length == 0 => {}
            Framing::Chunked => {
                // Into memory: it cannot fail.
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
        if self.framing == Framing::Chunked && length > 0 {
            self.state = State::Taken;
            return Ok(());
        }
        self.end()
    }

    /// The body has come whole.
    fn end(&mut self) -> Result<(), Broken> {
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => {
                return Err(Broken::Reset(
                    ResetCode::ProtocolError,
                    "the request's body is shorter than its content-length".into(),
                ));
            }
            Framing::Chunked => self.out.extend_from_slice(b"0\r\n\r\n"),
        }
        self.state = State::Taken;
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &mut TcpStream) -> Poll<io::Result<()>> {
        let mut is_first = true;
        loop {
            let head = &self.out[self.at..];
            let body = self.body.as_ref().map_or(&[][..], |body| body.chunk());
            let total = head.len() + body.len() + self.suffix.len();
            if total == 0 {
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
            // The clock was read when the request began: a request that goes out in one piece needs no more of it.
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
