//! The socket of a visitor under hyper or h2: timeouts, framing, and how it is closed.

mod departure;
mod linger;
mod silence;
mod stall;
mod timeout;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_link::{FramePacer, Turn, overhead::TooMuchOverhead, turn::poll_read_at_most};
use adit_net::{Delivery, HttpVersion, Scheme, Stream};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{
    departure::{Presence, completes},
    linger::Linger,
    silence::Silence,
    stall::Stall,
};
use crate::{
    accept::{
        framing::{BadChunk, Framing, Refused},
        http2_frames::Refusals,
        unreadable,
    },
    forward::{connection::Connection, context::HttpContext},
};

/// A visitor's socket.
///
/// Timeouts cost nothing while nothing waits: a write is timed only while it is stuck, and one timer serves all reads of a
/// connection.
pub(super) struct VisitorSocket {
    stream: Stream,
    connection: Arc<Connection>,
    context: Arc<HttpContext>,
    framing: Framing,
    silence: Silence,
    stall: Stall,
    presence: Presence,
    /// hyper is reading, and detects a departure itself.
    reads: bool,
    /// Something has been written since the last head was read.
    has_written: bool,
    linger: Option<Linger>,
    /// A response was cut off, and its written bytes are being delivered.
    delivery: Option<Delivery>,
    /// The connection does not carry HTTP any more.
    has_left_http: bool,
    /// The number of requests at the last flush after which all of them had their responses.
    flushed: u64,
    /// The rest of the response to a head that hyper could not read.
    refusal: Bytes,
    /// The reason for which the rest of the visitor's bytes is not read.
    refused: Option<BadChunk>,
    turn: Turn,
    http2: Option<Box<Http2>>,
}

/// State of an HTTP/2 connection.
struct Http2 {
    /// Reads in turns of frames.
    turns: FramePacer,
    /// Finds rejected requests among the written frames.
    refusals: Refusals,
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
        Self {
            stream,
            connection,
            framing: Framing::new(),
            silence: Silence::new(config.head_timeout, config.idle_timeout),
            stall: Stall::new(config.stall_timeout, config.min_rate_bytes_per_sec),
            presence: Presence::new(config.half_close_timeout),
            reads: false,
            has_written: false,
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
        // A page in the background may pause.
        self.stall.relax(stall);
        self.silence.end();
        self.presence.restart_half_close();
        if let Some(silence) = silence {
            self.stream.keep_alive(silence);
        }
    }

    /// The stream itself, for a protocol that is not HTTP.
    pub(super) fn into_stream(mut self) -> Stream {
        // A closed stream remains in its place, and dropping that has no effect.
        std::mem::take(&mut self.stream)
    }

    /// Whether the connection has ended, checked without reading. For a socket that has left HTTP.
    pub(super) fn is_gone(&self) -> bool {
        self.stream.departure().is_some()
    }

    const fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Reads, if the turn of the connection allows it.
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

    /// Returns how many of the bytes hyper may read.
    fn on_read(&mut self, bytes: &mut [u8]) -> usize {
        if bytes.is_empty() {
            self.presence.on_end();
            return 0;
        }
        self.presence.on_read();
        if self.has_left_http {
            return bytes.len();
        }
        if self.is_http2() {
            self.connection.on_received();
            // While other requests are open, the start of a head is not noted: to read the clock for each frame would
            // cost too much.
            if self.connection.open.load(Ordering::Relaxed) == 0 {
                self.connection.on_head();
            }
            return bytes.len();
        }
        if self.has_responded_to_all() {
            self.framing.on_all_responded();
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
        // Empty lines between requests do not count as activity: a visitor could send them without end.
        if was_between && self.framing.is_between_requests() && self.framing.heads() == heads {
            return taken;
        }
        if self.framing.heads() != heads {
            self.has_written = false;
        }
        // A head that has begun before keeps its time, even if the next one has begun right after it.
        if !was_in_head && (self.framing.is_in_head() || self.framing.heads() != heads) {
            connection.on_head();
        }
        // The timeout of a head that has begun continues; any other timeout is over.
        if waited_for_head || self.framing.heads() != heads || !self.framing.is_in_head() {
            self.silence.end();
        }
        taken
    }

    /// Whether each complete head of HTTP/1 has had its response.
    fn has_responded_to_all(&self) -> bool {
        self.connection.open.load(Ordering::Relaxed) == 0
            && self.connection.requests() == self.framing.heads()
    }

    /// Called while the HTTP library waits for the visitor: ready when it has waited too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.is_http2() {
            self.silence.poll_http2(cx, &self.connection);
            return Poll::Pending;
        }
        if self.has_left_http {
            return Poll::Pending;
        }
        let silence = &mut self.silence;
        ready!(silence.poll_http1(cx, &self.framing, &self.connection));
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "no request arrived",
        ))
    }

    /// Called while a write waits for the visitor: ready when it has waited too long.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.stall.poll(cx, &self.connection)
    }

    /// Called when a write continues.
    fn unstick(&mut self) {
        self.stall.end(&self.connection);
    }

    fn on_written(&mut self, result: &io::Result<usize>) {
        self.unstick();
        if let Ok(count) = result {
            if let Some(http2) = &mut self.http2 {
                http2.turns.on_written(*count);
            }
            self.stall.moved(*count as u64);
            self.has_written = true;
            self.presence.restart_half_close();
        }
    }

    /// Intercepts a response that hyper has made itself: while all requests have their responses, hyper writes only to
    /// reject a head.
    fn take_own_response(&mut self, bytes: &[u8]) -> bool {
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

    /// Records the streams that h2 resets because their requests were malformed.
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

    /// Sends the rest of the response that replaces hyper's.
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

    /// Writes a waiting interim response. hyper's buffer must be empty, unless the response has been written in part.
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

    /// hyper does not read while an HTTP/1 response is awaited, or while a body waits for credit. So hyper does not
    /// detect a visitor that leaves, or that sends its body without waiting for `100 Continue` (P-3.5).
    ///
    /// Cost: no system call unless bytes have arrived. While bytes are unread, only readiness shows the end, and is checked
    /// from time to time.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reads = std::mem::take(&mut self.reads);
        let is_http1 = !self.is_http2() && !self.has_left_http;
        if reads || !is_http1 || self.connection.open.load(Ordering::Relaxed) == 0 {
            return Poll::Pending;
        }
        let is_whole = self.framing.is_between_requests();
        let awaits_content = self.connection.expectation().is_awaited();
        if is_whole || awaits_content {
            match ready!(self.presence.poll_arrival(cx, &mut self.stream)) {
                Ok(true) if awaits_content => {
                    // If the end of the stream has arrived, the reader of the body detects it.
                    let requests = self.framing.heads();
                    self.connection.expectation().on_content(requests);
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        let is_incomplete = |stream: &mut Stream| {
            let is_open = !is_whole && !self.has_written;
            is_open && completes(stream, &self.framing) == Some(false)
        };
        let presence = &mut self.presence;
        ready!(presence.poll_lost(cx, &mut self.stream, is_incomplete));
        Poll::Ready(self.lost())
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
                let refused = self.refused.is_some();
                none.insert(Linger::begin(cx, &mut self.stream, refused))
            }
        };
        linger.poll(cx, &mut self.stream, &mut self.turn)
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
                    // A read of no bytes would be the end of the stream.
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
        if this.take_own_response(bytes) {
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
            && this.take_own_response(only)
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
            // When this flush is called, no bytes are unwritten.
            ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
            let (stream, within) = (&this.stream, this.stall.within());
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
                // TLS buffers bytes that its transport does not accept.
                Poll::Pending => this.poll_stuck(cx).map(Err),
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A head without a request was rejected by hyper, and the bytes after it have not been read.
        let all_taken = !this.has_left_http
            && this.framing.is_between_requests()
            && this.framing.heads() == this.connection.requests();
        if this.presence.is_at_end() || all_taken {
            // No bytes of the visitor are in transit: a close is enough, except for TLS, which ends with an alert.
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
        // A response that has not ended when its connection ends must not look complete, for any cause.
        let breaks_off = !self.is_http2()
            && !self.has_left_http
            && self.connection.open.load(Ordering::Relaxed) > 0;
        if breaks_off || self.connection.is_reset_on_drop() {
            self.stream.reset_on_drop();
        }
    }
}

#[cfg(test)]
mod tests;
