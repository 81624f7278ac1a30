//! Reads responses from the socket and forwards them to the link.

use adit_net::Stream;
use std::{
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_codec::{
    HeaderBlock, HttpRequest, HttpResponseHead, MAX_HEAD_BYTES, PooledBuffer, fields::list_contains,
};
use adit_link::{Compression, SendHalf, Turn, compress::is_compressible};
use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::{
    body_framing::BodyFraming,
    chunked::ChunkedError,
    request::Http1Record,
    response_head::{LineSpan, parse},
};
use crate::{
    forward::{error::ForwardError, payload_counts::PayloadCounts, resources::Resources},
    protocol::interim::InterimResponses,
};

/// Payload smaller than this fraction of its buffer is copied: it would keep the whole buffer alive (P-4.7).
const PIN_RATIO: usize = 4;

#[derive(Debug)]
enum Stage {
    /// The head of the final response is incomplete.
    Head,
    Body(BodyFraming),
    /// The response has been read to its end; `pending` and `trailers` may wait for credit.
    Read,
    /// The service has changed to the protocol that was offered; `pending` has its first bytes.
    Upgraded,
    /// The response has been forwarded to its end.
    Done,
}

/// Reads and forwards one response after the other, from one connection.
pub(super) struct ResponseReader {
    stage: Stage,
    to_head: bool,
    /// The request offers an upgrade to another protocol.
    offers_upgrade: bool,
    /// The compression that the tunnel is configured with.
    compression: Option<Compression>,
    interim: InterimResponses,
    /// The start of an incomplete head.
    partial_head: Vec<u8>,
    lines: Vec<LineSpan>,
    /// Payload that waits for credit. Nothing is read meanwhile.
    pending: Bytes,
    trailers: Option<HeaderBlock>,
    /// A byte of the response has been read.
    begun: bool,
    /// The service keeps the connection, and has sent nothing after the response.
    keep_alive: bool,
    /// The last read filled its buffer: there is more to read.
    full: bool,
    /// The service has reset the connection. A failed write has consumed the error, so that a read reports an end of the
    /// stream instead.
    reset: bool,
    turn: Turn,
    /// Chunks in the last read.
    chunks: usize,
}

impl ResponseReader {
    /// Reads at most `turn_bytes` in one turn of the thread.
    pub(super) fn new(turn_bytes: usize) -> Self {
        Self {
            stage: Stage::Done,
            to_head: false,
            offers_upgrade: false,
            compression: None,
            interim: InterimResponses::default(),
            partial_head: Vec::new(),
            lines: Vec::new(),
            pending: Bytes::new(),
            trailers: None,
            begun: false,
            keep_alive: false,
            full: false,
            reset: false,
            turn: Turn::new(turn_bytes),
            chunks: 0,
        }
    }

    /// Begins the response to a request.
    pub(super) fn begin(&mut self, head: &HttpRequest, compression: Option<Compression>) {
        self.compression = compression;
        self.stage = Stage::Head;
        self.to_head = head.method == "HEAD";
        self.offers_upgrade = !head.upgrade.is_empty();
        let expect = head.headers.first(b"expect");
        let expects_continue = expect.is_some_and(|value| list_contains(value, b"100-continue"));
        self.interim = InterimResponses::new(expects_continue);
        self.partial_head = Vec::new();
        self.pending = Bytes::new();
        self.trailers = None;
        self.begun = false;
        self.keep_alive = false;
        self.full = false;
        self.reset = false;
    }

    /// Notes that the service has reset the connection. Bytes that it sent before are still read.
    pub(super) const fn on_reset(&mut self) {
        self.reset = true;
    }

    /// Whether a byte of the response has been read.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the head of the final response has not arrived yet.
    pub(super) fn awaits_head(&self) -> bool {
        matches!(self.stage, Stage::Head)
    }

    /// Whether the response has been forwarded to its end.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether the service has changed to another protocol.
    pub(super) fn is_upgraded(&self) -> bool {
        matches!(self.stage, Stage::Upgraded)
    }

    /// The bytes after the response that changed the protocol.
    pub(super) fn take_early(&mut self) -> Bytes {
        std::mem::take(&mut self.pending)
    }

    /// Whether the connection can serve another request.
    pub(super) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Forwards the bytes that the socket has, as far as credit allows. Ready when the response has been forwarded to
    /// its end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
        send: &SendHalf,
        resources: &Resources,
        record: &mut Http1Record,
    ) -> Poll<Result<(), ForwardError>> {
        loop {
            if matches!(self.stage, Stage::Done | Stage::Upgraded) {
                return Poll::Ready(Ok(()));
            }
            // This is polled even if no credit is needed, because it reports that the visitor has left.
            let allowed = match send.poll_ready(cx) {
                Poll::Ready(Ok(allowed)) => allowed,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ForwardError::Abandoned)),
                Poll::Pending => 0,
            };
            if !self.pending.is_empty() {
                if allowed == 0 {
                    return Poll::Pending;
                }
                let allowed = ready!(send.poll_pace(cx, allowed.min(self.pending.len())));
                self.forward(send, allowed, &record.payload)?;
                continue;
            }
            let is_head = self.awaits_head();
            if allowed == 0 && !is_head {
                return Poll::Pending;
            }
            ready!(self.turn.poll_yield(cx));
            // A buffer is taken when there are bytes to read: a connection that waits holds none.
            match socket.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(self.lost("connection lost"))),
                Poll::Pending => {
                    self.turn.end();
                    return Poll::Pending;
                }
            }
            let allowed = if is_head {
                allowed
            } else {
                ready!(send.poll_pace(cx, allowed))
            };
            let pool = if self.full {
                &resources.buffers.large
            } else {
                &resources.buffers.small
            };
            let mut buffer = pool.take();
            let room = buffer.unfilled();
            let limit = if is_head {
                room.len()
            } else {
                self.read_limit(allowed).min(room.len())
            };
            let turn_limit = self.turn.read_limit();
            let limit = limit.min(turn_limit);
            let mut read = ReadBuf::new(&mut room[..limit]);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut read)) {
                Ok(()) => {}
                Err(error) => return Poll::Ready(Err(self.lost(&error.to_string()))),
            }
            let count = read.filled().len();
            if count == 0 {
                self.turn.step(0);
                self.at_end(send)?;
                continue;
            }
            self.begun = true;
            self.full = count == limit && limit < turn_limit;
            if is_head {
                self.read_head(buffer, count, allowed, send, resources, record)?;
            } else {
                self.read_body(buffer, count, allowed, send, &record.payload)?;
            }
            self.turn.read(count, std::mem::take(&mut self.chunks));
        }
    }

    /// The most bytes to read: as many as may be sent, or the rest of the body and one more. The additional byte
    /// detects bytes after the announced length; without such bytes the read is short, so that the socket needs no
    /// further read.
    fn read_limit(&self, allowed: usize) -> usize {
        match &self.stage {
            Stage::Body(BodyFraming::Length(left)) => match usize::try_from(*left) {
                Ok(left) if left <= allowed => left + 1,
                _ => allowed,
            },
            _ => allowed,
        }
    }

    fn read_head(
        &mut self,
        mut buffer: PooledBuffer,
        count: usize,
        allowed: usize,
        send: &SendHalf,
        resources: &Resources,
        record: &mut Http1Record,
    ) -> Result<(), ForwardError> {
        if self.partial_head.is_empty() {
            let data = &mut buffer.unfilled()[..count];
            let payload = self.read_heads(data, allowed, send, resources, record)?;
            if !payload.is_empty() {
                self.pending = keep(buffer, payload);
            }
            return Ok(());
        }
        let mut data = std::mem::take(&mut self.partial_head);
        let piece = &buffer.unfilled()[..count];
        data.extend_from_slice(piece);
        // A head ends with a line: it is parsed again only when another line is complete.
        if !piece.contains(&b'\n') && data.len() < MAX_HEAD_BYTES {
            self.partial_head = data;
            return Ok(());
        }
        drop(buffer);
        let payload = self.read_heads(&mut data, allowed, send, resources, record)?;
        if !payload.is_empty() {
            self.pending = Bytes::from(data).slice(payload);
        }
        Ok(())
    }

    /// Parses the heads at the start of `data` and forwards them; returns where the payload is that was not sent with a
    /// head.
    fn read_heads(
        &mut self,
        data: &mut [u8],
        allowed: usize,
        send: &SendHalf,
        resources: &Resources,
        record: &mut Http1Record,
    ) -> Result<Range<usize>, ForwardError> {
        let mut start = 0;
        loop {
            let parsed = parse(&mut data[start..], self.to_head, &mut self.lines);
            let head = match parsed.map_err(|error| aborted(&error))? {
                Some(head) => head,
                None => {
                    self.partial_head = data[start..].to_vec();
                    return Ok(0..0);
                }
            };
            let end = start + head.bytes;
            match head.status {
                101 if self.offers_upgrade => {
                    let lines = self.lines.iter().map(|line| line.of(&data[start..]));
                    let lines = lines.filter(|(name, _)| *name != b"content-length");
                    let upgrade = &data[start..][head.upgrade];
                    let switch = HttpResponseHead::encode_switch(upgrade, lines)
                        .map_err(|error| aborted(&error))?;
                    record.service.select_compression(send, []);
                    send.respond(switch, false)?;
                    record.timeline.on_response(101, false);
                    self.stage = Stage::Upgraded;
                    self.pending = Bytes::copy_from_slice(&data[end..]);
                    return Ok(0..0);
                }
                101 => {
                    return Err(ForwardError::service_aborted(
                        "the service switched protocols without an offer",
                    ));
                }
                100..200 => {
                    let lines = self.lines.iter().map(|line| line.of(&data[start..]));
                    self.interim.forward(head.status, lines, send)?;
                    start = end;
                    if start == data.len() {
                        return Ok(0..0);
                    }
                }
                status => {
                    let (lines, body) = data.split_at_mut(end);
                    let lines = &lines[start..];
                    self.keep_alive = head.keep_alive;
                    self.stage = Stage::Body(head.framing);
                    let payload = self.decode(body)?;
                    let is_read = matches!(self.stage, Stage::Read);
                    let is_complete = is_read && self.trailers.is_none();
                    let is_inlined = payload.len() <= resources.config.inline_body_bytes
                        && payload.len() <= allowed;
                    let inlined = if is_inlined {
                        &body[payload.clone()]
                    } else {
                        &[]
                    };
                    let ends = is_complete && is_inlined;
                    let encoded = HttpResponseHead { status }
                        .encode(self.lines.iter().map(|line| line.of(lines)), inlined)
                        .map_err(|error| aborted(&error))?;
                    let in_head = || self.lines.iter().map(|line| line.of(lines));
                    let compression = self.compression.filter(|_| is_compressible(in_head()));
                    send.set_compression(compression);
                    send.respond(encoded, ends)?;
                    record.timeline.on_response(status, ends);
                    record.payload.add_to_visitor(inlined.len() as u64);
                    if ends {
                        self.stage = Stage::Done;
                    } else if is_read && is_inlined {
                        self.finish(send)?;
                    }
                    return Ok(if is_inlined {
                        0..0
                    } else {
                        payload.start + end..payload.end + end
                    });
                }
            }
        }
    }

    fn read_body(
        &mut self,
        mut buffer: PooledBuffer,
        count: usize,
        allowed: usize,
        send: &SendHalf,
        counts: &PayloadCounts,
    ) -> Result<(), ForwardError> {
        let payload = self.decode(&mut buffer.unfilled()[..count])?;
        if payload.is_empty() {
            drop(buffer);
            return if matches!(self.stage, Stage::Read) {
                self.finish(send)
            } else {
                Ok(())
            };
        }
        self.pending = keep(buffer, payload);
        self.forward(send, allowed, counts)
    }

    /// Takes a piece of the body; returns where its payload is after decoding.
    fn decode(&mut self, data: &mut [u8]) -> Result<Range<usize>, ForwardError> {
        let Stage::Body(framing) = &mut self.stage else {
            return Ok(0..0);
        };
        let decoded = framing.decode(data).map_err(invalid_body)?;
        self.chunks += decoded.chunks;
        self.keep_alive &= decoded.consumed == data.len();
        if framing.is_done() {
            self.trailers = framing.take_trailers().map_err(invalid_body)?;
            self.stage = Stage::Read;
        }
        Ok(decoded.payload)
    }

    /// Sends pending payload, as much as credit allows.
    fn forward(
        &mut self,
        send: &SendHalf,
        allowed: usize,
        counts: &PayloadCounts,
    ) -> Result<(), ForwardError> {
        let part = self.pending.split_to(allowed.min(self.pending.len()));
        let is_read = matches!(self.stage, Stage::Read) && self.pending.is_empty();
        let ends = is_read && self.trailers.is_none();
        let length = part.len();
        send.send(part, ends)?;
        counts.add_to_visitor(length as u64);
        if ends {
            self.stage = Stage::Done;
        } else if is_read {
            self.finish(send)?;
        }
        Ok(())
    }

    /// Ends the response.
    fn finish(&mut self, send: &SendHalf) -> Result<(), ForwardError> {
        match self.trailers.take() {
            Some(trailers) => send.finish_with(trailers)?,
            None => send.finish()?,
        }
        self.stage = Stage::Done;
        Ok(())
    }

    /// Called when the service has closed the connection.
    fn at_end(&mut self, send: &SendHalf) -> Result<(), ForwardError> {
        self.keep_alive = false;
        match &self.stage {
            Stage::Body(BodyFraming::Close) if !self.reset => self.finish(send),
            _ => Err(self.lost("connection closed")),
        }
    }

    fn lost(&self, how: &str) -> ForwardError {
        if !self.begun {
            ForwardError::ConnectionLost(format!("the service did not respond: {how}"))
        } else if self.awaits_head() {
            ForwardError::service_aborted(format!(
                "the service closed early in the head of its response: {how}"
            ))
        } else {
            ForwardError::service_aborted(format!(
                "the service closed early before the end of its response: {how}"
            ))
        }
    }
}

fn invalid_body(error: ChunkedError) -> ForwardError {
    ForwardError::service_aborted(format!("the service sent an invalid chunked body: {error}"))
}

fn aborted(error: &impl std::error::Error) -> ForwardError {
    ForwardError::service_aborted(error.to_string())
}

/// The payload as owned bytes: a slice of the buffer, or a copy if the buffer is much larger.
fn keep(mut buffer: PooledBuffer, payload: Range<usize>) -> Bytes {
    let capacity = buffer.unfilled().len();
    if payload.len() < capacity / PIN_RATIO {
        return Bytes::copy_from_slice(&buffer.unfilled()[payload]);
    }
    buffer.advance(payload.end);
    buffer.freeze().slice(payload)
}
