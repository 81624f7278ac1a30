//! How a generated gRPC service encodes and decodes: prost's messages by hand, which copy the payload once into the
//! message and once from the message into a frame's buffer; and tonic's complete codec. For comparison, the least that
//! any copy costs.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body, Frame};
use prost::Message;
use tonic::{
    Status, Streaming,
    codec::{Codec, EncodeBody},
};
use tonic_prost::ProstCodec;

fn message(id: u64, payload: Bytes) -> TunnelMessage {
    TunnelMessage {
        request_id: id,
        message_type: adit_proto::MessageType::StreamChunk.into(),
        payload: Some(Payload::Chunk(payload)),
        ..TunnelMessage::default()
    }
}

/// Encodes as a generated service does: the prefix and the message with its payload go into one buffer.
#[derive(Debug, Default)]
pub struct ProstEncoder {
    buffer: BytesMut,
}

impl ProstEncoder {
    /// Encodes one chunk's message.
    pub fn put(&mut self, id: u64, payload: Bytes) {
        let message = message(id, payload);
        let length = message.encoded_len();
        self.buffer.reserve(5 + length);
        self.buffer.put_u8(0);
        self.buffer
            .put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        // The buffer has enough capacity: encoding cannot fail.
        let _ = message.encode(&mut self.buffer);
    }

    /// The bytes of all encoded messages, ready to be sent.
    pub fn finish(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

/// Decodes as a generated service does: it joins frames in one buffer and splits messages off the buffer.
#[derive(Debug, Default)]
pub struct ProstDecoder {
    buffer: BytesMut,
}

impl ProstDecoder {
    /// Takes a frame.
    pub fn feed(&mut self, frame: &[u8]) {
        self.buffer.extend_from_slice(frame);
    }

    /// The next complete message.
    pub fn next_message(&mut self) -> Option<TunnelMessage> {
        let prefix: [u8; 5] = self.buffer.get(..5)?.try_into().ok()?;
        let [_, a, b, c, d] = prefix;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        if self.buffer.len() < 5 + length {
            return None;
        }
        self.buffer.advance(5);
        TunnelMessage::decode(self.buffer.split_to(length).freeze()).ok()
    }
}

/// Copies a payload once into a buffer that is reused.
#[derive(Debug, Default)]
pub struct Memcpy {
    buffer: Vec<u8>,
}

impl Memcpy {
    /// Copies the payload and returns the copy.
    pub fn copy(&mut self, payload: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(payload);
        &self.buffer
    }
}

/// The source of tonic's own codec: a stream that yields the queued messages and is then pending until it is polled
/// again, so that a batch ends where it ends with the other contenders.
#[derive(Debug, Default, Clone)]
struct Messages {
    next: Arc<Mutex<VecDeque<TunnelMessage>>>,
}

impl Stream for Messages {
    type Item = Result<TunnelMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = next;
        next.pop_front()
            .map_or(Poll::Pending, |message| Poll::Ready(Some(Ok(message))))
    }
}

/// The encoder of a stock tonic service with prost's messages.
pub struct TonicEncoder {
    source: Messages,
    body: Pin<Box<dyn Body<Data = Bytes, Error = Status> + Send>>,
}

impl Default for TonicEncoder {
    fn default() -> Self {
        let source = Messages::default();
        let encoder = ProstCodec::<TunnelMessage, TunnelMessage>::default().encoder();
        Self {
            body: Box::pin(EncodeBody::new_client(encoder, source.clone(), None, None)),
            source,
        }
    }
}

impl TonicEncoder {
    /// Queues one chunk's message.
    pub fn put(&mut self, id: u64, payload: Bytes) {
        let next = self.source.next.lock();
        let mut next = next.unwrap_or_else(PoisonError::into_inner);
        next.push_back(message(id, payload));
    }

    /// Whether all queued messages have been sent.
    pub fn is_drained(&self) -> bool {
        let next = self.source.next.lock();
        next.unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The next bytes to send: all that is queued, or as much as tonic puts into one frame.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }
}

/// A body that yields one frame at a time.
#[derive(Debug, Default, Clone)]
struct Frames {
    next: Arc<Mutex<Option<Bytes>>>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = next;
        next.take().map_or(Poll::Pending, |bytes| {
            Poll::Ready(Some(Ok(Frame::data(bytes))))
        })
    }
}

/// The decoder of a stock tonic service with prost's messages.
pub struct TonicDecoder {
    source: Frames,
    messages: Streaming<TunnelMessage>,
}

impl Default for TonicDecoder {
    fn default() -> Self {
        let source = Frames::default();
        let decoder = ProstCodec::<TunnelMessage, TunnelMessage>::default().decoder();
        Self {
            messages: Streaming::new_request(decoder, source.clone(), None, None),
            source,
        }
    }
}

impl TonicDecoder {
    /// Takes a frame.
    pub fn feed(&mut self, frame: Bytes) {
        *self
            .source
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(frame);
    }

    /// The next complete message.
    pub fn next_message(&mut self) -> Option<TunnelMessage> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.messages).poll_next(&mut cx) {
            Poll::Ready(Some(message)) => message.ok(),
            _ => None,
        }
    }
}
