//! The ways of a gRPC service that is generated: prost's messages by hand, which copies the payload into the message and
//! the message into a frame's buffer once, and all of tonic's codec; and the least that any way of copying costs.

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

/// Encodes as a generated service does: prefix, then the message with its payload, into one buffer.
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
        // The buffer has room: encoding cannot fail.
        let _ = message.encode(&mut self.buffer);
    }

    /// The bytes of all that was encoded, ready to leave.
    pub fn finish(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

/// Decodes as a generated service does: frames are joined in one buffer, messages are split off it.
#[derive(Debug, Default)]
pub struct ProstDecoder {
    buffer: BytesMut,
}

impl ProstDecoder {
    /// Takes a frame.
    pub fn feed(&mut self, frame: &[u8]) {
        self.buffer.extend_from_slice(frame);
    }

    /// The next message that is whole.
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

/// Copies a payload once into a buffer that is used again.
#[derive(Debug, Default)]
pub struct Memcpy {
    buffer: Vec<u8>,
}

impl Memcpy {
    /// The copy.
    pub fn copy(&mut self, payload: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(payload);
        &self.buffer
    }
}

/// What is ready to go through tonic's own codec: its stream gives that and then has nothing until asked again, so that
/// a batch ends where it does with the other contenders.
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

    /// Whether all that was queued has left.
    pub fn is_drained(&self) -> bool {
        let next = self.source.next.lock();
        next.unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The next bytes that are ready to leave: all that was queued, or as much as tonic puts into one frame.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }
}

/// A body of one frame at a time.
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

    /// The next message that is whole.
    pub fn next_message(&mut self) -> Option<TunnelMessage> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.messages).poll_next(&mut cx) {
            Poll::Ready(Some(message)) => message.ok(),
            _ => None,
        }
    }
}
