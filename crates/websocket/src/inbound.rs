//! From a socket's bytes to frames and payload.

use bytes::Bytes;

use crate::{
    frame::{FrameError, FrameHead, HeadReader},
    mask::Mask,
};

/// What goes on from a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A frame, and the start of its payload.
    Frame(FrameHead, Bytes),
    /// More of the payload of the frame before. Never empty.
    Data(Bytes),
}

/// Cuts a socket's bytes into frames and payload.
///
/// Bytes go through [`Inbound::unmask`] while they can still be changed, and then, as they are, into
/// [`Inbound::on_bytes`]. They are read twice so that what waits for credit is a slice like any other.
#[derive(Debug)]
pub struct Inbound {
    unmasker: Option<Unmasker>,
    heads: HeadReader,
    bytes: Bytes,
    /// A head whose payload has not begun to come: the two go on together.
    held: Option<FrameHead>,
    /// Payload of the frame that has begun to go on.
    left: u64,
}

/// Goes over the bytes ahead of everything else.
#[derive(Debug)]
struct Unmasker {
    heads: HeadReader,
    mask: Mask,
    left: u64,
    /// From a frame that cannot be read on, nothing can: whoever reads it says so.
    lost: bool,
}

impl Inbound {
    /// `masked`: from a visitor, whose frames must have a mask; else from a service, whose must not.
    pub const fn new(masked: bool) -> Self {
        let unmasker = Unmasker {
            heads: HeadReader::new(true),
            mask: Mask::new([0; 4]),
            left: 0,
            lost: false,
        };
        Self {
            unmasker: if masked { Some(unmasker) } else { None },
            heads: HeadReader::new(masked),
            bytes: Bytes::new(),
            held: None,
            left: 0,
        }
    }

    /// Takes the masks off bytes that have just come, in the order in which they came.
    pub fn unmask(&mut self, bytes: &mut [u8]) {
        if let Some(unmasker) = &mut self.unmasker {
            unmasker.apply(bytes);
        }
    }

    /// Takes bytes in, when all that came before has gone on ([`Inbound::is_empty`]); else they take its place.
    pub fn on_bytes(&mut self, bytes: Bytes) {
        debug_assert!(self.bytes.is_empty());
        self.bytes = bytes;
    }

    /// Whether all bytes have gone on, but for a head that waits for its payload.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a frame has begun to go on and has not gone on whole.
    pub const fn is_in_frame(&self) -> bool {
        self.left > 0
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        self.bytes = Bytes::new();
        self.held = None;
    }

    /// What goes on next, with at most `most` bytes of payload, which is not 0. None: more bytes are wanted.
    ///
    /// # Errors
    /// [`FrameError`]: nothing can be read any more.
    pub fn next(&mut self, most: usize) -> Result<Option<Piece>, FrameError> {
        debug_assert!(most > 0);
        if self.left > 0 {
            if self.bytes.is_empty() {
                return Ok(None);
            }
            let data = self.split(self.left, most);
            self.left -= data.len() as u64;
            return Ok(Some(Piece::Data(data)));
        }
        if self.held.is_none() && !self.bytes.is_empty() {
            let (taken, head) = self.heads.read(&self.bytes)?;
            drop(self.bytes.split_to(taken));
            self.held = head.map(|(head, _)| head);
        }
        let Some(head) = self
            .held
            .take_if(|head| head.length == 0 || !self.bytes.is_empty())
        else {
            return Ok(None);
        };
        let data = self.split(head.length, most);
        self.left = head.length - data.len() as u64;
        Ok(Some(Piece::Frame(head, data)))
    }

    fn split(&mut self, left: u64, most: usize) -> Bytes {
        let here = self.bytes.len().min(most);
        let count = usize::try_from(left).map_or(here, |left| left.min(here));
        self.bytes.split_to(count)
    }
}

impl Unmasker {
    fn apply(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() && !self.lost {
            let taken = if self.left > 0 {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX);
                let count = count.min(bytes.len());
                self.mask.apply(&mut bytes[..count]);
                self.left -= count as u64;
                count
            } else {
                match self.heads.read(bytes) {
                    Ok((taken, None)) => taken,
                    Ok((taken, Some((head, key)))) => {
                        self.mask = Mask::new(key);
                        self.left = head.length;
                        taken
                    }
                    Err(_) => {
                        self.lost = true;
                        0
                    }
                }
            };
            bytes = &mut bytes[taken..];
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn feed(inbound: &mut Inbound, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        inbound.unmask(&mut bytes);
        inbound.on_bytes(bytes.into());
    }

    #[test]
    fn a_payload_goes_on_as_it_comes_and_no_faster_than_allowed() {
        let mut inbound = Inbound::new(false);
        let head = FrameHead {
            fin: false,
            rsv: 4,
            opcode: 1,
            length: 6,
        };
        feed(&mut inbound, &[0x41]);
        assert_eq!(inbound.next(9), Ok(None));
        feed(&mut inbound, &[6]);
        assert_eq!(inbound.next(9), Ok(None), "it waits for its payload");
        assert!(!inbound.is_in_frame(), "nothing of it has gone on");
        feed(&mut inbound, b"abc");
        let start = Piece::Frame(head, Bytes::from_static(b"ab"));
        assert_eq!(inbound.next(2), Ok(Some(start)));
        assert!(inbound.is_in_frame() && !inbound.is_empty());
        let more = |data: &'static [u8]| Ok(Some(Piece::Data(Bytes::from_static(data))));
        assert_eq!(inbound.next(9), more(b"c"));
        assert_eq!(inbound.next(9), Ok(None));
        feed(&mut inbound, &[b'd', b'e', b'f', 0x89, 0]);
        assert_eq!(inbound.next(9), more(b"def"));
        assert!(!inbound.is_in_frame());
        let ping = FrameHead {
            fin: true,
            rsv: 0,
            opcode: 9,
            length: 0,
        };
        let ping = Piece::Frame(ping, Bytes::new());
        assert_eq!(inbound.next(9), Ok(Some(ping)));
        assert_eq!((inbound.next(9), inbound.is_empty()), (Ok(None), true));
    }

    #[test]
    fn what_stood_before_a_bad_frame_goes_on() {
        let mut inbound = Inbound::new(true);
        // RFC 6455, 5.7: "Hello" with a mask, and without.
        let bytes = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, 0x81, 0x05, b'x',
        ];
        feed(&mut inbound, &bytes);
        match inbound.next(99) {
            Ok(Some(Piece::Frame(_, data))) => assert_eq!(data, "Hello"),
            other => panic!("{other:?}"),
        }
        assert_eq!(inbound.next(99), Err(FrameError::Unmasked));
    }
}
