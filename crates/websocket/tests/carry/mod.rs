//! Two relays back to back, with a simulated link between them and a simulated peer behind each of their sockets.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::VecDeque;

use adit_websocket::{FrameHead, Relay, ToLink};

/// The code of the close frames with which peers respond, to distinguish these from the ones they respond to.
pub const RESPONSE: u16 = 4444;

/// A frame, as a peer sends or receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn close(code: u16) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode: 8,
            payload: code.to_be_bytes().into(),
        }
    }

    pub fn is_close(&self) -> bool {
        self.opcode == 8
    }

    /// Encodes the frame; a naive encoder.
    pub fn bytes(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let masked = if key.is_some() { 0x80 } else { 0 };
        let length = self.payload.len() as u64;
        if length < 126 {
            out.push(masked | length as u8);
        } else if length < 65536 {
            out.push(masked | 126);
            out.extend((length as u16).to_be_bytes());
        } else {
            out.push(masked | 127);
            out.extend(length.to_be_bytes());
        }
        out.extend(key.iter().flatten());
        let payload = self.payload.iter().enumerate();
        out.extend(payload.map(|(at, byte)| byte ^ key.map_or(0, |key| key[at % 4])));
        out
    }
}

/// Decodes all frames; returns the rest. A naive decoder.
pub fn read_frames(mut bytes: &[u8], masked: bool) -> (Vec<Frame>, Vec<u8>) {
    let mut frames = Vec::new();
    while let Some((frame, taken)) = read_frame(bytes, masked) {
        frames.push(frame);
        bytes = &bytes[taken..];
    }
    (frames, bytes.to_vec())
}

fn read_frame(bytes: &[u8], masked: bool) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80 != 0, masked, "masked to the service only");
    let (length, mut at) = match second & 0x7f {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()),
            10,
        ),
        length => (u64::from(length), 2),
    };
    let mut key = [0; 4];
    if masked {
        key = bytes.get(at..at + 4)?.try_into().unwrap();
        at += 4;
    }
    let end = at + usize::try_from(length).unwrap();
    let payload = bytes.get(at..end)?.iter().enumerate();
    let frame = Frame {
        fin: first & 0x80 != 0,
        rsv: first >> 4 & 7,
        opcode: first & 15,
        payload: payload.map(|(at, byte)| byte ^ key[at % 4]).collect(),
    };
    Some((frame, end))
}

/// Repeats a list of numbers.
#[derive(Debug, Clone)]
pub struct Sizes {
    sizes: Vec<u16>,
    at: usize,
}

impl Sizes {
    pub fn new(sizes: &[u16]) -> Self {
        Self {
            sizes: sizes.to_vec(),
            at: 0,
        }
    }

    pub fn next(&mut self) -> usize {
        if self.sizes.is_empty() {
            return 64;
        }
        self.at += 1;
        usize::from(self.sizes[self.at % self.sizes.len()])
    }
}

#[derive(Debug, Clone)]
enum Message {
    Frame(FrameHead, Vec<u8>),
    Data(Vec<u8>),
    End,
    Reset,
}

/// How a peer's side of its connection ends, when all its bytes have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The peer does not end its side by itself.
    Stays,
    /// The peer ends its side with a FIN.
    Fin,
    /// The peer ends its side with a reset.
    Lost,
}

/// A relay, and the peer at its socket.
pub struct End {
    pub relay: Relay<Vec<u8>>,
    masks: bool,
    /// The bytes of the peer, of which the first `read` have been sent.
    sent: Vec<u8>,
    read: usize,
    ends: Ends,
    has_ended: bool,
    /// The peer responds to a close frame, when all its own frames have been sent.
    responds: bool,
    /// The bytes that the peer has received.
    pub got: Vec<u8>,
    pub shut_down: bool,
    /// Messages on the link to the other relay.
    link: VecDeque<Message>,
    turns: usize,
}

fn key() -> [u8; 4] {
    [0xa5, 0x17, 0, 0xff]
}

impl End {
    pub fn visitor() -> Self {
        Self::new(Relay::to_visitor(), true)
    }

    pub fn service() -> Self {
        Self::new(Relay::to_service(key), false)
    }

    fn new(relay: Relay<Vec<u8>>, masks: bool) -> Self {
        Self {
            relay,
            masks,
            sent: Vec::new(),
            read: 0,
            ends: Ends::Stays,
            has_ended: false,
            responds: false,
            got: Vec::new(),
            shut_down: false,
            link: VecDeque::new(),
            turns: 0,
        }
    }

    pub fn sends(&mut self, frames: &[Frame]) {
        for (at, frame) in frames.iter().enumerate() {
            let key = self.masks.then_some([at as u8, 1, 0xf0, 0x3c]);
            self.sent.extend(frame.bytes(key));
        }
    }

    pub fn sends_bytes(&mut self, bytes: &[u8]) {
        self.sent.extend(bytes);
    }

    pub fn ends(&mut self, ends: Ends) {
        self.ends = ends;
    }

    pub fn responds(&mut self) {
        self.responds = true;
    }

    /// The frames that the peer has received, and the bytes of an incomplete one.
    pub fn frames(&self) -> (Vec<Frame>, Vec<u8>) {
        read_frames(&self.got, !self.masks)
    }

    pub fn is_over(&self) -> bool {
        self.relay.is_aborted() || (self.relay.is_settled() && self.relay.may_shut_down())
    }

    fn send(&mut self, sizes: &mut Sizes) -> bool {
        // Credit is granted eventually.
        self.turns += 1;
        let allowed = if self.turns.is_multiple_of(8) {
            64
        } else {
            sizes.next()
        };
        let Some(out) = self.relay.to_link(allowed) else {
            return false;
        };
        let within = |data: &[u8]| assert!(data.len() <= allowed, "no more than allowed");
        match out {
            ToLink::Frame(head, data) => {
                within(&data);
                self.link.push_back(Message::Frame(head, data.to_vec()));
            }
            ToLink::Data(data) => {
                within(&data);
                assert!(!data.is_empty());
                self.link.push_back(Message::Data(data.to_vec()));
            }
            ToLink::End => self.link.push_back(Message::End),
            ToLink::Reset(_) => {
                self.link.clear();
                self.link.push_back(Message::Reset);
            }
        }
        true
    }

    fn read(&mut self, sizes: &mut Sizes) -> bool {
        if !self.relay.wants_bytes() {
            return false;
        }
        let count = sizes.next().max(1).min(self.sent.len() - self.read);
        if count > 0 {
            let mut bytes = self.sent[self.read..self.read + count].to_vec();
            self.read += count;
            self.relay.unmask(&mut bytes);
            self.relay.on_bytes(bytes.into());
            return true;
        }
        if self.has_ended {
            return false;
        }
        match self.ends {
            Ends::Stays => return false,
            Ends::Fin => self.relay.on_socket_end(),
            Ends::Lost => self.relay.on_socket_lost(),
        }
        self.has_ended = true;
        true
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Frame(head, data) => self.relay.on_frame(&head, data),
            Message::Data(data) => self.relay.on_data(data),
            Message::End => self.relay.on_link_end(),
            Message::Reset => self.relay.on_link_failed(),
        }
    }

    fn write(&mut self, sizes: &mut Sizes) -> bool {
        assert!(!self.shut_down || self.relay.outbound().is_empty());
        let mut out = vec![0; sizes.next().max(1)];
        let count = self.relay.outbound().copy_to(&mut out);
        self.relay.on_written(count);
        self.got.extend(&out[..count]);
        let may_respond = self.responds && count > 0 && self.relay.outbound().is_empty();
        if may_respond && self.frames().0.iter().any(Frame::is_close) {
            // The peer sends its own frames before its close frame.
            self.responds = false;
            self.sends(&[Frame::close(RESPONSE)]);
        }
        if self.relay.may_shut_down() && !self.shut_down {
            self.shut_down = true;
            // The peer receives the end, and leaves.
            if self.ends == Ends::Stays {
                self.ends = Ends::Fin;
            }
            return true;
        }
        count > 0
    }
}

/// An external event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    VisitorsSideLeaves,
    ServicesSideLeaves,
    LinkFails,
}

/// Both ends of a carried WebSocket.
pub struct Carry {
    pub visitor: End,
    pub service: End,
}

impl Carry {
    pub fn new() -> Self {
        Self {
            visitor: End::visitor(),
            service: End::service(),
        }
    }

    /// Runs until nothing changes any more; `events` happen in their turns.
    pub fn run(&mut self, sizes: &mut Sizes, events: &[(usize, Event)]) {
        let mut still = 0;
        for turn in 0.. {
            assert!(turn < 10_000_000, "it comes to no end");
            let mut moved = false;
            for (_, event) in events.iter().filter(|(at, _)| *at == turn) {
                moved = true;
                match event {
                    Event::VisitorsSideLeaves => self.visitor.relay.go_away(),
                    Event::ServicesSideLeaves => self.service.relay.go_away(),
                    Event::LinkFails => {
                        self.visitor.link.clear();
                        self.service.link.clear();
                        self.visitor.relay.on_link_failed();
                        self.service.relay.on_link_failed();
                    }
                }
            }
            for (near, far) in [(0, 1), (1, 0)] {
                let (near, far) = if (near, far) == (0, 1) {
                    (&mut self.visitor, &mut self.service)
                } else {
                    (&mut self.service, &mut self.visitor)
                };
                moved |= near.send(sizes) | near.read(sizes) | near.write(sizes);
                if near.relay.wants_link()
                    && let Some(message) = far.link.pop_front()
                {
                    near.take(message);
                    moved = true;
                }
            }
            still = if moved { 0 } else { still + 1 };
            // Long enough for every size to have been used.
            if still > 300 && events.iter().all(|(at, _)| *at < turn) {
                return;
            }
        }
    }
}
