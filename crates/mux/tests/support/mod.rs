//! One end of a stream whose peer is the test: feeds hand-made messages and reads what is sent.
#![allow(dead_code)] // each test file uses its part

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use adit_codec::{EncodedHead, HttpRequestHead, HttpResponseHead, Open, RequestId, Side};
use adit_flow::Budget;
use adit_mux::{Attachment, Config, Event, Mux, ReceiveError, Receiver, Transmit};
use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

pub(crate) mod heads;

pub(crate) const HEADER: usize = 5;

/// Counts how often it was woken.
#[derive(Default)]
pub(crate) struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    pub(crate) fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct End {
    pub(crate) mux: Arc<Mux>,
    pub(crate) receiver: Receiver,
    pub(crate) bell: Arc<Bell>,
    /// The requests that the writer reported as writable.
    pub(crate) writable: Vec<RequestId>,
}

impl End {
    pub(crate) fn new(config: Config) -> Self {
        Self::with_budget(config, Budget::new(64 << 20))
    }

    pub(crate) fn with_budget(config: Config, budget: Budget) -> Self {
        let mux = Mux::new(config, budget);
        Self {
            receiver: Receiver::new(mux.clone(), Attachment::FIRST),
            mux,
            bell: Arc::default(),
            writable: Vec::new(),
        }
    }

    pub(crate) fn server() -> Self {
        Self::new(Config::new(Side::Server))
    }

    /// Receives messages, all in one frame.
    pub(crate) fn try_feed(
        &mut self,
        messages: impl IntoIterator<Item = TunnelMessage>,
    ) -> (Vec<Event>, Result<(), ReceiveError>) {
        let mut frame = BytesMut::new();
        for message in messages {
            frame.extend_from_slice(&framed(&message.encode_to_vec()));
        }
        let mut events = Vec::new();
        let result = self.receiver.handle_frame(frame.freeze(), &mut events);
        (events, result)
    }

    pub(crate) fn feed(&mut self, messages: impl IntoIterator<Item = TunnelMessage>) -> Vec<Event> {
        let (mut events, result) = self.try_feed(messages);
        result.unwrap();
        for event in &mut events {
            // The code of a reset decides; its text is for the log.
            if let Event::Reset {
                by_peer: false,
                reason,
                ..
            } = event
            {
                reason.clear();
            }
        }
        events
    }

    /// One batch, if there is one.
    pub(crate) fn transmit(&self) -> Option<Transmit> {
        let waker = Waker::from(self.bell.clone());
        match self
            .mux
            .poll_transmit(Attachment::FIRST, &mut Context::from_waker(&waker))
        {
            Poll::Ready(transmit) => transmit,
            Poll::Pending => None,
        }
    }

    /// Everything that is sent until the writer parks.
    pub(crate) fn sent(&mut self) -> Vec<TunnelMessage> {
        let mut bytes = BytesMut::new();
        while let Some(transmit) = self.transmit() {
            self.writable.extend(transmit.writable);
            for segment in transmit
                .batch
                .into_iter()
                .flat_map(adit_codec::Batch::into_segments)
            {
                bytes.extend_from_slice(&segment);
            }
        }
        messages(bytes.freeze())
    }

    /// Opens a request and sends its head.
    pub(crate) fn opened(&mut self, end: bool) -> RequestId {
        let id = self.open(b"", end);
        assert_eq!(self.sent().len(), 1);
        id
    }

    pub(crate) fn open(&self, body: &[u8], end: bool) -> RequestId {
        self.mux
            .open(request_head(body), end, |_| true)
            .unwrap()
            .unwrap()
    }
}

/// The messages in a sequence of bytes.
pub(crate) fn messages(mut bytes: Bytes) -> Vec<TunnelMessage> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let prefix = bytes.split_to(HEADER);
        assert_eq!(prefix[0], 0);
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        messages.push(TunnelMessage::decode(bytes.split_to(length)).unwrap());
    }
    messages
}

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.extend_from_slice(message);
    out.freeze()
}

pub(crate) fn message(id: u64, end: bool, payload: impl Into<Option<Payload>>) -> TunnelMessage {
    TunnelMessage {
        request_id: id,
        end_stream: end,
        payload: payload.into(),
        ..TunnelMessage::default()
    }
}

pub(crate) fn opening(id: u64, body: &[u8], end: bool) -> TunnelMessage {
    let head = adit_proto::HttpRequest {
        open: Some(adit_proto::Open {
            request_uuid: Bytes::from_static(&[7; 16]),
            tunnel: "shop".into(),
            ..adit_proto::Open::default()
        }),
        method: "POST".into(),
        scheme: "http".into(),
        path: "/".into(),
        body: Bytes::copy_from_slice(body),
        ..adit_proto::HttpRequest::default()
    };
    message(id, end, Payload::HttpRequest(head))
}

pub(crate) fn response(id: u64, status: u32, body: &[u8], end: bool) -> TunnelMessage {
    let head = adit_proto::HttpResponse {
        status,
        body: Bytes::copy_from_slice(body),
        ..adit_proto::HttpResponse::default()
    };
    message(id, end, Payload::HttpResponse(head))
}

pub(crate) fn chunk(id: u64, length: usize, end: bool) -> TunnelMessage {
    message(id, end, Payload::Chunk(Bytes::from(vec![b'x'; length])))
}

pub(crate) fn plain_end(id: u64) -> TunnelMessage {
    message(id, true, None)
}

pub(crate) fn trailers(id: u64) -> TunnelMessage {
    message(id, true, Payload::Trailers(adit_proto::Trailers::default()))
}

pub(crate) fn window(id: u64, limit: u64, consumed: u64) -> TunnelMessage {
    message(
        id,
        false,
        Payload::Window(adit_proto::Window { limit, consumed }),
    )
}

pub(crate) fn stop(id: u64) -> TunnelMessage {
    let code = adit_proto::ResetCode::Cancelled.into();
    message(
        id,
        false,
        Payload::StopSending(adit_proto::StopSending { code }),
    )
}

pub(crate) fn reset(id: u64) -> TunnelMessage {
    reset_in(id, false)
}

/// The abort of a peer's direction.
pub(crate) fn abort(id: u64) -> TunnelMessage {
    reset_in(id, true)
}

fn reset_in(id: u64, in_order: bool) -> TunnelMessage {
    let reset = adit_proto::Reset {
        code: adit_proto::ResetCode::Cancelled.into(),
        reason: "gone".into(),
        in_order,
    };
    message(id, false, Payload::Reset(reset))
}

pub(crate) fn request_head(body: &[u8]) -> EncodedHead {
    let open: Open = Open {
        request_uuid: [9; 16],
        tunnel: "shop".into(),
        ..Open::default()
    };
    let head = HttpRequestHead {
        open: &open,
        method: "GET",
        scheme: "http",
        authority: b"shop.localhost",
        path: b"/",
    };
    head.encode(std::iter::empty(), body).unwrap()
}

pub(crate) fn response_head(status: u16, body: &[u8]) -> EncodedHead {
    HttpResponseHead { status }
        .encode(std::iter::empty(), body)
        .unwrap()
}

/// A head whose header lines take about `bytes`.
pub(crate) fn long_response_head(bytes: usize) -> EncodedHead {
    let value = vec![b'v'; bytes / 16];
    let lines = (0..16).map(|_| (&b"x"[..], &value[..]));
    HttpResponseHead { status: 200 }.encode(lines, b"").unwrap()
}

/// Id, end and kind of payload of each message, for comparing whole runs.
pub(crate) fn outline(messages: &[TunnelMessage]) -> Vec<String> {
    let outline = |message: &TunnelMessage| {
        let what = match &message.payload {
            None => "end".into(),
            Some(Payload::HttpRequest(_)) => "open".into(),
            Some(Payload::HttpResponse(head)) => format!("response {}", head.status),
            Some(Payload::Chunk(data)) => format!("chunk {}", data.len()),
            Some(Payload::Trailers(_)) => "trailers".into(),
            Some(Payload::Window(window)) => format!("window {} {}", window.limit, window.consumed),
            Some(Payload::StopSending(_)) => "stop".into(),
            Some(Payload::Reset(reset)) if reset.in_order => format!("abort {:?}", reset.code()),
            Some(Payload::Reset(reset)) => format!("reset {:?}", reset.code()),
            Some(Payload::Control(_)) => "control".into(),
            Some(_) => "other".into(),
        };
        let end = if message.end_stream { "." } else { "" };
        format!("{} {what}{end}", message.request_id)
    };
    messages.iter().map(outline).collect()
}
