//! The head of a frame (RFC 6455, 5.2).

use thiserror::Error;

/// The longest head: two bytes, a length of eight, a mask of four.
pub const MAX_HEAD_BYTES: usize = 14;

/// The longest payload of a control frame (RFC 6455, 5.5).
pub const MAX_CONTROL_BYTES: u64 = 125;

/// The opcode of a close frame (RFC 6455, 5.5.1).
pub const OPCODE_CLOSE: u8 = 8;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// The length follows in two bytes.
const LENGTH_16: u8 = 126;
/// The length follows in eight bytes.
const LENGTH_64: u8 = 127;

/// Why bytes are not a frame that can be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum FrameError {
    /// A visitor's frame without a mask (RFC 6455, 5.1).
    #[error("a frame without a mask")]
    Unmasked,
    /// A service's frame with a mask (RFC 6455, 5.1).
    #[error("a frame with a mask")]
    Masked,
    /// A length that would have fitted into fewer bytes (RFC 6455, 5.2).
    #[error("a length that is not written in as few bytes as it can be")]
    NotShortest,
    /// A length above 2^63 - 1 (RFC 6455, 5.2).
    #[error("a length above 2^63 - 1")]
    TooLong,
    /// A control frame of more than 125 bytes (RFC 6455, 5.5).
    #[error("a control frame of more than 125 bytes")]
    LongControl,
    /// A control frame that is not the last of its message (RFC 6455, 5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// Valid frames with too little content (P-9.7).
    #[error("too many frames without content")]
    WithoutContent,
}

/// The head of one frame, without the mask: each hop has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Whether the frame is the last one of its message.
    pub fin: bool,
    /// RSV1 to RSV3, as a number from 0 to 7: RSV1 is 4.
    pub rsv: u8,
    /// 0 to 15.
    pub opcode: u8,
    /// The length of the payload in bytes; below 2^63.
    pub length: u64,
}

impl FrameHead {
    /// The head of a complete close frame whose payload is only a code.
    pub const CLOSE: Self = Self {
        fin: true,
        rsv: 0,
        opcode: OPCODE_CLOSE,
        length: 2,
    };

    /// Whether the frame is a control frame: one that may stand between the fragments of a message.
    pub const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// Whether the frame is a close frame.
    pub const fn is_close(&self) -> bool {
        self.opcode == OPCODE_CLOSE
    }

    /// The encoding on the wire, with the mask's key if there is one.
    pub fn encode(&self, key: Option<[u8; 4]>) -> HeadBytes {
        let mut out = HeadBytes::default();
        let fin = if self.fin { FIN } else { 0 };
        let masked = if key.is_some() { MASKED } else { 0 };
        out.put(&[fin | (self.rsv & 7) << 4 | self.opcode & 15]);
        match u16::try_from(self.length) {
            Ok(length @ 0..=125) => out.put(&[masked | length.to_be_bytes()[1]]),
            Ok(length) => {
                out.put(&[masked | LENGTH_16]);
                out.put(&length.to_be_bytes());
            }
            Err(_) => {
                out.put(&[masked | LENGTH_64]);
                out.put(&self.length.to_be_bytes());
            }
        }
        if let Some(key) = key {
            out.put(&key);
        }
        out
    }
}

/// The bytes of one head.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadBytes {
    bytes: [u8; MAX_HEAD_BYTES],
    length: u8,
}

impl HeadBytes {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes[usize::from(self.length)..].iter_mut().zip(bytes) {
            *place = *byte;
            self.length += 1;
        }
    }
}

impl AsRef<[u8]> for HeadBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Reads heads from bytes that arrive in pieces.
#[derive(Debug, Clone)]
pub struct HeadReader {
    /// The bytes of an incomplete head.
    bytes: [u8; MAX_HEAD_BYTES],
    length: usize,
    wants_mask: bool,
}

impl HeadReader {
    /// A parser of frames that must have a mask (a visitor's), or must not (a service's).
    pub const fn new(wants_mask: bool) -> Self {
        Self {
            bytes: [0; MAX_HEAD_BYTES],
            length: 0,
            wants_mask,
        }
    }

    /// Continues to read a head. Returns how many of `bytes` belong to it, and the head with its mask's key once it is
    /// complete. All bytes belong to a head that is incomplete.
    ///
    /// # Errors
    /// [`FrameError`]; where the next frame would begin is not known then.
    #[allow(clippy::type_complexity)]
    pub fn read(
        &mut self,
        bytes: &[u8],
    ) -> Result<(usize, Option<(FrameHead, [u8; 4])>), FrameError> {
        let mut taken = 0;
        loop {
            let wanted = self.wanted();
            let part = (wanted - self.length).min(bytes.len() - taken);
            self.bytes[self.length..self.length + part]
                .copy_from_slice(&bytes[taken..taken + part]);
            self.length += part;
            taken += part;
            if self.length < wanted {
                return Ok((taken, None));
            }
            if wanted == 2 {
                self.check_start()?;
            }
            if wanted == self.wanted() {
                self.length = 0;
                return self.head().map(|head| (taken, Some(head)));
            }
        }
    }

    /// Bytes of the head, as far as it is known.
    const fn wanted(&self) -> usize {
        if self.length < 2 {
            return 2;
        }
        let length = match self.bytes[1] & !MASKED {
            LENGTH_16 => 4,
            LENGTH_64 => 10,
            _ => 2,
        };
        if self.wants_mask { length + 4 } else { length }
    }

    /// Checks what the first two bytes determine.
    const fn check_start(&self) -> Result<(), FrameError> {
        let [first, second, ..] = self.bytes;
        match (second & MASKED != 0, self.wants_mask) {
            (false, true) => return Err(FrameError::Unmasked),
            (true, false) => return Err(FrameError::Masked),
            _ => {}
        }
        if first & 8 != 0 {
            if first & FIN == 0 {
                return Err(FrameError::FragmentedControl);
            }
            if second & !MASKED > 125 {
                return Err(FrameError::LongControl);
            }
        }
        Ok(())
    }

    fn head(&self) -> Result<(FrameHead, [u8; 4]), FrameError> {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.bytes;
        let (length, mask_at) = match second & !MASKED {
            LENGTH_16 => {
                let length = u64::from(u16::from_be_bytes([a, b]));
                if length < u64::from(LENGTH_16) {
                    return Err(FrameError::NotShortest);
                }
                (length, 4)
            }
            LENGTH_64 => {
                let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                if length >> 63 != 0 {
                    return Err(FrameError::TooLong);
                }
                if length >> 16 == 0 {
                    return Err(FrameError::NotShortest);
                }
                (length, 10)
            }
            length => (u64::from(length), 2),
        };
        let mut key = [0; 4];
        if self.wants_mask {
            key.copy_from_slice(&self.bytes[mask_at..mask_at + 4]);
        }
        let head = FrameHead {
            fin: first & FIN != 0,
            rsv: first >> 4 & 7,
            opcode: first & 15,
            length,
        };
        Ok((head, key))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn head(fin: bool, rsv: u8, opcode: u8, length: u64) -> FrameHead {
        FrameHead {
            fin,
            rsv,
            opcode,
            length,
        }
    }

    /// Each row: a clause of RFC 6455, a head and its bytes, without a mask.
    #[rustfmt::skip]
    fn legal() -> Vec<(&'static str, FrameHead, Vec<u8>)> {
        vec![
            ("5.7, a single-frame text message", head(true, 0, 1, 5), vec![0x81, 0x05]),
            ("5.7, a fragment", head(false, 0, 1, 3), vec![0x01, 0x03]),
            ("5.7, a continuation", head(true, 0, 0, 2), vec![0x80, 0x02]),
            ("5.7, a ping", head(true, 0, 9, 5), vec![0x89, 0x05]),
            ("5.7, a pong", head(true, 0, 10, 5), vec![0x8a, 0x05]),
            ("5.7, 256 bytes", head(true, 0, 2, 256), vec![0x82, 0x7e, 0x01, 0x00]),
            ("5.7, 64 KiB", head(true, 0, 2, 65536), vec![0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]),
            ("5.2, RSV1", head(true, 4, 1, 0), vec![0xc1, 0x00]),
            ("5.2, RSV2", head(true, 2, 1, 0), vec![0xa1, 0x00]),
            ("5.2, RSV3", head(true, 1, 1, 0), vec![0x91, 0x00]),
            ("5.2, a reserved opcode", head(false, 7, 7, 0), vec![0x77, 0x00]),
            ("5.2, a reserved control opcode", head(true, 0, 15, 0), vec![0x8f, 0x00]),
            ("5.2, the longest in 7 bits", head(true, 0, 2, 125), vec![0x82, 0x7d]),
            ("5.2, the shortest in 16 bits", head(true, 0, 2, 126), vec![0x82, 0x7e, 0, 126]),
            ("5.2, the longest in 16 bits", head(true, 0, 2, 65535), vec![0x82, 0x7e, 0xff, 0xff]),
            ("5.2, the longest of all", head(false, 0, 2, i64::MAX.cast_unsigned()),
                [&[0x02, 0x7f, 0x7f][..], &[0xff; 7]].concat()),
            ("5.5, the longest control frame", head(true, 0, 9, 125), vec![0x89, 0x7d]),
            ("5.5.1, close", FrameHead::CLOSE, vec![0x88, 0x02]),
        ]
    }

    fn masked(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[1] |= 0x80;
        bytes.extend(KEY);
        bytes
    }

    #[test]
    fn heads_are_written_and_read_by_rfc_6455() {
        for (clause, head, bytes) in legal() {
            assert_eq!(head.encode(None).as_ref(), bytes, "{clause}");
            assert_eq!(
                head.encode(Some(KEY)).as_ref(),
                masked(bytes.clone()),
                "{clause}"
            );
            for (wants_mask, bytes, key) in [
                (false, bytes.clone(), [0; 4]),
                (true, masked(bytes.clone()), KEY),
            ] {
                let mut reader = HeadReader::new(wants_mask);
                let (last, start) = bytes.split_last().unwrap();
                for byte in start {
                    assert_eq!(reader.read(&[*byte]), Ok((1, None)), "{clause}");
                }
                let whole = Ok((1, Some((head, key))));
                assert_eq!(reader.read(&[*last, 1, 2]), whole, "{clause}");
                // The reader begins with a new head.
                let more = [&bytes[..], b"payload"].concat();
                assert_eq!(reader.read(&more), Ok((bytes.len(), Some((head, key)))));
            }
        }
    }

    #[test]
    fn what_is_no_head_is_refused_with_its_clause() {
        use FrameError::*;
        #[rustfmt::skip]
        let rows: [(&str, bool, &[u8], FrameError); 11] = [
            ("5.1: a client masks all frames", true, &[0x81, 0x05], Unmasked),
            ("5.1: a server masks none", false, &[0x81, 0x85], Masked),
            ("5.2: the minimal number of bytes", false, &[0x82, 0x7e, 0, 125], NotShortest),
            ("5.2: the minimal number of bytes", false, &[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], NotShortest),
            ("5.2: the minimal number of bytes", true, &[0x82, 0xfe, 0, 0, 1, 2, 3, 4], NotShortest),
            ("5.2: the most significant bit must be 0", false, &[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], TooLong),
            ("5.5: 125 bytes or less", false, &[0x88, 0x7e], LongControl),
            ("5.5: 125 bytes or less", true, &[0x89, 0xff], LongControl),
            ("5.5: not fragmented", false, &[0x08, 0x00], FragmentedControl),
            ("5.5: not fragmented", true, &[0x09, 0x80], FragmentedControl),
            ("5.5: control frames are those with the high bit", true, &[0x0f, 0x80], FragmentedControl),
        ];
        for (clause, wants_mask, bytes, error) in rows {
            assert_eq!(
                HeadReader::new(wants_mask).read(bytes),
                Err(error),
                "{clause}"
            );
        }
    }

    #[test]
    fn what_the_first_two_bytes_show_is_not_waited_for() {
        let mut reader = HeadReader::new(true);
        assert_eq!(reader.read(&[0x81]), Ok((1, None)));
        assert_eq!(reader.read(&[0x7e]), Err(FrameError::Unmasked));
    }

    #[test]
    fn numbers_out_of_their_range_do_not_spill() {
        let odd = head(false, 0xff, 0xff, 0).encode(None);
        assert_eq!(odd.as_ref(), [0x7f, 0x00]);
    }
}
