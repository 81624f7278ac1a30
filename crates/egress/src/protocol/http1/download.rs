//! The answer on its way out of the socket.

use std::{
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_codec::{HeaderBlock, HttpRequest, HttpResponseHead, MAX_HEAD_BYTES, PooledBuffer};
use adit_link::{Compression, SendHalf, Turn, compress::is_compressible};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
};

use crate::{
    fields::has_element,
    protocol::interim::Interim,
    request::{account::Account, broken::Broken, moved::Moved},
    resources::Resources,
};

use super::response::{Framing, Line, parse};

/// Payload smaller than this part of its buffer is copied: held, it would pin the whole (P-4.7).
const PIN_RATIO: usize = 4;

#[derive(Debug)]
enum Stage {
    /// The final answer's head has not come whole.
    Head,
    Body(Framing),
    /// The last of the answer has come; `pending` and `trailers` may wait for credit.
    Over,
    /// The service has changed to the protocol that was offered: `pending` is the start of it.
    Switched,
    /// All has been passed on.
    Done,
}

/// One answer after the other, from one connection.
pub(crate) struct Download {
    stage: Stage,
    to_head: bool,
    /// The request offers to change to another protocol.
    offers: bool,
    /// How the tunnel wants bodies to cross.
    compression: Option<Compression>,
    interim: Interim,
    /// A head that has not come whole.
    carry: Vec<u8>,
    lines: Vec<Line>,
    /// Payload that waits for credit. While there is any, nothing is read.
    pending: Bytes,
    trailers: Option<HeaderBlock>,
    /// A byte of the answer has come.
    begun: bool,
    /// The service keeps the connection, and nothing came after the answer.
    keep_alive: bool,
    /// The last read filled its buffer: more waits.
    full: bool,
    /// A write has found that the service reset the connection, and taken the error: a read finds an end in its place.
    reset: bool,
    turn: Turn,
    /// Found in the last read.
    chunks: usize,
}

impl Download {
    /// Reads in turns of `turn_bytes`.
    pub(crate) fn new(turn_bytes: usize) -> Self {
        Self {
            stage: Stage::Done,
            to_head: false,
            offers: false,
            compression: None,
            interim: Interim::default(),
            carry: Vec::new(),
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

    pub(crate) fn begin(&mut self, head: &HttpRequest, compression: Option<Compression>) {
        self.compression = compression;
        self.stage = Stage::Head;
        self.to_head = head.method == "HEAD";
        self.offers = !head.upgrade.is_empty();
        let expect = head.headers.first(b"expect");
        self.interim =
            Interim::new(expect.is_some_and(|expect| has_element(expect, b"100-continue")));
        self.carry = Vec::new();
        self.pending = Bytes::new();
        self.trailers = None;
        self.begun = false;
        self.keep_alive = false;
        self.full = false;
        self.reset = false;
    }

    /// The service has reset the connection. What it sent before is still read.
    pub(crate) const fn on_reset(&mut self) {
        self.reset = true;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(crate) fn awaits_head(&self) -> bool {
        matches!(self.stage, Stage::Head)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether the service has changed to another protocol.
    pub(crate) fn is_switched(&self) -> bool {
        matches!(self.stage, Stage::Switched)
    }

    /// What came behind the answer that changed the protocol.
    pub(crate) fn take_early(&mut self) -> Bytes {
        std::mem::take(&mut self.pending)
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Passes on what the socket gives and credit allows. Ready when the answer has been passed on whole.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
        send: &SendHalf,
        shared: &Resources,
        account: &mut Account<Box<HttpRequest>>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if matches!(self.stage, Stage::Done | Stage::Switched) {
                return Poll::Ready(Ok(()));
            }
            // Asked even where no credit is needed: it says when the visitor has left.
            let allowed = match send.poll_ready(cx) {
                Poll::Ready(Ok(allowed)) => allowed,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Gone)),
                Poll::Pending => 0,
            };
            if !self.pending.is_empty() {
                if allowed == 0 {
                    return Poll::Pending;
                }
                self.pass_on(send, allowed, &account.moved)?;
                continue;
            }
            let is_head = self.awaits_head();
            if allowed == 0 && !is_head {
                return Poll::Pending;
            }
            ready!(self.turn.poll_yield(cx));
            // Without a buffer until there is something to read: those who wait hold none.
            match socket.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(self.lost("connection lost"))),
                Poll::Pending => {
                    self.turn.end();
                    return Poll::Pending;
                }
            }
            let pool = if self.full {
                &shared.large
            } else {
                &shared.small
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
                self.take_head(buffer, count, allowed, send, shared, account)?;
            } else {
                self.take_body(buffer, count, allowed, send, &account.moved)?;
            }
            self.turn.read(count, std::mem::take(&mut self.chunks));
        }
    }

    /// How much may be read: what may be sent, or the rest of the body and one byte more. The byte shows that the
    /// service has said more than it announced, and makes the read a short one, after which nothing is left to ask.
    fn read_limit(&self, allowed: usize) -> usize {
        match &self.stage {
            Stage::Body(Framing::Length(left)) => match usize::try_from(*left) {
                Ok(left) if left <= allowed => left + 1,
                _ => allowed,
            },
            _ => allowed,
        }
    }

    fn take_head(
        &mut self,
        mut buffer: PooledBuffer,
        count: usize,
        allowed: usize,
        send: &SendHalf,
        shared: &Resources,
        account: &mut Account<Box<HttpRequest>>,
    ) -> Result<(), Broken> {
        if self.carry.is_empty() {
            let data = &mut buffer.unfilled()[..count];
            let payload = self.read_heads(data, allowed, send, shared, account)?;
            if !payload.is_empty() {
                self.pending = keep(buffer, payload);
            }
            return Ok(());
        }
        let mut data = std::mem::take(&mut self.carry);
        let piece = &buffer.unfilled()[..count];
        data.extend_from_slice(piece);
        // A head ends with a line: dripping bytes are not parsed anew each time.
        if !piece.contains(&b'\n') && data.len() < MAX_HEAD_BYTES {
            self.carry = data;
            return Ok(());
        }
        drop(buffer);
        let payload = self.read_heads(&mut data, allowed, send, shared, account)?;
        if !payload.is_empty() {
            self.pending = Bytes::from(data).slice(payload);
        }
        Ok(())
    }

    /// Reads the heads at the start of `data` and passes them on; gives where payload stands that did not ride along.
    fn read_heads(
        &mut self,
        data: &mut [u8],
        allowed: usize,
        send: &SendHalf,
        shared: &Resources,
        account: &mut Account<Box<HttpRequest>>,
    ) -> Result<Range<usize>, Broken> {
        let mut start = 0;
        loop {
            let parsed = parse(&mut data[start..], self.to_head, &mut self.lines);
            let head = match parsed.map_err(|error| Broken::aborted(error.to_string()))? {
                Some(head) => head,
                None => {
                    self.carry = data[start..].to_vec();
                    return Ok(0..0);
                }
            };
            let end = start + head.bytes;
            match head.status {
                101 if self.offers => {
                    let lines = self.lines.iter().map(|line| line.of(&data[start..]));
                    let lines = lines.filter(|(name, _)| *name != b"content-length");
                    let upgrade = &data[start..][head.upgrade];
                    let switch = HttpResponseHead::encode_switch(upgrade, lines)
                        .map_err(|error| Broken::aborted(error.to_string()))?;
                    account.service.compress(send, []);
                    send.respond(switch, false)?;
                    account.course.on_answer(101, false);
                    self.stage = Stage::Switched;
                    self.pending = Bytes::copy_from_slice(&data[end..]);
                    return Ok(0..0);
                }
                101 => {
                    return Err(Broken::aborted(
                        "it switches protocols, which was not asked for",
                    ));
                }
                100..200 => {
                    let lines = self.lines.iter().map(|line| line.of(&data[start..]));
                    self.interim.pass_on(head.status, lines, send)?;
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
                    let over = matches!(self.stage, Stage::Over) && self.trailers.is_none();
                    let rides = payload.len() <= shared.config.inline_body_bytes
                        && payload.len() <= allowed;
                    let riding = if rides { &body[payload.clone()] } else { &[] };
                    let ends = over && rides;
                    let answer = HttpResponseHead { status }
                        .encode(self.lines.iter().map(|line| line.of(lines)), riding)
                        .map_err(|error| Broken::aborted(error.to_string()))?;
                    let in_head = || self.lines.iter().map(|line| line.of(lines));
                    let compression = self.compression.filter(|_| is_compressible(in_head()));
                    send.set_compression(compression);
                    send.respond(answer, ends)?;
                    account.course.on_answer(status, ends);
                    account.moved.send(riding.len() as u64);
                    if ends {
                        self.stage = Stage::Done;
                    } else if matches!(self.stage, Stage::Over) && rides {
                        self.finish(send)?;
                    }
                    return Ok(if rides {
                        0..0
                    } else {
                        payload.start + end..payload.end + end
                    });
                }
            }
        }
    }

    fn take_body(
        &mut self,
        mut buffer: PooledBuffer,
        count: usize,
        allowed: usize,
        send: &SendHalf,
        moved: &Moved,
    ) -> Result<(), Broken> {
        let payload = self.decode(&mut buffer.unfilled()[..count])?;
        if payload.is_empty() {
            drop(buffer);
            return if matches!(self.stage, Stage::Over) {
                self.finish(send)
            } else {
                Ok(())
            };
        }
        self.pending = keep(buffer, payload);
        self.pass_on(send, allowed, moved)
    }

    /// Takes a piece of the body in; gives where its payload stands now.
    fn decode(&mut self, data: &mut [u8]) -> Result<Range<usize>, Broken> {
        let Stage::Body(framing) = &mut self.stage else {
            return Ok(0..0);
        };
        let payload = match framing {
            Framing::Close => 0..data.len(),
            Framing::Length(left) => {
                let here = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= here as u64;
                if *left == 0 {
                    self.stage = Stage::Over;
                }
                0..here
            }
            Framing::Chunked(chunked) => {
                let decoded = chunked.decode(data).map_err(|error| {
                    Broken::aborted(format!("its answer is no chunked body: {error}"))
                })?;
                self.chunks += decoded.chunks;
                if chunked.is_done() {
                    self.trailers = chunked.take_trailers().map_err(|error| {
                        Broken::aborted(format!("its answer is no chunked body: {error}"))
                    })?;
                    self.stage = Stage::Over;
                    self.keep_alive &= decoded.consumed == data.len();
                }
                return Ok(decoded.payload);
            }
        };
        self.keep_alive &= payload.end == data.len();
        Ok(payload)
    }

    /// Sends what waits, as much as is allowed.
    fn pass_on(&mut self, send: &SendHalf, allowed: usize, moved: &Moved) -> Result<(), Broken> {
        let part = self.pending.split_to(allowed.min(self.pending.len()));
        let over = matches!(self.stage, Stage::Over) && self.pending.is_empty();
        let ends = over && self.trailers.is_none();
        let length = part.len();
        send.send(part, ends)?;
        moved.send(length as u64);
        if ends {
            self.stage = Stage::Done;
        } else if over {
            self.finish(send)?;
        }
        Ok(())
    }

    fn finish(&mut self, send: &SendHalf) -> Result<(), Broken> {
        match self.trailers.take() {
            Some(trailers) => send.finish_with(trailers)?,
            None => send.finish()?,
        }
        self.stage = Stage::Done;
        Ok(())
    }

    /// The service has closed the connection.
    fn at_end(&mut self, send: &SendHalf) -> Result<(), Broken> {
        self.keep_alive = false;
        match &self.stage {
            Stage::Body(Framing::Close) if !self.reset => self.finish(send),
            _ => Err(self.lost("connection closed")),
        }
    }

    fn lost(&self, how: &str) -> Broken {
        if !self.begun {
            Broken::Died(format!("the service did not answer: {how}"))
        } else if self.awaits_head() {
            Broken::aborted(format!(
                "the service broke off in the head of its answer: {how}"
            ))
        } else {
            Broken::aborted(format!(
                "the service broke off before the end of its answer: {how}"
            ))
        }
    }
}

/// The payload as bytes of its own: the buffer itself, or a copy where that would pin far more than it is.
fn keep(mut buffer: PooledBuffer, payload: Range<usize>) -> Bytes {
    let capacity = buffer.unfilled().len();
    if payload.len() < capacity / PIN_RATIO {
        return Bytes::copy_from_slice(&buffer.unfilled()[payload]);
    }
    buffer.advance(payload.end);
    buffer.freeze().slice(payload)
}
