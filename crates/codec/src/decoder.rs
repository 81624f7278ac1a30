//! Messages out of transport frames, without joining them.
//!
//! A frame (one HTTP/2 DATA frame, one read of a socket) may hold many messages, and a message may span frames. What
//! lies whole in a frame is sliced out of it. Of a message that spans frames, a chunk whose envelope has come in
//! ascending order is handed on part by part, each but the last of at least [`MIN_PART_BYTES`]; anything else is
//! gathered, growing with what arrives and never past [`MAX_MESSAGE_BYTES`].

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    compressed::{COMPRESSION_FIELD, Compressed, INFLATED_BYTES_FIELD},
    error::{BadMessage, DecodeError},
    frame::{MAX_MESSAGE_BYTES, PREFIX_BYTES, read_prefix},
    head::{
        ACCEPTED_FIELD, AnswerHead, GRPC_REQUEST_FIELD, GRPC_RESPONSE_FIELD, GrpcRequest,
        GrpcResponse, HTTP_REQUEST_FIELD, HTTP_RESPONSE_FIELD, HttpRequest, HttpResponse,
        RequestHead, TCP_OPEN_FIELD, TcpOpen, UDP_OPEN_FIELD, UdpOpen, WEBSOCKET_FRAME_FIELD,
        WEBSOCKET_REQUEST_FIELD, WEBSOCKET_RESPONSE_FIELD, WebSocketFrame, WebSocketRequest,
        WebSocketResponse, decode_frame, decode_trailers,
    },
    headers::HeaderBlock,
    id::{MessageType, ProtocolType, RequestId, ResetCode},
    message::{
        CHUNK_FIELD, CONTROL_FIELD, DATAGRAM_FIELD, MAX_DATAGRAM_BYTES, RESET_FIELD,
        STOP_SENDING_FIELD, TRAILERS_FIELD, WINDOW_FIELD,
    },
    wire::{LENGTH_DELIMITED, Reader, Value, low_32},
};

/// An envelope and the start of a chunk in ascending order fit in this; once more has come, a message that spans
/// frames is gathered.
const SCAN_BYTES: usize = 48;

/// A chunk in parts pays once for a message (P-4.1), and each part that waits occupies as much as one: frames of a byte
/// must not make a part each.
const MIN_PART_BYTES: usize = 1024;

/// The last of the payloads in ascending order but the chunk; from here to [`CHUNK_FIELD`] there is room for new ones.
const LAST_PAYLOAD_FIELD: u64 = CONTROL_FIELD as u64;
const CHUNK_NUMBER: u64 = CHUNK_FIELD as u64;
/// The key of a chunk, a varint of two bytes.
const CHUNK_KEY: [u8; 2] = [
    (CHUNK_FIELD << 3) | LENGTH_DELIMITED | 0x80,
    CHUNK_FIELD >> 4,
];
const INFLATED_BYTES_NUMBER: u64 = INFLATED_BYTES_FIELD as u64;
const COMPRESSION_NUMBER: u64 = COMPRESSION_FIELD as u64;

/// One message, or one part of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which request.
    pub id: RequestId,
    /// The sender's direction ends here. For a chunk in parts: set on the last part only.
    pub end_stream: bool,
    /// What it carries.
    pub payload: Payload,
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: the plain end.
    None,
    /// Opens a request.
    Request(RequestHead),
    /// Answers it.
    Answer(AnswerHead),
    /// Payload bytes.
    Chunk {
        /// A slice of the frame.
        data: Bytes,
        /// The first part of its message: the cost of a message is due once.
        first: bool,
        /// The last part of its message.
        last: bool,
    },
    /// A WebSocket frame. What of its payload did not ride along follows in chunks.
    Frame {
        /// Its head.
        frame: WebSocketFrame,
        /// The start of its payload, or all of it.
        data: Bytes,
    },
    /// Payload that was compressed on this hop, whole: of a chunk, or the start of a frame's.
    Compressed {
        /// How, and its length before.
        compressed: Compressed,
        /// The frame's head.
        frame: Option<WebSocketFrame>,
        /// What it is now: shorter than before.
        data: Bytes,
    },
    /// A UDP datagram.
    Datagram(Bytes),
    /// Trailers.
    Trailers(HeaderBlock),
    /// Credit.
    Window {
        /// Absolute limit.
        limit: u64,
        /// Absolute offset of what has left the receiver.
        consumed: u64,
    },
    /// End your direction, please.
    StopSending(ResetCode),
    /// Both directions are over.
    Reset {
        /// Why.
        code: ResetCode,
        /// For the log.
        reason: Bytes,
        /// The peer's direction broke off here: what came before it is to be delivered first.
        in_order: bool,
    },
    /// The link's own business, still encoded.
    Control(Bytes),
    /// A message that its request cannot survive (P-2.4).
    Bad(BadMessage),
}

impl Payload {
    /// Whether a request of this protocol may carry it. What concerns credit and ends, any may.
    pub const fn fits(&self, protocol: ProtocolType) -> bool {
        match self {
            Self::Answer(head) => head.answers(protocol),
            Self::Chunk { .. } | Self::Compressed { frame: None, .. } => {
                !matches!(protocol, ProtocolType::Udp)
            }
            Self::Frame { .. } | Self::Compressed { .. } => {
                matches!(protocol, ProtocolType::WebSocket)
            }
            Self::Datagram(_) => matches!(protocol, ProtocolType::Udp),
            Self::Trailers(_) => matches!(protocol, ProtocolType::Http | ProtocolType::Grpc),
            Self::Request(_) | Self::Control(_) | Self::Bad(_) => false,
            Self::None | Self::Window { .. } | Self::StopSending(_) | Self::Reset { .. } => true,
        }
    }
}

#[derive(Debug)]
enum State {
    /// Between messages, with `have` bytes of the prefix.
    Prefix {
        prefix: [u8; PREFIX_BYTES],
        have: usize,
    },
    /// In a message of `length` bytes of which `gathered` holds the start.
    Message { length: usize, scan: bool },
    /// In a chunk that is handed on in parts. `gathered` holds the start of the next part when it was too short.
    Parts {
        id: RequestId,
        end_stream: bool,
        remaining: usize,
        first: bool,
    },
    /// The framing is lost; nothing is read any more.
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
    /// Where in the stream `input` begins, and where the current message does.
    offset: u64,
    message_at: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self {
            input: Bytes::new(),
            state: START,
            gathered: BytesMut::new(),
            offset: 0,
            message_at: 0,
        }
    }

    /// Gives it the next frame. Call [`Decoder::next`] until it has nothing more before the following one; what is
    /// left of the last frame is kept in front, at the cost of a copy.
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
    /// [`DecodeError`] when the framing is lost; from then on the same error, whatever is fed.
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

    /// The next message if it lies whole in the input and is a chunk as [`crate::write_chunk_prefix`] writes it, which
    /// is most of what there is: it costs one reference. Whatever else it may be, and whatever is wrong with it, is
    /// found out by [`Decoder::read`].
    fn whole_chunk(&mut self) -> Option<(ChunkStart, Bytes)> {
        let (prefix, rest) = self.input.split_first_chunk()?;
        let length = read_prefix(*prefix, self.offset).ok()?;
        let chunk = written_chunk(rest.get(..length)?)?;
        let payload = length - chunk.payload_at;
        self.skip(PREFIX_BYTES + chunk.payload_at);
        // No bytes hold no frame.
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
                    // While scanning, only so much that a chunk's payload is not gathered with its envelope.
                    let take = if scan {
                        take.min(SCAN_BYTES.saturating_sub(self.gathered.len()).max(1))
                    } else {
                        take
                    };
                    let part = self.take(take);
                    self.gathered.extend_from_slice(&part);
                    if self.gathered.len() == length {
                        // An allocation of its own, so that a small head that is kept pins no large one.
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
                        // Exactly, so that what waits has no room to spare.
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

    /// Goes on behind so many bytes of the input. One that has been read to its end is let go: a decoder that waits for
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

    /// Copies so many bytes of the input.
    fn gather(&mut self, length: usize) {
        self.gathered.extend_from_slice(&self.input[..length]);
        self.skip(length);
    }

    /// Whether what has come of the current message is the envelope of a chunk that fills the rest of it; if so, goes
    /// on to hand it on in parts.
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
        // A scan that ends inside what was gathered had succeeded before it was gathered.
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

struct ChunkStart {
    id: RequestId,
    end_stream: bool,
    payload_at: usize,
}

/// Reads a whole message that is a chunk as our own writer has it: id, type, the end if it is one, the chunk. They
/// must be there in this order with nothing else beside them: then it is what [`decode_message`] would find as well.
fn written_chunk(message: &[u8]) -> Option<ChunkStart> {
    const ID_KEY: u8 = 1 << 3;
    const TYPE: [u8; 2] = [3 << 3, MessageType::StreamChunk.to_wire()];
    const END: [u8; 2] = [4 << 3, 1];
    let mut reader = Reader::new(message);
    if !reader.skip_exactly([ID_KEY]) {
        return None;
    }
    let id = reader.varint().ok()?;
    if !reader.skip_exactly(TYPE) {
        return None;
    }
    let end_stream = reader.skip_exactly(END);
    if !reader.skip_exactly(CHUNK_KEY) {
        return None;
    }
    let length = reader.length().ok()?;
    let payload_at = reader.offset();
    (payload_at.checked_add(length) == Some(message.len())).then_some(ChunkStart {
        id: RequestId::new(id),
        end_stream,
        payload_at,
    })
}

/// Reads the start of a message of `length` bytes; finds the chunk in it if id and all stand before it and the chunk
/// is the last field.
fn scan_chunk(start: &[u8], length: usize) -> Option<ChunkStart> {
    let mut reader = Reader::new(start);
    let (mut id, mut message_type, mut end_stream) = (0, 0, 0);
    loop {
        let (field, wire_type) = reader.key().ok()??;
        if field == u64::from(CHUNK_FIELD) && wire_type == LENGTH_DELIMITED {
            let chunk = reader.length().ok()?;
            let payload_at = reader.offset();
            let fills = payload_at.checked_add(chunk) == Some(length);
            let is_chunk =
                message_type == 0 || message_type == u64::from(MessageType::StreamChunk.to_wire());
            return (fills && is_chunk && id != 0).then_some(ChunkStart {
                id: RequestId::new(id),
                end_stream: end_stream != 0,
                payload_at,
            });
        }
        let value = reader.value(wire_type).ok()?;
        match (field, value) {
            (1, Value::Varint(value)) => id = value,
            (2, Value::Varint(_)) => {}
            (3, Value::Varint(value)) => message_type = low_32(value),
            (4, Value::Varint(value)) => end_stream = value,
            // What says how a chunk is compressed among them: that one is inflated as a whole, and so gathered.
            _ => return None,
        }
    }
}

/// Decodes one whole message: the first `length` bytes of a buffer. Only what it hands on is sliced out.
fn decode_message(
    buffer: &Bytes,
    length: usize,
    offset: u64,
) -> Result<Option<Envelope>, DecodeError> {
    debug_assert!(length <= MAX_MESSAGE_BYTES && length <= buffer.len());
    let (mut id, mut message_type, mut end_stream) = (0, 0, 0);
    let mut payload = None;
    let (mut inflated_bytes, mut compression) = (0, 0);
    let mut unknown = false;
    let mut bad = None;
    let mut reader = Reader::new(&buffer[..length]);
    loop {
        let (field, value) = match reader.field() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(what) => {
                bad = Some(what);
                break;
            }
        };
        match (field, value) {
            (1, Value::Varint(value)) => id = value,
            (2, Value::Varint(_)) => {}
            (3, Value::Varint(value)) => message_type = low_32(value),
            (4, Value::Varint(value)) => end_stream = value,
            (5..=LAST_PAYLOAD_FIELD | CHUNK_NUMBER, Value::Range(from, to)) => {
                // The last one counts (P-2.3), also where it is one that this build does not know.
                payload = field_of(field).map(|known| (known, from, to));
                unknown = payload.is_none();
            }
            (INFLATED_BYTES_NUMBER, Value::Varint(value)) => inflated_bytes = value,
            (COMPRESSION_NUMBER, Value::Varint(value)) => compression = value,
            (1..=COMPRESSION_NUMBER | CHUNK_NUMBER, _) => bad = Some(BadMessage::WireType),
            // A payload of a later build, unless there is one of ours beside it.
            (24..=30, _) => unknown = true,
            _ => {}
        }
    }
    if let Some(what) = bad
        && id == 0
    {
        return Err(DecodeError::NotAMessage { what, offset });
    }
    let payload = match (bad, payload) {
        (Some(what), _) => Payload::Bad(what),
        (None, Some((field, from, to))) => {
            if contradicts(message_type, field) {
                Payload::Bad(BadMessage::Contradiction)
            } else {
                decode_payload(field, buffer, from..to).unwrap_or_else(Payload::Bad)
            }
        }
        (None, None) if unknown || end_stream == 0 => Payload::Bad(BadMessage::UnknownPayload),
        (None, None) => match MessageType::from_wire(message_type) {
            Some(MessageType::Unspecified | MessageType::StreamChunk) => Payload::None,
            _ => Payload::Bad(BadMessage::Contradiction),
        },
    };
    let mut envelope = Envelope {
        id: RequestId::new(id),
        end_stream: end_stream != 0,
        payload,
    };
    match Compressed::read(inflated_bytes, compression) {
        Ok(None) => {}
        Ok(Some(compressed)) => envelope.payload = as_compressed(compressed, envelope.payload),
        Err(what) => envelope.payload = Payload::Bad(what),
    }
    Ok(Some(envelope))
}

/// A payload of which its message says that it is compressed (P-13.2).
fn as_compressed(compressed: Compressed, payload: Payload) -> Payload {
    let (frame, data) = match payload {
        Payload::Chunk { data, .. } => (None, data),
        Payload::Frame { frame, data } => (Some(frame), data),
        Payload::Bad(what) => return Payload::Bad(what),
        _ => return Payload::Bad(BadMessage::Compression),
    };
    if compressed.holds(data.len(), frame.map_or(u64::MAX, |frame| frame.length)) {
        Payload::Compressed {
            compressed,
            frame,
            data,
        }
    } else {
        Payload::Bad(BadMessage::Compression)
    }
}

fn field_of(field: u64) -> Option<u8> {
    u8::try_from(field).ok().filter(|field| {
        matches!(
            *field,
            HTTP_REQUEST_FIELD
                ..=RESET_FIELD
                    | WEBSOCKET_FRAME_FIELD
                    | DATAGRAM_FIELD
                    | CONTROL_FIELD
                    | CHUNK_FIELD
        )
    })
}

fn contradicts(message_type: u64, field: u8) -> bool {
    let fits = match field {
        HTTP_REQUEST_FIELD
        | GRPC_REQUEST_FIELD
        | WEBSOCKET_REQUEST_FIELD
        | TCP_OPEN_FIELD
        | UDP_OPEN_FIELD => MessageType::Request,
        HTTP_RESPONSE_FIELD | GRPC_RESPONSE_FIELD | WEBSOCKET_RESPONSE_FIELD | ACCEPTED_FIELD => {
            MessageType::Response
        }
        WEBSOCKET_FRAME_FIELD => MessageType::Frame,
        DATAGRAM_FIELD => MessageType::Datagram,
        TRAILERS_FIELD => MessageType::Trailers,
        WINDOW_FIELD => MessageType::Window,
        STOP_SENDING_FIELD => MessageType::StopSending,
        RESET_FIELD => MessageType::Reset,
        CONTROL_FIELD => MessageType::Control,
        _ => MessageType::StreamChunk,
    };
    message_type != 0 && message_type != u64::from(fits.to_wire())
}

fn decode_payload(field: u8, buffer: &Bytes, at: Range<usize>) -> Result<Payload, BadMessage> {
    let (from, content) = (at.start, &buffer[at.clone()]);
    Ok(match field {
        WEBSOCKET_FRAME_FIELD => {
            let (frame, data) = decode_frame(&buffer.slice(at))?;
            Payload::Frame { frame, data }
        }
        DATAGRAM_FIELD if content.len() > MAX_DATAGRAM_BYTES => return Err(BadMessage::Datagram),
        DATAGRAM_FIELD => Payload::Datagram(buffer.slice(at)),
        TRAILERS_FIELD => Payload::Trailers(decode_trailers(&buffer.slice(at))?),
        WINDOW_FIELD => {
            let mut reader = Reader::new(content);
            let (mut limit, mut consumed) = (0, 0);
            while let Some((field, value)) = reader.field()? {
                match field {
                    1 => limit = value.varint()?,
                    2 => consumed = value.varint()?,
                    _ => {}
                }
            }
            Payload::Window { limit, consumed }
        }
        STOP_SENDING_FIELD => {
            let mut reader = Reader::new(content);
            let mut code = 0;
            while let Some((field, value)) = reader.field()? {
                if field == 1 {
                    code = value.varint()?;
                }
            }
            Payload::StopSending(reset_code(code))
        }
        RESET_FIELD => {
            let mut reader = Reader::new(content);
            let mut code = 0;
            let mut reason = Bytes::new();
            let mut in_order = false;
            while let Some((field, value)) = reader.field()? {
                match field {
                    1 => code = value.varint()?,
                    2 => {
                        let (start, end) = value.range()?;
                        reason = buffer.slice(from + start..from + end);
                    }
                    3 => in_order = value.varint()? != 0,
                    _ => {}
                }
            }
            Payload::Reset {
                code: reset_code(code),
                reason,
                in_order,
            }
        }
        CONTROL_FIELD => Payload::Control(buffer.slice(at)),
        CHUNK_FIELD => Payload::Chunk {
            data: buffer.slice(at),
            first: true,
            last: true,
        },
        _ => decode_head(field, buffer.slice(at))?,
    })
}

fn decode_head(field: u8, bytes: Bytes) -> Result<Payload, BadMessage> {
    let request = match field {
        HTTP_REQUEST_FIELD => RequestHead::Http(HttpRequest::decode(bytes)?),
        GRPC_REQUEST_FIELD => RequestHead::Grpc(GrpcRequest::decode(&bytes)?.into()),
        WEBSOCKET_REQUEST_FIELD => RequestHead::WebSocket(WebSocketRequest::decode(&bytes)?.into()),
        TCP_OPEN_FIELD => RequestHead::Tcp(TcpOpen::decode(&bytes)?.into()),
        UDP_OPEN_FIELD => RequestHead::Udp(UdpOpen::decode(&bytes)?.into()),
        _ => return decode_answer(field, bytes).map(Payload::Answer),
    };
    Ok(Payload::Request(request))
}

fn decode_answer(field: u8, bytes: Bytes) -> Result<AnswerHead, BadMessage> {
    Ok(match field {
        HTTP_RESPONSE_FIELD => AnswerHead::Http(HttpResponse::decode(bytes)?),
        GRPC_RESPONSE_FIELD => AnswerHead::Grpc(GrpcResponse::decode(&bytes)?.into()),
        WEBSOCKET_RESPONSE_FIELD => {
            AnswerHead::WebSocket(WebSocketResponse::decode(&bytes)?.into())
        }
        ACCEPTED_FIELD => {
            // Nothing in it yet; what a later build puts there must still be protobuf.
            let mut reader = Reader::new(&bytes);
            while reader.field()?.is_some() {}
            AnswerHead::Accepted
        }
        // `field_of` lets nothing else through.
        _ => return Err(BadMessage::UnknownPayload),
    })
}

/// A code that is newer than this build still ends the request.
fn reset_code(code: u64) -> ResetCode {
    ResetCode::from_wire(low_32(code)).unwrap_or(ResetCode::Unspecified)
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::{
        frame::prefix_of,
        message::write_chunk_prefix,
        wire::{put_uint, put_varint},
    };

    fn framed(message: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_slice(&prefix_of(message.len()));
        out.put_slice(message);
        out
    }

    /// An envelope of `length` bytes, then a chunk of ten bytes that fills the message.
    fn chunk_behind(length: usize) -> BytesMut {
        chunk_of(length, b"0123456789")
    }

    fn chunk_of(length: usize, data: &[u8]) -> BytesMut {
        let mut tail = BytesMut::new();
        put_varint(&mut tail, u64::from(CHUNK_FIELD) << 3 | 2);
        put_varint(&mut tail, data.len() as u64);
        let mut out = BytesMut::new();
        put_uint(&mut out, 1, 2);
        if !(length - tail.len()).is_multiple_of(2) {
            // A padded number, for an odd rest.
            out.put_slice(&[2 << 3, 0x81, 0]);
        }
        while out.len() < length - tail.len() {
            put_uint(&mut out, 2, 1);
        }
        out.put_slice(&tail);
        assert_eq!(out.len(), length);
        out.put_slice(data);
        out
    }

    fn chunk(data: &'static [u8], first: bool, last: bool) -> Option<Envelope> {
        Some(Envelope {
            id: RequestId::new(2),
            end_stream: false,
            payload: Payload::Chunk {
                data: Bytes::from_static(data),
                first,
                last,
            },
        })
    }

    #[test]
    fn a_chunk_is_handed_on_in_parts_when_its_envelope_is_short() {
        const DATA: &[u8] = &[7; 3 * MIN_PART_BYTES];
        let (start, rest) = DATA.split_at(MIN_PART_BYTES);
        let (short, last) = rest.split_at(MIN_PART_BYTES);
        let length = PREFIX_BYTES + SCAN_BYTES;
        for cut in 1..=length {
            let stream = framed(&chunk_of(SCAN_BYTES, DATA)).freeze();
            let mut decoder = Decoder::new();
            decoder.feed(stream.slice(..cut));
            assert_eq!(decoder.next(), Ok(None), "{cut}");
            decoder.feed(stream.slice(cut..length + MIN_PART_BYTES));
            assert_eq!(decoder.next(), Ok(chunk(start, true, false)));
            assert_eq!(decoder.next(), Ok(None));
            // Too short for a part: filled up by the next frame, of which the rest is a part of its own.
            decoder.feed(stream.slice(length + MIN_PART_BYTES..length + MIN_PART_BYTES + 1));
            assert_eq!(decoder.next(), Ok(None));
            decoder.feed(stream.slice(length + MIN_PART_BYTES + 1..));
            assert_eq!(decoder.next(), Ok(chunk(short, false, false)));
            assert_eq!(decoder.next(), Ok(chunk(last, false, true)));
            assert!(decoder.is_between_messages());
        }
    }

    #[test]
    fn a_chunk_is_gathered_when_its_envelope_is_long() {
        let stream = framed(&chunk_behind(SCAN_BYTES + 1)).freeze();
        for cut in 1..stream.len() {
            let mut decoder = Decoder::new();
            decoder.feed(stream.slice(..cut));
            assert_eq!(decoder.next(), Ok(None));
            decoder.feed(stream.slice(cut..));
            assert_eq!(decoder.next(), Ok(chunk(b"0123456789", true, true)));
            assert_eq!(decoder.next(), Ok(None));
        }
    }

    #[test]
    fn a_chunk_of_no_bytes_needs_no_further_frame() {
        let mut out = BytesMut::new();
        write_chunk_prefix(&mut out, RequestId::new(2), 0, false);
        let stream = out.freeze();
        for cut in 1..stream.len() {
            let mut decoder = Decoder::new();
            decoder.feed(stream.slice(..cut));
            assert_eq!(decoder.next(), Ok(None));
            decoder.feed(stream.slice(cut..));
            assert_eq!(decoder.next(), Ok(chunk(b"", true, true)));
            assert!(decoder.is_between_messages());
        }
    }

    #[test]
    fn gathering_takes_no_more_than_has_come() {
        let mut out = BytesMut::new();
        out.put_slice(&prefix_of(MAX_MESSAGE_BYTES));
        out.put_slice(&[HTTP_RESPONSE_FIELD << 3 | 2]);
        let mut decoder = Decoder::new();
        decoder.feed(out.freeze());
        let mut come = 1;
        for size in [1, 40, 5, 100, 2000, 100_000] {
            assert_eq!(decoder.next(), Ok(None));
            assert_eq!(decoder.gathered.len(), come);
            assert!(
                decoder.gathered.capacity() <= 2 * come + SCAN_BYTES,
                "{come}"
            );
            decoder.feed(vec![0xff; size].into());
            come += size;
        }
    }

    #[test]
    fn a_message_that_was_gathered_leaves_nothing_behind() {
        let mut head = BytesMut::new();
        put_uint(&mut head, 1, 2);
        head.put_slice(&[CONTROL_FIELD << 3 | 2, 1, 3, 0x64]);
        head[2..6].copy_from_slice(&[0xaa, 1, 1, 0x64]);
        let stream = framed(&head).freeze();
        let mut decoder = Decoder::new();
        decoder.feed(stream.slice(..8));
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.gathered.len(), 3);
        decoder.feed(stream.slice(8..));
        let envelope = decoder.next().unwrap().unwrap();
        assert_eq!(envelope.payload, Payload::Control(Bytes::from_static(b"d")));
        assert_eq!(decoder.gathered.capacity(), 0);
    }

    #[test]
    fn a_chunk_in_parts_is_not_gathered() {
        let mut out = BytesMut::new();
        write_chunk_prefix(&mut out, RequestId::new(2), 5000, true);
        let envelope = out.len();
        out.put_bytes(7, 5000);
        let stream = out.freeze();
        let mut decoder = Decoder::new();
        decoder.feed(stream.slice(..envelope + MIN_PART_BYTES));
        let first = decoder.next().unwrap().unwrap();
        assert!(!first.end_stream, "only the last part ends");
        decoder.feed(stream.slice(envelope + MIN_PART_BYTES..));
        assert!(decoder.next().unwrap().unwrap().end_stream);
        assert_eq!(decoder.gathered.capacity(), 0);
    }

    /// Regression: a chunk in frames of a byte was a part for each byte, which pays for the byte alone.
    #[test]
    fn p_4_1_parts_of_a_chunk_that_trickles_have_a_kib() {
        for (length, step) in [
            (1, 1),
            (2, 1),
            (1023, 1),
            (1024, 1),
            (5000, 1),
            (5000, 700),
            (9000, 1023),
        ] {
            let mut out = BytesMut::new();
            write_chunk_prefix(&mut out, RequestId::new(2), length, true);
            out.extend((0..=250).cycle().take(length));
            let payload = out[out.len() - length..].to_vec();
            let mut decoder = Decoder::new();
            let (mut parts, mut read) = (Vec::new(), Vec::new());
            for frame in out.chunks(step) {
                decoder.feed(Bytes::copy_from_slice(frame));
                while let Some(envelope) = decoder.next().unwrap() {
                    let Payload::Chunk { data, first, last } = envelope.payload else {
                        panic!("no chunk");
                    };
                    assert_eq!(first, parts.is_empty());
                    assert_eq!(envelope.end_stream, last);
                    read.extend_from_slice(&data);
                    parts.push((data.len(), last));
                }
            }
            assert_eq!(read, payload);
            assert!(decoder.is_between_messages());
            let long = |(length, last): &(usize, bool)| *last || *length >= MIN_PART_BYTES;
            assert!(parts.iter().all(long), "{length} by {step}: {parts:?}");
        }
    }

    /// Regression: a message read in place left an input of no bytes that held its frame until the next one came.
    #[test]
    fn a_frame_that_has_been_read_is_let_go() {
        struct Frame {
            bytes: Vec<u8>,
            _held: std::sync::Arc<()>,
        }
        impl AsRef<[u8]> for Frame {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        let mut chunk = BytesMut::new();
        write_chunk_prefix(&mut chunk, RequestId::new(2), 3, false);
        chunk.put_slice(b"abc");
        let mut empty = BytesMut::new();
        write_chunk_prefix(&mut empty, RequestId::new(2), 0, false);
        let mut window = BytesMut::new();
        crate::message::write_window(&mut window, RequestId::new(2), 9, 0);
        for message in [&chunk, &empty, &window] {
            for cut in 0..message.len() {
                let held = std::sync::Arc::new(());
                let mut decoder = Decoder::new();
                for part in [&message[..cut], &message[cut..]] {
                    decoder.feed(Bytes::from_owner(Frame {
                        bytes: part.to_vec(),
                        _held: held.clone(),
                    }));
                    let mut read = Vec::new();
                    while let Some(envelope) = decoder.next().unwrap() {
                        read.push(envelope);
                    }
                    // Payload is a slice of its frame, and no payload is none.
                    let holds = read.iter().any(|envelope| {
                        matches!(&envelope.payload, Payload::Chunk { data, .. } if !data.is_empty())
                    });
                    assert!(holds || std::sync::Arc::strong_count(&held) == 1, "{cut}");
                    drop(read);
                    assert_eq!(std::sync::Arc::strong_count(&held), 1, "{cut}");
                }
                assert!(decoder.is_between_messages());
            }
        }
    }

    #[test]
    fn what_is_lost_stays_lost() {
        for broken in [vec![1, 0, 0, 0, 0], vec![0, 0, 0, 0, 1, 0x02]] {
            let mut decoder = Decoder::new();
            decoder.feed([&broken[..], &framed(&chunk_behind(9))].concat().into());
            let error = decoder.next().unwrap_err();
            assert_eq!(decoder.next(), Err(error.clone()));
            decoder.feed(framed(&chunk_behind(9)).freeze());
            assert!(decoder.input.is_empty(), "nothing is kept");
            assert_eq!(decoder.next(), Err(error));
            assert!(!decoder.is_between_messages());
        }
    }

    #[test]
    fn the_scan_takes_only_a_chunk_that_fills_its_message() {
        let message = chunk_behind(9);
        let found = scan_chunk(&message[..9], 19).unwrap();
        assert_eq!((found.id, found.payload_at), (RequestId::new(2), 9));
        assert!(!found.end_stream);
        assert!(scan_chunk(&message[..8], 19).is_none(), "not there yet");
        assert!(scan_chunk(&message[..9], 18).is_none());
        assert!(scan_chunk(&message[..9], 20).is_none());
        let start = |message_type: u64, end: u64, id: u64| {
            let mut out = BytesMut::new();
            put_uint(&mut out, 1, id);
            put_uint(&mut out, 3, message_type);
            put_uint(&mut out, 4, end);
            put_varint(&mut out, u64::from(CHUNK_FIELD) << 3 | 2);
            put_varint(&mut out, 1);
            scan_chunk(&out, out.len() + 1).map(|found| found.end_stream)
        };
        assert_eq!(start(3, 0, 4), Some(false));
        assert_eq!(start(0, 1, 4), Some(true));
        let compressed = [8, 2, 0xb0, 1, 5, 0xb8, 1, 1, 0xfa, 1, 1];
        assert!(scan_chunk(&compressed, 12).is_none(), "it is gathered");
        assert_eq!(start(1, 1, 4), None, "contradicts");
        assert_eq!(start(3, 0, 0), None, "the stream has no chunks");
        let as_number = [8, 2, 0xf8, 1, 5];
        assert!(scan_chunk(&as_number, 10).is_none());
        let other_first = [8, 2, 0xa0, 2, 0, 0xfa, 1, 1];
        assert!(scan_chunk(&other_first, 9).is_none());
    }

    /// Both ways to read a chunk agree: what the fast one takes, the general one reads as the same.
    #[test]
    fn what_the_fast_way_takes_reads_the_same_the_general_way() {
        let mut taken = 0;
        let mut check = |message: &[u8]| {
            let Some(found) = written_chunk(message) else {
                return false;
            };
            taken += 1;
            let buffer = Bytes::copy_from_slice(message);
            let read = decode_message(&buffer, message.len(), 0).unwrap().unwrap();
            let data = buffer.slice(found.payload_at..);
            let payload = Payload::Chunk {
                data,
                first: true,
                last: true,
            };
            assert_eq!(
                read,
                Envelope {
                    id: found.id,
                    end_stream: found.end_stream,
                    payload
                }
            );
            true
        };
        for id in [1, 127, 128, 16_384, u64::MAX] {
            for end in [false, true] {
                for length in [0, 1, 127, 128, 300] {
                    let mut out = BytesMut::new();
                    write_chunk_prefix(&mut out, RequestId::new(id), length, end);
                    out.put_bytes(7, length);
                    let message = &out[PREFIX_BYTES..];
                    assert!(check(message), "our own is taken");
                    assert!(!check(&message[..message.len() - 1]));
                    assert!(!check(&[message, &[0]].concat()));
                    // Every byte of the envelope, changed in every way.
                    let mut other = message.to_vec();
                    for at in 0..message.len() - length {
                        for byte in 0..=u8::MAX {
                            other[at] = byte;
                            check(&other);
                        }
                        other[at] = message[at];
                    }
                }
            }
        }
        assert!(taken > 1000, "{taken}");
        assert!(written_chunk(&[]).is_none());
        let other_order = [0x18, 3, 8, 2, 0xfa, 1, 0];
        assert!(written_chunk(&other_order).is_none());
    }

    #[test]
    fn each_payload_contradicts_every_type_but_its_own() {
        for (field, fits) in [
            (HTTP_REQUEST_FIELD, 1),
            (HTTP_RESPONSE_FIELD, 2),
            (GRPC_REQUEST_FIELD, 1),
            (GRPC_RESPONSE_FIELD, 2),
            (WEBSOCKET_REQUEST_FIELD, 1),
            (WEBSOCKET_RESPONSE_FIELD, 2),
            (TCP_OPEN_FIELD, 1),
            (UDP_OPEN_FIELD, 1),
            (ACCEPTED_FIELD, 2),
            (WEBSOCKET_FRAME_FIELD, 8),
            (DATAGRAM_FIELD, 9),
            (CHUNK_FIELD, 3),
            (TRAILERS_FIELD, 4),
            (WINDOW_FIELD, 5),
            (STOP_SENDING_FIELD, 6),
            (RESET_FIELD, 7),
            (CONTROL_FIELD, 11),
        ] {
            for message_type in 0..=12 {
                let contradicted = message_type != 0 && message_type != fits;
                assert_eq!(contradicts(message_type, field), contradicted, "{field}");
            }
        }
    }

    #[test]
    fn p_11_1_a_datagram_has_at_most_65507_bytes() {
        let read = |length| {
            let mut out = BytesMut::new();
            crate::message::write_datagram_prefix(&mut out, RequestId::new(2), length);
            out.put_bytes(7, length);
            let mut decoder = Decoder::new();
            decoder.feed(out.freeze());
            decoder.next().unwrap().unwrap().payload
        };
        for length in [0, 1, 65_507] {
            assert_eq!(read(length), Payload::Datagram(vec![7; length].into()));
        }
        assert_eq!(read(65_508), Payload::Bad(BadMessage::Datagram));
    }

    #[test]
    fn what_has_nothing_in_it_yet_must_still_be_a_message() {
        let accepted = |content: &[u8]| {
            let message = Bytes::copy_from_slice(content);
            decode_payload(ACCEPTED_FIELD, &message, 0..content.len()).unwrap_or_else(Payload::Bad)
        };
        assert_eq!(accepted(b""), Payload::Answer(AnswerHead::Accepted));
        // A field of a later build.
        assert_eq!(
            accepted(b"\x0a\x01a"),
            Payload::Answer(AnswerHead::Accepted)
        );
        assert_eq!(accepted(b"\x0a\x02a"), Payload::Bad(BadMessage::Truncated));
    }

    #[test]
    fn p_13_2_what_is_compressed_says_how_and_what_it_was() {
        let read = |fields: &[u8]| {
            let message = [&[8, 2], fields].concat();
            let mut decoder = Decoder::new();
            decoder.feed(framed(&message).freeze());
            decoder.next().unwrap().unwrap().payload
        };
        let compressed = |by, inflated_bytes, frame, data: &[u8]| Payload::Compressed {
            compressed: Compressed { by, inflated_bytes },
            frame,
            data: Bytes::copy_from_slice(data),
        };
        use crate::id::Compression::{Gzip, Zstd};
        // In any order.
        assert_eq!(
            read(b"\xb0\x01\x04\xb8\x01\x01\xfa\x01\x03abc"),
            compressed(Gzip, 4, None, b"abc")
        );
        assert_eq!(
            read(b"\xfa\x01\x03abc\xb8\x01\x02\xb0\x01\x80\x80\x04"),
            compressed(Zstd, 65_536, None, b"abc")
        );
        let frame = WebSocketFrame {
            fin: true,
            rsv: 0,
            opcode: 1,
            length: 4,
        };
        let framed = b"\x9a\x01\x09\x08\x01\x18\x01\x20\x04\x2a\x01a\xb8\x01\x01\xb0\x01";
        assert_eq!(
            read(&[&framed[..], &[4]].concat()),
            compressed(Gzip, 4, Some(frame), b"a")
        );
        let bad = Payload::Bad(BadMessage::Compression);
        for fields in [
            // More than 64 KiB, or not less than it was.
            &b"\xb0\x01\x81\x80\x04\xb8\x01\x01\xfa\x01\x03abc"[..],
            b"\xb0\x01\x03\xb8\x01\x01\xfa\x01\x03abc",
            b"\xb0\x01\xff\xff\xff\xff\x0f\xb8\x01\x01\xfa\x01\x03abc",
            // More than its frame.
            &[&framed[..], &[5]].concat(),
            // One without the other, or something that is none.
            b"\xb8\x01\x01\xfa\x01\x03abc",
            b"\xb0\x01\x04\xfa\x01\x03abc",
            b"\xb0\x01\x04\xb8\x01\x03\xfa\x01\x03abc",
            // What is never compressed: the end, a datagram, a window, an answer.
            b"\x20\x01\xb0\x01\x04\xb8\x01\x01",
            b"\xb0\x01\x04\xb8\x01\x01\xa2\x01\x03abc",
            b"\xb0\x01\x04\xb8\x01\x01\x7a\x02\x08\x01",
            b"\xb0\x01\x04\xb8\x01\x01\x6a\x00",
        ] {
            assert_eq!(read(fields), bad, "{fields:?}");
        }
        // Zeros say nothing.
        let chunk = Payload::Chunk {
            data: "abc".into(),
            first: true,
            last: true,
        };
        assert_eq!(read(b"\xb0\x01\x00\xb8\x01\x00\xfa\x01\x03abc"), chunk);
        let wrong = Payload::Bad(BadMessage::WireType);
        assert_eq!(read(b"\xb2\x01\x00\xfa\x01\x03abc"), wrong);
        assert_eq!(read(b"\xba\x01\x00\xfa\x01\x03abc"), wrong);
    }

    #[test]
    fn a_bad_message_names_its_request_or_ends_the_stream() {
        let bad = |message: &[u8]| {
            let mut decoder = Decoder::new();
            decoder.feed(framed(message).freeze());
            decoder.next().map(|read| {
                let envelope = read.unwrap();
                (envelope.id.value(), envelope.payload)
            })
        };
        let cut = Payload::Bad(BadMessage::Truncated);
        assert_eq!(bad(&[8, 2, 0x7a]), Ok((2, cut)));
        assert_eq!(
            bad(&[0x7a, 9, 8, 2]),
            Err(DecodeError::NotAMessage {
                what: BadMessage::Truncated,
                offset: 0
            })
        );
        let contradiction = Payload::Bad(BadMessage::Contradiction);
        assert_eq!(
            bad(&[8, 2, 0x18, 4, 0x20, 1]),
            Ok((2, contradiction.clone()))
        );
        assert_eq!(bad(&[8, 2, 0x18, 5, 0xfa, 1, 0]), Ok((2, contradiction)));
        assert_eq!(bad(&[8, 2, 0x18, 3, 0x20, 1]), Ok((2, Payload::None)));
        // Inside a payload, the same.
        let wrong = Payload::Bad(BadMessage::WireType);
        assert_eq!(bad(&[8, 2, 0x7a, 2, 0x0a, 0]), Ok((2, wrong.clone())));
        assert_eq!(bad(&[8, 2, 0x7a, 2, 0x12, 0]), Ok((2, wrong.clone())));
        assert_eq!(bad(&[8, 2, 0x82, 1, 2, 0x0a, 0]), Ok((2, wrong.clone())));
        assert_eq!(bad(&[8, 2, 0x8a, 1, 2, 0x10, 0]), Ok((2, wrong)));
    }
}
