//! Parses a socket's bytes into frames and payload.

use bytes::Bytes;

use crate::{
    frame::{FrameError, FrameHead, HeadReader},
    mask::Mask,
};

/// The next output of [`Inbound`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A frame, and the start of its payload.
    Frame(FrameHead, Bytes),
    /// More payload of the same frame. Never empty.
    Data(Bytes),
}

/// Parses a socket's bytes into frames and payload.
///
/// Bytes pass through [`Inbound::unmask`] while they are mutable, and then, frozen, into [`Inbound::on_bytes`]. Heads are
/// parsed twice for that; payload that waits for credit is a slice of the read buffer.
#[derive(Debug)]
pub struct Inbound {
    unmasker: Option<Unmasker>,
    heads: HeadReader,
    bytes: Bytes,
    /// A head whose payload has not arrived yet: the two are returned together.
    held: Option<FrameHead>,
    /// Bytes of payload of the current frame that have not arrived yet.
    left: u64,
}

/// Unmasks bytes while they are still mutable, ahead of the parser.
#[derive(Debug)]
struct Unmasker {
    heads: HeadReader,
    mask: Mask,
    left: u64,
    /// The position is unknown after an invalid frame; the parser reports the error.
    lost: bool,
}

impl Inbound {
    /// `masked`: frames must be masked (from a visitor); otherwise they must not be (from a service).
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

    /// Unmasks bytes that have just been read, in order of arrival.
    pub fn unmask(&mut self, bytes: &mut [u8]) {
        if let Some(unmasker) = &mut self.unmasker {
            unmasker.apply(bytes);
        }
    }

    /// Adds bytes. The bytes added before must have been consumed ([`Inbound::is_empty`]); otherwise they are replaced.
    pub fn on_bytes(&mut self, bytes: Bytes) {
        debug_assert!(self.bytes.is_empty());
        self.bytes = bytes;
    }

    /// Whether all bytes have been consumed, except a head that waits for its payload.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that have not been consumed.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a frame has been returned whose payload has not been received completely.
    pub const fn is_in_frame(&self) -> bool {
        self.left > 0
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        self.bytes = Bytes::new();
        self.held = None;
    }

    /// The next piece, with at most `most` bytes of payload, which must not be 0. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]; no further piece can be read.
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
    fn payload_is_returned_as_it_arrives_within_the_allowance() {
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
        assert_eq!(inbound.next(9), Ok(None), "a head waits for its payload");
        assert!(
            !inbound.is_in_frame(),
            "nothing of the frame has been returned"
        );
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
    fn frames_before_an_invalid_one_are_returned() {
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
