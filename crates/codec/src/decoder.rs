//! Reads messages from transport frames, without joining the frames.
//!
//! A frame (one HTTP/2 DATA frame, one read of a socket) may hold many messages, and a message may span frames. A
//! message within one frame is a slice of the frame. If a message spans frames, a chunk whose envelope is in ascending
//! order is passed on part by part, each but the last of at least [`MIN_PART_BYTES`]; any other message is gathered in
//! a buffer that grows with the received bytes, up to [`crate::MAX_MESSAGE_BYTES`].

mod chunk;
mod message;
#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests;

use bytes::{Buf, Bytes, BytesMut};

use self::{
    chunk::{ChunkStart, scan_chunk, written_chunk},
    message::decode_message,
};
use crate::{
    envelope::{Envelope, Payload},
    error::DecodeError,
    frame::{PREFIX_BYTES, read_prefix},
    id::RequestId,
};

/// An envelope and the start of a chunk in ascending order fit into this; once more has arrived, a message that spans
/// frames is gathered.
const SCAN_BYTES: usize = 48;

/// A chunk in parts is charged for one message (P-4.1), but each waiting part occupies as much memory as a message:
/// frames of one byte must not become one part each.
const MIN_PART_BYTES: usize = 1024;

#[derive(Debug)]
enum State {
    /// Between messages, with `have` bytes of the prefix.
    Prefix {
        prefix: [u8; PREFIX_BYTES],
        have: usize,
    },
    /// The position is in a message of `length` bytes; `gathered` has its start.
    Message { length: usize, scan: bool },
    /// The position is in a chunk that is passed on in parts; `gathered` has the start of the next part if it was too
    /// short.
    Parts {
        id: RequestId,
        end_stream: bool,
        remaining: usize,
        first: bool,
    },
    /// The framing is lost; nothing more is read.
    Lost(DecodeError),
}

const START: State = State::Prefix {
    prefix: [0; PREFIX_BYTES],
    have: 0,
};

/// Reads the messages of one data stream.
#[derive(Debug)]
pub struct Decoder {
    input: Bytes,
    state: State,
    gathered: BytesMut,
    /// Offsets in the stream of the start of `input`, and of the current message.
    offset: u64,
    message_at: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Creates a decoder at the start of a stream.
    pub fn new() -> Self {
        Self {
            input: Bytes::new(),
            state: START,
            gathered: BytesMut::new(),
            offset: 0,
            message_at: 0,
        }
    }

    /// Adds the next frame. Call [`Decoder::next`] until it returns `None` before the following one; the rest of the
    /// last frame is kept in front, which costs a copy.
    pub fn feed(&mut self, frame: Bytes) {
        if matches!(self.state, State::Lost(_)) {
            return;
        }
        if self.input.is_empty() {
            self.input = frame;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + frame.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&frame);
            self.input = joined.freeze();
        }
    }

    /// Whether the stream could end here: between two messages.
    pub const fn is_between_messages(&self) -> bool {
        self.input.is_empty() && matches!(self.state, State::Prefix { have: 0, .. })
    }

    /// The next message or part; `None` when another frame is needed.
    ///
    /// # Errors
    /// [`DecodeError`] when the framing is lost; from then on it returns the same error, whatever is added.
    #[allow(clippy::should_implement_trait)] // fallible and fed from outside: no iterator
    pub fn next(&mut self) -> Result<Option<Envelope>, DecodeError> {
        if matches!(self.state, State::Prefix { have: 0, .. })
            && let Some((chunk, data)) = self.whole_chunk()
        {
            return Ok(Some(Envelope {
                id: chunk.id,
                end_stream: chunk.end_stream,
                payload: Payload::Chunk {
                    data,
                    first: true,
                    last: true,
                },
            }));
        }
        self.read_or_lose()
    }

    fn read_or_lose(&mut self) -> Result<Option<Envelope>, DecodeError> {
        let result = self.read();
        if let Err(error) = &result {
            self.state = State::Lost(error.clone());
            self.input.clear();
            self.gathered = BytesMut::new();
        }
        result
    }

    /// The next message if it is complete in the input and is a chunk as [`crate::write_chunk_prefix`] writes it, which
    /// most messages are: it costs one reference. Every other message, and every error, is left to [`Decoder::read`].
    fn whole_chunk(&mut self) -> Option<(ChunkStart, Bytes)> {
        let (prefix, rest) = self.input.split_first_chunk()?;
        let length = read_prefix(*prefix, self.offset).ok()?;
        let chunk = written_chunk(rest.get(..length)?)?;
        let payload = length - chunk.payload_at;
        self.skip(PREFIX_BYTES + chunk.payload_at);
        // An empty input must not keep its frame alive.
        let data = if payload == 0 {
            Bytes::new()
        } else {
            self.take(payload)
        };
        Some((chunk, data))
    }

    fn read(&mut self) -> Result<Option<Envelope>, DecodeError> {
        loop {
            match &mut self.state {
                State::Lost(error) => return Err(error.clone()),
                State::Prefix { prefix, have } => {
                    if *have == 0 {
                        self.message_at = self.offset;
                    }
                    let take = self.input.len().min(PREFIX_BYTES - *have);
                    prefix[*have..*have + take].copy_from_slice(&self.input[..take]);
                    *have += take;
                    let (prefix, is_whole) = (*prefix, *have == PREFIX_BYTES);
                    self.skip(take);
                    if !is_whole {
                        return Ok(None);
                    }
                    let length = read_prefix(prefix, self.message_at)?;
                    self.gathered.clear();
                    self.state = State::Message { length, scan: true };
                }
                &mut State::Message { length, scan } => {
                    if self.gathered.is_empty() && self.input.len() >= length {
                        let message = decode_message(&self.input, length, self.message_at);
                        self.skip(length);
                        self.state = START;
                        return message;
                    }
                    if scan && self.try_parts(length) {
                        continue;
                    }
                    let missing = length - self.gathered.len();
                    let take = self.input.len().min(missing);
                    // While scanning, only the needed bytes are taken, so that a chunk's payload is not gathered with
                    // its envelope.
                    let take = if scan {
                        take.min(SCAN_BYTES.saturating_sub(self.gathered.len()).max(1))
                    } else {
                        take
                    };
                    let part = self.take(take);
                    self.gathered.extend_from_slice(&part);
                    if self.gathered.len() == length {
                        // A separate allocation is used, so that a small head that is kept does not pin a large one.
                        let message = std::mem::take(&mut self.gathered).freeze();
                        self.state = START;
                        return decode_message(&message, length, self.message_at);
                    }
                    if self.gathered.len() >= SCAN_BYTES {
                        self.state = State::Message {
                            length,
                            scan: false,
                        };
                    }
                    if self.input.is_empty() {
                        return Ok(None);
                    }
                }
                State::Parts {
                    id,
                    end_stream,
                    remaining,
                    first,
                } => {
                    if self.input.is_empty() && *remaining > 0 {
                        return Ok(None);
                    }
                    let mut take = self.input.len().min(*remaining);
                    let waits = self.gathered.len();
                    let is_short = take < *remaining && take < MIN_PART_BYTES;
                    let gathers = waits > 0 || is_short;
                    if gathers {
                        take = take.min(MIN_PART_BYTES - waits);
                    }
                    if gathers && waits == 0 {
                        // The capacity is exact, so that a waiting payload has no spare capacity.
                        self.gathered.reserve(MIN_PART_BYTES.min(*remaining));
                    }
                    *remaining -= take;
                    let last = *remaining == 0;
                    if gathers && !last && waits + take < MIN_PART_BYTES {
                        self.gather(take);
                        return Ok(None);
                    }
                    let mut envelope = Envelope {
                        id: *id,
                        end_stream: *end_stream && last,
                        payload: Payload::None,
                    };
                    let first = std::mem::take(first);
                    if last {
                        self.state = START;
                    }
                    let data = if gathers {
                        self.gather(take);
                        std::mem::take(&mut self.gathered).freeze()
                    } else {
                        self.take(take)
                    };
                    envelope.payload = Payload::Chunk { data, first, last };
                    return Ok(Some(envelope));
                }
            }
        }
    }

    /// Skips this many bytes of the input. An input that has been read completely is released: a decoder that waits for
    /// the next frame must not hold the memory of the last one.
    fn skip(&mut self, length: usize) {
        self.offset += length as u64;
        if length < self.input.len() {
            self.input.advance(length);
        } else {
            self.input = Bytes::new();
        }
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.offset += length as u64;
        self.input.split_to(length)
    }

    /// Copies this many bytes of the input.
    fn gather(&mut self, length: usize) {
        self.gathered.extend_from_slice(&self.input[..length]);
        self.skip(length);
    }

    /// Whether the received part of the current message is the envelope of a chunk that fills the rest of it; if so,
    /// continues in parts.
    fn try_parts(&mut self, length: usize) -> bool {
        let known = self.gathered.len().min(SCAN_BYTES);
        let found = if known == 0 {
            scan_chunk(&self.input[..self.input.len().min(SCAN_BYTES)], length)
        } else {
            let mut window = [0; SCAN_BYTES];
            let more = self.input.len().min(SCAN_BYTES - known);
            window[..known].copy_from_slice(&self.gathered[..known]);
            window[known..known + more].copy_from_slice(&self.input[..more]);
            scan_chunk(&window[..known + more], length)
        };
        let Some(chunk) = found else {
            return false;
        };
        // A scan that ends inside the gathered bytes had succeeded before they were gathered.
        let Some(rest) = chunk.payload_at.checked_sub(known) else {
            return false;
        };
        self.take(rest);
        self.gathered.clear();
        self.state = State::Parts {
            id: chunk.id,
            end_stream: chunk.end_stream,
            remaining: length - chunk.payload_at,
            first: true,
        };
        true
    }
}
