//! WebSockets byte by byte: visitors and services on a stream, and the far end on an exchange.

use adit_codec::WebSocketFrame;
use adit_link::{Exchange, Failure, Part, RecvHalf};
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
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            payload: payload.as_ref().to_vec(),
        }
    }

    pub fn text(payload: &str) -> Self {
        Self::new(1, payload)
    }

    pub fn fragment(opcode: u8, payload: &str) -> Self {
        Self {
            fin: false,
            ..Self::new(opcode, payload)
        }
    }

    pub fn close(code: u16) -> Self {
        Self::new(8, code.to_be_bytes())
    }

    pub fn head(&self) -> WebSocketFrame {
        WebSocketFrame {
            fin: self.fin,
            rsv: self.rsv,
            opcode: self.opcode,
            length: self.payload.len() as u64,
        }
    }

    /// The frame as it is sent, written in the simplest way.
    pub fn bytes(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let masked = if key.is_some() { 0x80 } else { 0 };
        match self.payload.len() {
            length @ 0..126 => out.push(masked | u8::try_from(length).unwrap()),
            length @ 126..65_536 => {
                out.push(masked | 126);
                out.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                out.push(masked | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend(key.iter().flatten());
        let payload = self.payload.iter().enumerate();
        out.extend(payload.map(|(at, byte)| byte ^ key.map_or(0, |key| key[at % 4])));
        out
    }

    /// The frame as a visitor sends it.
    pub fn masked(&self) -> Vec<u8> {
        self.bytes(Some(MASK))
    }
}

/// Reads one frame and its mask; `None` when the connection ends.
pub async fn read_masked(
    stream: &mut (impl AsyncRead + Unpin),
) -> Option<(Frame, Option<[u8; 4]>)> {
    let first = stream.read_u8().await.ok()?;
    let second = stream.read_u8().await.ok()?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        length => u64::from(length),
    };
    let mut key = [0; 4];
    let is_masked = second & 0x80 != 0;
    if is_masked {
        stream.read_exact(&mut key).await.ok()?;
    }
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    let unmasked = payload.iter().enumerate();
    let frame = Frame {
        fin: first & 0x80 != 0,
        rsv: first >> 4 & 7,
        opcode: first & 15,
        payload: unmasked.map(|(at, byte)| byte ^ key[at % 4]).collect(),
    };
    Some((frame, is_masked.then_some(key)))
}

/// Reads one frame without a mask, as services send them.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let (frame, key) = within(read_masked(stream)).await?;
    assert_eq!(key, None, "a masked frame");
    Some(frame)
}

/// The visitor's end of a WebSocket, on any stream.
pub struct Visitor<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Visitor<S> {
    pub async fn send(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.send_bytes(&frame.masked()).await;
        }
        self.0.flush().await.unwrap();
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        http1::send(&mut self.0, bytes).await;
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

    /// The connection ends without another frame.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.frame().await, None);
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
        exchange.send.send_frame(frame.head(), start).unwrap();
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
    Ok(Some(Frame {
        fin: head.fin,
        rsv: head.rsv,
        opcode: head.opcode,
        payload,
    }))
}

/// Receives frames at the far end, and asserts that they are `frames`.
pub async fn expect(exchange: &mut Exchange, frames: &[Frame]) {
    for expected in frames {
        let frame = frame(&mut exchange.recv).await.unwrap();
        assert_eq!(frame.as_ref(), Some(expected));
    }
}
