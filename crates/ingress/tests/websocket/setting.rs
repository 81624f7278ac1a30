//! A visitor byte by byte, and a client's end of the lane that does as it is told.

use std::{sync::Arc, time::Duration};

use adit_codec::{RequestHead, WebSocketFrame, WebSocketRequest, WebSocketResponseHead};
use adit_ingress::HttpConfig;
use adit_link::{Dispatch, Exchange, Failure, IncomingRequest, Part, RecvHalf};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::world::{
    Link, World, config, destination, director, read_until, standard_layers, within,
};

/// RFC 6455, 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const UPGRADE: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Times short enough to wait for, and a link that gives its requests to the test.
pub fn short() -> HttpConfig {
    HttpConfig {
        close_timeout: Duration::from_millis(300),
        ..config()
    }
}

pub struct Far(mpsc::UnboundedSender<IncomingRequest>);

impl Far {
    pub const fn to(opened: mpsc::UnboundedSender<IncomingRequest>) -> Self {
        Self(opened)
    }
}

impl Dispatch for Far {
    fn dispatch(&self, opened: IncomingRequest) {
        let _ = self.0.send(opened);
    }
}

/// An entry, and what it opens.
pub struct Setting {
    pub world: World,
    opened: mpsc::UnboundedReceiver<IncomingRequest>,
}

impl Setting {
    pub async fn new() -> Self {
        Self::with(short()).await
    }

    pub async fn with(config: HttpConfig) -> Self {
        let (send, opened) = mpsc::unbounded_channel();
        let link = Link::to(Arc::new(Far(send)));
        let there = link.clone();
        let director = director(move |_, _| adit_ingress::Direction::Go(destination(&there, 1)));
        let mut world = World::assemble(config, standard_layers(), director).await;
        world.links = vec![link];
        Self { world, opened }
    }

    pub async fn opened(&mut self) -> IncomingRequest {
        within(self.opened.recv()).await.unwrap()
    }

    pub fn is_untouched(&mut self) -> bool {
        self.opened.try_recv().is_err()
    }

    /// The next WebSocket that is asked for.
    pub async fn asked(&mut self) -> (WebSocketRequest, Exchange) {
        let IncomingRequest { head, exchange } = self.opened().await;
        let RequestHead::WebSocket(head) = head else {
            panic!("no WebSocket: {head:?}");
        };
        (*head, exchange)
    }

    /// The next WebSocket that is asked for, accepted.
    pub async fn accepted(&mut self) -> Exchange {
        let (_, exchange) = self.asked().await;
        accept(&exchange, &[]);
        exchange
    }

    /// A visitor with its WebSocket, and the far end of it.
    pub async fn open(&mut self) -> (Visitor, Exchange) {
        let mut stream = self.world.connect().await;
        stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        let exchange = self.accepted().await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (Visitor(stream), exchange)
    }
}

pub fn accept(exchange: &Exchange, headers: &[(&str, &str)]) {
    let lines = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let head = WebSocketResponseHead { status: 101 }.encode(lines).unwrap();
    exchange.send.respond(head, false).unwrap();
}

/// One frame, as either end sends or gets it.
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

    /// On the wire, written in the plainest way.
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

    /// As a visitor sends it.
    pub fn masked(&self) -> Vec<u8> {
        self.bytes(Some([0x37, 0xfa, 0x21, 0x3d]))
    }
}

/// The visitor's end.
pub struct Visitor(pub TcpStream);

impl Visitor {
    pub async fn send(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.send_bytes(&frame.masked()).await;
        }
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` when the connection ends.
    pub async fn frame(&mut self) -> Option<Frame> {
        within(read_frame(&mut self.0)).await
    }

    pub async fn gets(&mut self, frames: &[Frame]) {
        for frame in frames {
            assert_eq!(self.frame().await.as_ref(), Some(frame));
        }
    }

    /// Nothing more comes, not even a close frame.
    pub async fn is_over(&mut self) {
        assert_eq!(self.frame().await, None);
    }
}

/// Reads one frame without a mask.
pub async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Frame> {
    let first = stream.read_u8().await.ok()?;
    let second = stream.read_u8().await.ok()?;
    assert_eq!(second & 0x80, 0, "masked");
    let length = match second {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        length => u64::from(length),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        fin: first & 0x80 != 0,
        rsv: first >> 4 & 7,
        opcode: first & 15,
        payload,
    })
}

/// The far end sends frames.
pub async fn send(exchange: &Exchange, frames: &[Frame]) {
    for frame in frames {
        let mut payload = Bytes::from(frame.payload.clone());
        let allowed = within(exchange.send.ready()).await.unwrap();
        let start = payload.split_to(allowed.min(payload.len()));
        exchange.send.send_frame(frame.head(), start).unwrap();
        within(exchange.send.send_all(payload, false))
            .await
            .unwrap();
    }
}

/// The next frame that reaches the far end; `None` at the end of the direction.
pub async fn frame(recv: &mut RecvHalf) -> Result<Option<Frame>, Failure> {
    let (head, mut payload) = match within(recv.part()).await {
        None => return Ok(None),
        Some(Ok(Part::Frame(head, payload))) => (head, payload.bytes().to_vec()),
        Some(Ok(other)) => panic!("no frame: {other:?}"),
        Some(Err(failure)) => return Err(failure),
    };
    while (payload.len() as u64) < head.length {
        match within(recv.part()).await {
            Some(Ok(Part::Data(data))) => payload.extend_from_slice(data.bytes()),
            Some(Err(failure)) => return Err(failure),
            other => panic!("no more payload: {other:?}"),
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

pub async fn gets(exchange: &mut Exchange, frames: &[Frame]) {
    for expected in frames {
        assert_eq!(
            frame(&mut exchange.recv).await.unwrap().as_ref(),
            Some(expected)
        );
    }
}
