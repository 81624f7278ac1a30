//! WebSockets byte by byte: visitors and services on a stream, and the far end on an exchange.

use adit_codec::WebSocketFrame;
use adit_link::{Exchange, Failure, Part, RecvHalf};
use adit_websocket::{FrameHead, HeadReader, Mask};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{exchanges::websocket_head, http1, next_part, within};

/// The key in the example of RFC 6455, 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const UPGRADE: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The key with which visitors mask.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub head: WebSocketFrame,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn of(fin: bool, rsv: u8, opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        let head = WebSocketFrame {
            fin,
            rsv,
            opcode,
            length: payload.len() as u64,
        };
        Self { head, payload }
    }

    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self::of(true, 0, opcode, payload)
    }

    pub fn text(payload: &str) -> Self {
        Self::new(1, payload)
    }

    pub fn close(code: u16) -> Self {
        Self::new(8, code.to_be_bytes())
    }

    /// The frame as it is sent, written in the simplest way.
    pub fn bytes(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let head = FrameHead {
            fin: self.head.fin,
            rsv: self.head.rsv,
            opcode: self.head.opcode,
            length: self.head.length,
        };
        let mut payload = self.payload.clone();
        Mask::new(key.unwrap_or_default()).apply(&mut payload);
        [head.encode(key).as_ref(), &payload].concat()
    }

    /// The frame as a visitor sends it.
    pub fn masked(&self) -> Vec<u8> {
        self.bytes(Some(MASK))
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), masked: bool) -> Option<(Frame, [u8; 4])> {
    let mut reader = HeadReader::new(masked);
    let (head, key) = loop {
        let byte = stream.read_u8().await.ok()?;
        if let (_, Some(head)) = reader.read(&[byte]).unwrap() {
            break head;
        }
    };
    let mut payload = vec![0; usize::try_from(head.length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Mask::new(key).apply(&mut payload);
    let frame = Frame::of(head.fin, head.rsv, head.opcode, payload);
    Some((frame, key))
}

/// The next frame of a service, which has no mask; `None` when the connection ends.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    within(read(stream, false)).await.map(|(frame, _)| frame)
}

/// The next frame of a visitor, and its mask.
pub async fn read_masked(stream: &mut (impl AsyncRead + Unpin)) -> Option<(Frame, [u8; 4])> {
    within(read(stream, true)).await
}

/// The visitor's end of a WebSocket, on any stream.
pub struct Visitor<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Visitor<S> {
    pub async fn send(&mut self, frames: &[Frame]) {
        for frame in frames {
            http1::send(&mut self.0, frame.masked()).await;
        }
        self.0.flush().await.unwrap();
    }

    /// The next frame; `None` when the connection ends.
    pub async fn frame(&mut self) -> Option<Frame> {
        read_frame(&mut self.0).await
    }

    pub async fn expect(&mut self, frames: &[Frame]) {
        for frame in frames {
            assert_eq!(self.frame().await.as_ref(), Some(frame));
        }
    }
}

/// Reads the head of a visitor's upgrade as a service, and accepts it with these lines.
pub async fn accept_upgrade(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    lines: &str,
) -> String {
    let head = http1::read_until(stream, "\r\n\r\n").await;
    let [key] = http1::values(&head, "sec-websocket-key")[..] else {
        panic!("expected one key in {head}");
    };
    let accept = adit_websocket::accept(key.as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
    );
    http1::send(stream, response).await;
    head
}

/// The far end accepts the WebSocket.
pub fn accept(exchange: &Exchange, headers: &[(&str, &str)]) {
    let head = websocket_head(101, headers);
    exchange.send.respond(head, false).unwrap();
}

/// The far end sends frames.
pub async fn send(exchange: &Exchange, frames: &[Frame]) {
    for frame in frames {
        let mut payload = Bytes::from(frame.payload.clone());
        let allowed = within(exchange.send.ready()).await.unwrap();
        let start = payload.split_to(allowed.min(payload.len()));
        exchange.send.send_frame(frame.head, start).unwrap();
        let rest = exchange.send.send_all(payload, false);
        within(rest).await.unwrap();
    }
}

/// The next frame that reaches the far end; `None` at the end of the direction.
pub async fn frame(recv: &mut RecvHalf) -> Result<Option<Frame>, Failure> {
    let (head, mut payload) = match next_part(recv).await.transpose()? {
        None => return Ok(None),
        Some(Part::Frame(head, payload)) => (head, payload.bytes().to_vec()),
        Some(other) => panic!("expected a frame, got {other:?}"),
    };
    while (payload.len() as u64) < head.length {
        match next_part(recv).await.transpose()? {
            Some(Part::Data(data)) => payload.extend_from_slice(data.bytes()),
            other => panic!("expected more payload, got {other:?}"),
        }
    }
    assert_eq!(payload.len() as u64, head.length);
    Ok(Some(Frame { head, payload }))
}

/// Receives frames at the far end, and asserts that they are `frames`.
pub async fn expect(exchange: &mut Exchange, frames: &[Frame]) {
    for expected in frames {
        let frame = frame(&mut exchange.recv).await.unwrap();
        assert_eq!(frame.as_ref(), Some(expected));
    }
}
