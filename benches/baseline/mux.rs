//! The data stream that `adit_mux` is compared with: each message is encoded alone in its own buffer, and the requests
//! are in one locked map, keyed by names as text.
//!
//! It has no credit, no fair turns, no bounds and no resets; the figures of `adit_mux` include the cost of those.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_proto::{HttpRequest, HttpResponse, Open, TunnelMessage, tunnel_message::Payload};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use uuid::Uuid;

/// One end of the data stream.
#[derive(Debug, Default)]
pub struct Naive {
    requests: Mutex<HashMap<String, u64>>,
    names: Mutex<HashMap<u64, String>>,
    outgoing: Mutex<VecDeque<Bytes>>,
    next: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Naive {
    /// Creates an end without open requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a request with its whole body.
    pub fn open(&self, path: &str, body: &Bytes) -> String {
        let name = Uuid::from_u128(u128::from(*lock(&self.next))).to_string();
        let id = {
            let mut next = lock(&self.next);
            *next += 2;
            *next
        };
        lock(&self.requests).insert(name.clone(), id);
        lock(&self.names).insert(id, name.clone());
        self.push(&TunnelMessage {
            request_id: id,
            end_stream: true,
            payload: Some(Payload::HttpRequest(HttpRequest {
                open: Some(Open {
                    request_uuid: Bytes::copy_from_slice(name.as_bytes()),
                    tunnel: "shop".into(),
                    ..Open::default()
                }),
                method: "POST".into(),
                scheme: "http".into(),
                authority: "shop.localhost".into(),
                path: Bytes::copy_from_slice(path.as_bytes()),
                body: body.clone(),
                ..HttpRequest::default()
            })),
            ..TunnelMessage::default()
        });
        name
    }

    /// Responds to a request with its own body.
    pub fn respond(&self, name: &str, body: &Bytes) {
        let Some(id) = lock(&self.requests).remove(name) else {
            return;
        };
        lock(&self.names).remove(&id);
        self.push(&TunnelMessage {
            request_id: id,
            end_stream: true,
            payload: Some(Payload::HttpResponse(HttpResponse {
                status: 200,
                body: body.clone(),
                ..HttpResponse::default()
            })),
            ..TunnelMessage::default()
        });
    }

    /// The next message to write.
    pub fn next_message(&self) -> Option<Bytes> {
        lock(&self.outgoing).pop_front()
    }

    /// Processes one received message; returns the request's name, whether the request is new, and the body.
    pub fn handle(&self, mut message: Bytes) -> Option<(String, bool, Bytes)> {
        let message = TunnelMessage::decode(message.split_off(5)).ok()?;
        match message.payload? {
            Payload::HttpRequest(head) => {
                let uuid = head.open?.request_uuid;
                let name = String::from_utf8_lossy(&uuid).into_owned();
                lock(&self.requests).insert(name.clone(), message.request_id);
                lock(&self.names).insert(message.request_id, name.clone());
                Some((name, true, head.body))
            }
            Payload::HttpResponse(head) => {
                let name = lock(&self.names).remove(&message.request_id)?;
                lock(&self.requests).remove(&name);
                Some((name, false, head.body))
            }
            _ => None,
        }
    }

    fn push(&self, message: &TunnelMessage) {
        let encoded = message.encode_to_vec();
        let mut out = BytesMut::with_capacity(5 + encoded.len());
        out.put_u8(0);
        out.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&encoded);
        lock(&self.outgoing).push_back(out.freeze());
    }
}
