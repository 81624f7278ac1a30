//! A visitor's socket: times, and how it is closed.

mod departure;

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_link::{FramePacer, Turn, overhead::TooMuchOverhead, turn::poll_read_at_most};
use adit_net::{Delivery, Departure, HttpVersion, Scheme, Stream};
use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use self::departure::{LOOK, completes};
use crate::{
    accept::{
        framing::{BadChunk, Framing, Refused},
        http2_frames::Refusals,
        unreadable,
    },
    forward::{connection::Connection, context::HttpContext, pace::Pace},
};

/// A visitor who has not read the last answer yet may go on sending for this long before the socket is closed: closing
/// one with unread bytes in it sends a reset, which eats the answer on its way (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What is read and thrown away meanwhile, at most.
const LINGER_BYTES: usize = 4 << 20;

/// The same of a visitor whose bytes were refused: enough for what was under way when the answer left.
const REFUSED_LINGER_BYTES: usize = 256 * 1024;

/// A visitor's socket.
///
/// Its times cost nothing while nobody waits: a write is timed only while it is stuck, and one timer serves all the
/// reads of a connection.
pub(super) struct VisitorSocket {
    stream: Stream,
    connection: Arc<Connection>,
    context: Arc<HttpContext>,
    framing: Framing,
    times: Times,
    /// A write is stuck.
    stuck: Timer,
    /// How fast the visitor takes what is written.
    taking: Pace,
    /// A head does not come to its end, or none begins.
    silent: Timer,
    /// The visitor has shut its side, and nothing has been sent to it since.
    half_closed: Timer,
    /// The visitor will send no more.
    eof: bool,
    /// Bytes of the next request wait unread.
    watched: bool,
    /// hyper waits for bytes, and sees a departure itself.
    reads: bool,
    /// The visitor has sent a FIN, behind bytes that are unread.
    fin: bool,
    /// Something has been written since the last head was read.
    answers: bool,
    /// When an unread socket is looked at next.
    look: Timer,
    /// Requests that an HTTP/2 connection had when it was last looked at.
    requests: u64,
    linger: Option<Linger>,
    /// An answer broke off, and what was written of it is on its way.
    delivery: Option<Delivery>,
    /// It speaks HTTP no more.
    has_left_http: bool,
    /// Requests that had come, and been answered, when all that had been written was flushed.
    flushed: u64,
    /// What is left of the answer to a head that hyper could not read.
    refusal: Bytes,
    /// Why the rest of what the visitor sends is not read.
    refused: Option<BadChunk>,
    turn: Turn,
    http2: Option<Box<Http2>>,
}

/// What the socket of a visitor of HTTP/2 follows.
struct Http2 {
    /// The frames that are read, in turns of their own.
    turns: FramePacer,
    /// Among the frames that are written.
    refusals: Refusals,
}

struct Times {
    head: Duration,
    idle: Duration,
    stall: Duration,
    half_close: Duration,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    buffer: Box<[u8]>,
    left: usize,
}

impl VisitorSocket {
    pub(super) fn new(
        stream: Stream,
        version: HttpVersion,
        connection: Arc<Connection>,
        context: Arc<HttpContext>,
    ) -> Self {
        let config = &context.config;
        let turn_bytes = config.turn_bytes;
        let mut silent = Timer::default();
        silent.arm(config.head_timeout);
        Self {
            stream,
            connection,
            framing: Framing::new(),
            times: Times {
                head: config.head_timeout,
                idle: config.idle_timeout,
                stall: config.stall_timeout,
                half_close: config.half_close_timeout,
            },
            stuck: Timer::default(),
            taking: Pace::new(config.stall_timeout, config.min_rate_bytes_per_sec),
            silent,
            half_closed: Timer::default(),
            eof: false,
            watched: false,
            reads: false,
            fin: false,
            answers: false,
            look: Timer::default(),
            requests: 0,
            linger: None,
            delivery: None,
            has_left_http: false,
            flushed: 0,
            refusal: Bytes::new(),
            context,
            refused: None,
            turn: Turn::new(turn_bytes),
            http2: (version == HttpVersion::Http2).then(|| {
                Box::new(Http2 {
                    turns: FramePacer::of_client(turn_bytes),
                    refusals: Refusals::new(),
                })
            }),
        }
    }

    /// The connection changes to another protocol: the time limits of requests end, and its bytes are not followed as HTTP
    /// any more. A write may be stuck for `stall`; after `silence` the kernel probes the visitor.
    pub(super) fn leave_http(&mut self, stall: Duration, silence: Option<Duration>) {
        self.has_left_http = true;
        self.times.stall = stall;
        // A page in the background may sleep: one byte is enough.
        self.taking = Pace::new(stall, 0);
        self.silent.disarm();
        self.half_closed.disarm();
        if let Some(silence) = silence {
            self.stream.keep_alive(silence);
        }
    }

    /// The stream itself, for a protocol that is not HTTP.
    pub(super) fn into_stream(mut self) -> Stream {
        // A closed stream stays behind, for which dropping this does nothing.
        std::mem::take(&mut self.stream)
    }

    /// Whether the connection has ended, seen without reading. For a socket that has left HTTP.
    pub(super) fn is_gone(&self) -> bool {
        self.stream.departure().is_some()
    }

    const fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Reads, when it is time.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(http2) = &mut self.http2 {
            return http2.turns.poll_read(&mut self.stream, cx, buffer);
        }
        ready!(self.turn.poll_yield(cx));
        let limit = self.turn.read_limit();
        let read = poll_read_at_most(&mut self.stream, cx, buffer, limit);
        if read.is_pending() {
            self.turn.end();
        }
        read
    }

    /// Gives how many of the bytes may be read on.
    fn on_read(&mut self, bytes: &mut [u8]) -> usize {
        if bytes.is_empty() {
            self.eof = true;
            return 0;
        }
        self.watched = false;
        // A service that takes the body of a visitor that has shut its side still works for it.
        self.half_closed.disarm();
        if self.has_left_http {
            return bytes.len();
        }
        if self.is_http2() {
            self.connection.on_received();
            // Among the frames of other requests it would not be seen, and a clock asked for each of them.
            if self.connection.open.load(Ordering::Relaxed) == 0 {
                self.connection.on_head();
            }
            return bytes.len();
        }
        if self.has_answered_all() {
            self.framing.on_all_answered();
        }
        let before = &self.framing;
        let was_between = before.is_between_requests();
        let was_in_head = before.is_in_head();
        let waited_for_head = !before.is_in_head() && before.heads() > 0;
        let (heads, with_content) = (before.heads(), before.heads_with_content());
        let connection = &self.connection;
        let length = bytes.len();
        let followed = self.framing.on_bytes(bytes, |note| connection.note(note));
        if self.framing.heads_with_content() != with_content {
            let requests = self.framing.heads_with_content();
            connection.expectation().on_content(requests);
        }
        let taken = match followed {
            Ok(()) => length,
            Err(Refused { at, why }) => {
                self.refused = Some(why);
                at
            }
        };
        // Empty lines between requests are nothing: a visitor could send them for ever.
        if was_between && self.framing.is_between_requests() && self.framing.heads() == heads {
            return taken;
        }
        if self.framing.heads() != heads {
            self.answers = false;
        }
        // One that has begun before keeps its time, also where the next one has begun right behind it.
        if !was_in_head && (self.framing.is_in_head() || self.framing.heads() != heads) {
            connection.on_head();
        }
        // The time of a head that has begun runs on; any other one is over.
        if waited_for_head || self.framing.heads() != heads || !self.framing.is_in_head() {
            self.silent.disarm();
        }
        taken
    }

    /// Whether each head of HTTP/1 that was whole has had its answer.
    fn has_answered_all(&self) -> bool {
        self.connection.open.load(Ordering::Relaxed) == 0
            && self.connection.requests() == self.framing.heads()
    }

    /// hyper waits for the visitor: for how long it may.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.is_http2() {
            self.poll_idle(cx);
            return Poll::Pending;
        }
        if self.has_left_http {
            return Poll::Pending;
        }
        if self.framing.is_in_head() || self.framing.heads() == 0 {
            self.silent.arm(self.times.head);
        } else if self.framing.is_between_requests()
            && self.connection.open.load(Ordering::Relaxed) == 0
        {
            self.silent.arm(self.times.idle);
        } else {
            // A body: whoever reads it has its own time for it.
            self.silent.disarm();
        }
        ready!(self.silent.poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no request came"))
    }

    /// An HTTP/2 connection is kept busy by its pings: what counts is requests.
    fn poll_idle(&mut self, cx: &mut Context<'_>) {
        let requests = self.connection.requests();
        let is_idle = self.connection.open.load(Ordering::Relaxed) == 0;
        if !is_idle || requests != self.requests {
            self.requests = requests;
            self.silent.disarm();
        }
        if is_idle {
            self.silent.arm(self.times.idle);
            if self.silent.poll(cx).is_ready() {
                self.silent.disarm();
                self.connection.idle.notify_one();
            }
        }
    }

    /// A write waits for the visitor: for how long it may.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.connection.set_writing(true);
        self.stuck.arm_at(self.taking.wait());
        ready!(self.stuck.poll(cx));
        self.connection.set_stalled();
        self.connection.reset_on_drop();
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "the visitor takes nothing",
        ))
    }

    /// A write goes on. Time that it was stuck for counts on (F12).
    fn unstick(&mut self) {
        if self.stuck.is_armed() {
            self.stuck.disarm();
            self.taking.pause();
            self.connection.set_writing(false);
        }
    }

    fn on_written(&mut self, result: &io::Result<usize>) {
        self.unstick();
        if let Ok(count) = result {
            if let Some(http2) = &mut self.http2 {
                http2.turns.on_written(*count);
            }
            self.taking.moved(*count as u64);
            self.answers = true;
            self.half_closed.disarm();
        }
    }

    /// Takes an answer that hyper has made by itself: it writes while all requests have their answers only to refuse a head.
    fn take_own_answer(&mut self, bytes: &[u8]) -> bool {
        if self.is_http2() || self.has_left_http || self.flushed != self.connection.requests() {
            return false;
        }
        let status = unreadable::status_of(bytes).filter(|_| self.refusal.is_empty());
        let Some(status) = status else {
            return false;
        };
        self.refusal = unreadable::reject(&self.context, &self.connection, status, bytes);
        true
    }

    /// Finds the streams that h2 resets because their requests were malformed.
    fn follow_frames(&mut self, slices: &[IoSlice<'_>], mut written: usize) {
        let Some(http2) = &mut self.http2 else {
            return;
        };
        for slice in slices {
            let part = slice.get(..written.min(slice.len())).unwrap_or_default();
            for _ in 0..http2.refusals.on_written(part) {
                unreadable::record(
                    &self.context,
                    &self.connection,
                    &"a malformed request of HTTP/2 was reset",
                );
            }
            written -= part.len();
        }
    }

    /// Sends what is left of the answer in the place of hyper's own.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.refusal) {
                Poll::Ready(result) => {
                    self.on_written(&result);
                    match result? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        bytes => self.refusal.advance(bytes),
                    }
                }
                Poll::Pending => return self.poll_stuck(cx).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes an interim answer that waits. hyper's own buffer must be empty, unless some of it has been written.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.connection.clone();
        match connection.interim().poll_write(cx, &mut self.stream) {
            Poll::Ready(result) => {
                self.unstick();
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_stuck(cx).map(Err),
        }
    }

    /// hyper does not read while an HTTP/1 answer is awaited, nor while a body waits for credit, and would not see the
    /// visitor leave, nor that it sends its body without waiting for `100 Continue` (P-3.5).
    ///
    /// Cost: no system call unless something has come. Where bytes wait unread, readiness alone shows the end, and is
    /// looked at each [`LOOK`].
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reads = std::mem::take(&mut self.reads);
        let is_http1 = !self.is_http2() && !self.has_left_http;
        if reads || !is_http1 || self.connection.open.load(Ordering::Relaxed) == 0 {
            return Poll::Pending;
        }
        let is_whole = self.framing.is_between_requests();
        let awaits_content = self.connection.expectation().is_awaited();
        if (is_whole || awaits_content) && !self.has_left() && !self.watched {
            let mut byte = [0];
            match ready!(self.stream.poll_peek(cx, &mut byte)) {
                Ok(1..) => self.watched = true,
                Ok(0) => self.eof = true,
                Err(error) => return Poll::Ready(error),
            }
            if awaits_content {
                // An end is for the reader of the body to find.
                let requests = self.framing.heads();
                self.connection.expectation().on_content(requests);
            }
        }
        if !self.has_left() {
            let is_lost = match ready!(self.poll_departure(cx)) {
                Departure::Reset => true,
                // An early answer may still be read; a request that can never be whole gets none.
                Departure::Fin => {
                    let is_open = !is_whole && !self.answers;
                    is_open && completes(&mut self.stream, &self.framing) == Some(false)
                }
            };
            if is_lost {
                return Poll::Ready(self.lost());
            }
            self.fin = true;
        }
        self.half_closed.arm(self.times.half_close);
        ready!(self.half_closed.poll(cx));
        Poll::Ready(self.lost())
    }

    const fn has_left(&self) -> bool {
        self.eof || self.fin
    }

    /// Looks at an unread socket from time to time until the visitor has left.
    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<Departure> {
        loop {
            self.look.arm(LOOK);
            ready!(self.look.poll(cx));
            self.look.disarm();
            if let Some(how) = self.stream.departure() {
                return Poll::Ready(how);
            }
        }
    }

    fn lost(&self) -> io::Error {
        self.connection.reset_on_drop();
        io::ErrorKind::ConnectionReset.into()
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = match &mut self.linger {
            Some(linger) => linger,
            none => {
                self.connection.set_writing(true);
                // One system call, which is never pending. TLS sends its alert if there is room for it.
                let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
                none.insert(Linger {
                    until: Box::pin(sleep_until(Instant::now() + LINGER)),
                    buffer: vec![0; 16 * 1024].into(),
                    left: if self.refused.is_some() {
                        REFUSED_LINGER_BYTES
                    } else {
                        LINGER_BYTES
                    },
                })
            }
        };
        if linger.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // When enough was thrown away the rest stays where it is until the time is over: a visitor who cannot send on
        // turns to reading, and one who can would meet the reset before the answer.
        while linger.left > 0 {
            ready!(self.turn.poll_yield(cx));
            let mut buffer = ReadBuf::new(&mut linger.buffer);
            let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let bytes = buffer.filled().len();
            if result.is_err() || bytes == 0 {
                return Poll::Ready(());
            }
            linger.left = linger.left.saturating_sub(bytes);
            self.turn.step(bytes);
        }
        Poll::Pending
    }
}

impl AsyncRead for VisitorSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(why) = this.refused {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let before = buffer.filled().len();
        match this.poll_next(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
                let length = read.len();
                let chunks = this.framing.chunks();
                let taken = this.on_read(read);
                if !this.is_http2() {
                    let chunks = this.framing.chunks().wrapping_sub(chunks);
                    this.turn.read(length, chunks);
                }
                buffer.set_filled(before + taken);
                match this.refused {
                    // No bytes would be the end.
                    Some(why) if taken == 0 => {
                        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)))
                    }
                    _ => Poll::Ready(Ok(())),
                }
            }
            Poll::Ready(Err(error)) => {
                if error
                    .get_ref()
                    .is_some_and(|error| error.is::<TooMuchOverhead>())
                {
                    let why = format_args!("connection ended: {error}");
                    unreadable::record(&this.context, &this.connection, &why);
                }
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                this.reads = true;
                this.poll_silence(cx).map(Err)
            }
        }
    }
}

impl AsyncWrite for VisitorSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.take_own_answer(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        if this.connection.interim().has_begun() {
            ready!(this.poll_interim(cx))?;
        }
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Ready(result) => {
                this.on_written(&result);
                if let Ok(written) = result {
                    this.follow_frames(&[IoSlice::new(bytes)], written);
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_stuck(cx).map(Err),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut written = slices.iter().filter(|slice| !slice.is_empty());
        if let (Some(only), None) = (written.next(), written.next())
            && this.take_own_answer(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        if this.connection.interim().has_begun() {
            ready!(this.poll_interim(cx))?;
        }
        match Pin::new(&mut this.stream).poll_write_vectored(cx, slices) {
            Poll::Ready(result) => {
                this.on_written(&result);
                if let Ok(written) = result {
                    this.follow_frames(slices, written);
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_stuck(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(cx))?;
        if this.connection.open.load(Ordering::Relaxed) == 0 {
            this.flushed = this.connection.requests();
        }
        if this.connection.interim().waits() {
            ready!(this.poll_interim(cx))?;
        }
        if this.connection.breaks_off() {
            // All is written when a flush comes here.
            ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
            let (stream, within) = (&this.stream, this.times.stall);
            let delivery = &mut this.delivery;
            let delivery = delivery.get_or_insert_with(|| stream.begin_delivery(within));
            ready!(stream.poll_delivery(cx, delivery));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match this.poll_gone(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => match Pin::new(&mut this.stream).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    this.unstick();
                    Poll::Ready(flushed)
                }
                // TLS holds back what its transport does not take.
                Poll::Pending => this.poll_stuck(cx).map(Err),
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A head that became no request was refused by hyper, and what follows it has not been read.
        let all_taken = !this.has_left_http
            && this.framing.is_between_requests()
            && this.framing.heads() == this.connection.requests();
        if this.eof || all_taken {
            // Nothing is on its way to us: a close is enough, except for TLS, which ends with an alert.
            return match this.stream.scheme() {
                Scheme::Http => Poll::Ready(Ok(())),
                Scheme::Https => Pin::new(&mut this.stream).poll_shutdown(cx),
            };
        }
        this.poll_linger(cx).map(Ok)
    }
}

impl Drop for VisitorSocket {
    fn drop(&mut self) {
        // An answer that is still running when its connection goes must not look whole, whoever let the connection go.
        let breaks_off = !self.is_http2()
            && !self.has_left_http
            && self.connection.open.load(Ordering::Relaxed) > 0;
        if breaks_off || self.connection.is_reset_on_drop() {
            self.stream.reset_on_drop();
        }
    }
}

/// A deadline whose timer stays where it was until it fires: moving the deadline later costs nothing.
#[derive(Default)]
struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Begins to wait, unless it does already.
    fn arm(&mut self, after: Duration) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + after);
        }
    }

    /// The same, to a time.
    fn arm_at(&mut self, deadline: Instant) {
        self.deadline.get_or_insert(deadline);
    }

    const fn is_armed(&self) -> bool {
        self.deadline.is_some()
    }

    const fn disarm(&mut self) {
        self.deadline = None;
    }

    /// Ready when the deadline has passed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
