//! Encodes frames and payload as a socket's bytes.

use std::{collections::VecDeque, io::IoSlice};

use crate::{
    frame::{FrameHead, HeadBytes},
    mask::Mask,
};

/// A head and the payload after it. Either may be missing.
#[derive(Debug)]
struct Part<P> {
    head: HeadBytes,
    payload: Option<P>,
    /// The mask of the payload from `at` on.
    mask: Option<Mask>,
    /// Bytes of head and payload that have been written.
    at: usize,
}

impl<P: AsRef<[u8]>> Part<P> {
    fn payload(&self) -> &[u8] {
        self.payload.as_ref().map_or(&[], AsRef::as_ref)
    }

    /// The bytes that are still to be written, unmasked.
    fn rest(&self) -> (&[u8], &[u8]) {
        let (head, payload) = (self.head.as_ref(), self.payload());
        let in_payload = self.at.saturating_sub(head.len());
        (
            head.get(self.at..).unwrap_or_default(),
            payload.get(in_payload..).unwrap_or_default(),
        )
    }
}

/// Heads and payload that are written to a socket. A payload is dropped when its last byte has been written, and not before,
/// so that its drop may return credit.
#[derive(Debug)]
pub struct Outbound<P> {
    parts: VecDeque<Part<P>>,
    bytes: usize,
    /// The mask of the frame whose payload is incomplete.
    mask: Option<Mask>,
}

impl<P: AsRef<[u8]>> Outbound<P> {
    /// Creates an empty buffer.
    pub const fn new() -> Self {
        Self {
            parts: VecDeque::new(),
            bytes: 0,
            mask: None,
        }
    }

    /// A frame, and the start of its payload, which is not masked yet.
    pub fn frame(&mut self, head: &FrameHead, payload: P, key: Option<[u8; 4]>) {
        self.mask = key.map(Mask::new);
        self.put(head.encode(key), payload);
    }

    /// More of the payload of the frame before.
    pub fn data(&mut self, payload: P) {
        if !payload.as_ref().is_empty() {
            self.put(HeadBytes::default(), payload);
        }
    }

    /// A close frame that this side creates, with this code.
    pub fn close(&mut self, code: u16, key: Option<[u8; 4]>) {
        let mut head = FrameHead::CLOSE.encode(key);
        let mut code = code.to_be_bytes();
        if let Some(key) = key {
            Mask::new(key).apply(&mut code);
        }
        head.put(&code);
        self.bytes += head.as_ref().len();
        self.parts.push_back(Part {
            head,
            payload: None,
            mask: None,
            at: 0,
        });
    }

    fn put(&mut self, head: HeadBytes, payload: P) {
        let length = payload.as_ref().len();
        let mask = self.mask;
        if let Some(mask) = &mut self.mask {
            mask.skip(length);
        }
        self.bytes += head.as_ref().len() + length;
        self.parts.push_back(Part {
            head,
            payload: Some(payload),
            mask,
            at: 0,
        });
    }

    /// Bytes that are still to be written.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all has been written.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Pieces that are still to be written.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Drops everything that has not been written.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }

    /// Fills `slices` with the next bytes, without a copy; returns how many slices. For frames without a mask only.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        debug_assert!(self.mask.is_none());
        let all = self.parts.iter().flat_map(|part| {
            let (head, payload) = part.rest();
            [head, payload]
        });
        let mut count = 0;
        for (place, slice) in slices.iter_mut().zip(all.filter(|slice| !slice.is_empty())) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    /// Copies the next bytes to `out`, masked; returns how many. [`Outbound::advance`] removes them once they are written.
    pub fn copy_to(&self, mut out: &mut [u8]) -> usize {
        let room = out.len();
        for part in &self.parts {
            let (head, payload) = part.rest();
            let mut mask = part.mask;
            for (slice, is_payload) in [(head, false), (payload, true)] {
                let count = slice.len().min(out.len());
                let (here, rest) = out.split_at_mut(count);
                here.copy_from_slice(&slice[..count]);
                if let (true, Some(mask)) = (is_payload, &mut mask) {
                    mask.apply(here);
                }
                out = rest;
            }
            if out.is_empty() {
                break;
            }
        }
        room - out.len()
    }

    /// Removes the next `count` bytes, which have been written.
    pub fn advance(&mut self, mut count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        while let Some(part) = self.parts.front_mut() {
            let (head, payload) = part.rest();
            let (head, payload) = (head.len(), payload.len());
            if head + payload > count {
                part.at += count;
                if let Some(mask) = &mut part.mask {
                    mask.skip(count.saturating_sub(head));
                }
                return;
            }
            count -= head + payload;
            self.parts.pop_front();
        }
    }
}

impl<P: AsRef<[u8]>> Default for Outbound<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const KEY: [u8; 4] = [1, 2, 4, 8];

    fn head(length: u64) -> FrameHead {
        FrameHead {
            fin: true,
            rsv: 0,
            opcode: 2,
            length,
        }
    }

    fn copied<P: AsRef<[u8]>>(outbound: &Outbound<P>, room: usize) -> Vec<u8> {
        let mut out = vec![0; room];
        let count = outbound.copy_to(&mut out);
        out.truncate(count);
        out
    }

    #[test]
    fn slices_and_copies_have_the_same_bytes() {
        let mut outbound = Outbound::new();
        outbound.frame(&head(5), b"ab".to_vec(), None);
        outbound.data(Vec::new());
        outbound.data(b"cde".to_vec());
        outbound.frame(&head(0), Vec::new(), None);
        outbound.close(1001, None);
        let expected = [&[0x82, 5][..], b"abcde", &[0x82, 0], &[0x88, 2, 0x03, 0xe9]].concat();
        for at in 0..=expected.len() {
            assert_eq!(outbound.bytes(), expected.len() - at);
            assert_eq!(copied(&outbound, 100), &expected[at..], "{at}");
            assert_eq!(
                copied(&outbound, 3),
                &expected[at..(at + 3).min(expected.len())]
            );
            let mut slices = [IoSlice::new(&[]); 8];
            let count = outbound.slices(&mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(joined, &expected[at..]);
            assert!(slices[..count].iter().all(|slice| !slice.is_empty()));
            let mut two = [IoSlice::new(&[]); 2];
            assert!(outbound.slices(&mut two) <= 2);
            outbound.advance(1);
        }
        assert!(outbound.is_empty() && outbound.parts() == 0);
    }

    #[test]
    fn the_mask_continues_over_the_pieces_of_a_payload() {
        for step in 1..12 {
            let mut outbound = Outbound::new();
            outbound.frame(&head(6), b"abc".to_vec(), Some(KEY));
            outbound.data(b"def".to_vec());
            outbound.close(1002, Some([0, 0, 1, 1]));
            let mut out = Vec::new();
            while !outbound.is_empty() {
                let piece = copied(&outbound, step);
                outbound.advance(piece.len());
                out.extend(piece);
            }
            let mut payload = *b"abcdef";
            Mask::new(KEY).apply(&mut payload);
            let expected = [
                &[0x82, 0x86, 1, 2, 4, 8][..],
                &payload,
                &[0x88, 0x82, 0, 0, 1, 1, 0x03, 0xea],
            ]
            .concat();
            assert_eq!(out, expected, "{step}");
        }
    }

    #[test]
    fn a_payload_is_dropped_with_its_last_byte() {
        struct Counted {
            _alive: Rc<()>,
            bytes: Vec<u8>,
        }
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        let alive = Rc::new(());
        let counted = |bytes| Counted {
            _alive: alive.clone(),
            bytes,
        };
        let mut outbound = Outbound::new();
        outbound.frame(&head(0), counted(Vec::new()), None);
        outbound.frame(&head(2), counted(vec![1, 2]), None);
        assert_eq!(Rc::strong_count(&alive), 3);
        outbound.advance(1);
        assert_eq!(Rc::strong_count(&alive), 3, "half of a head");
        outbound.advance(1);
        assert_eq!(Rc::strong_count(&alive), 2, "an empty frame is its head");
        outbound.advance(3);
        assert_eq!(Rc::strong_count(&alive), 2);
        outbound.advance(1);
        assert_eq!(Rc::strong_count(&alive), 1);
    }
}
