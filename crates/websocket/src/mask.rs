//! The mask over a visitor's payload (RFC 6455, 5.3).

/// The mask of one payload, which may arrive in pieces. Applied to masked bytes it removes the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// The mask, rotated so that its first byte belongs to the next byte of payload.
    key: [u8; 4],
}

impl Mask {
    /// Creates the mask for the start of a payload.
    pub const fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Masks or unmasks the next bytes of the payload.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.key;
        // 32 bytes are masked at a time, which the compiler vectorizes.
        let wide: [u8; 32] = std::array::from_fn(|at| self.key[at % 4]);
        let (words, rest) = bytes.as_chunks_mut::<32>();
        for word in words {
            for (byte, key) in word.iter_mut().zip(wide) {
                *byte ^= key;
            }
        }
        for (byte, key) in rest.iter_mut().zip([a, b, c, d].iter().cycle()) {
            *byte ^= key;
        }
        self.skip(rest.len());
    }

    /// Skips bytes.
    pub fn skip(&mut self, count: usize) {
        self.key.rotate_left(count % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masked_frame_of_the_rfc_is_unmasked() {
        // RFC 6455, 5.7.
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        Mask::new([0x37, 0xfa, 0x21, 0x3d]).apply(&mut bytes);
        assert_eq!(&bytes, b"Hello");
    }

    #[test]
    fn a_payload_may_be_split_anywhere() {
        let key = [1, 2, 4, 8];
        let naive = |at: usize| key[at % 4];
        for length in [0, 1, 3, 4, 5, 31, 32, 33, 63, 64, 65, 100] {
            for cut in 0..=length {
                let mut bytes = vec![0; length];
                let mut mask = Mask::new(key);
                let (start, end) = bytes.split_at_mut(cut);
                mask.apply(start);
                mask.apply(end);
                let expected: Vec<u8> = (0..length).map(naive).collect();
                assert_eq!(bytes, expected, "{length} at {cut}");
                let mut skipped = Mask::new(key);
                skipped.skip(length);
                assert_eq!(skipped, mask);
            }
        }
    }
}
