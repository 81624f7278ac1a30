//! The bytes of every body, which both ends know.
//!
//! The service sends these bytes and the generator compares the received bytes with them, so a byte that a tunnel
//! loses, duplicates, swaps or inserts is an error of the run. The comparison is one `memcmp` per read, which is cheap
//! enough for every run.

use std::sync::OnceLock;

/// The number of bytes after which the pattern repeats. It is prime, so that a tunnel that drops or duplicates a whole
/// buffer (whose length is a round number) shifts the pattern.
const PERIOD: usize = 65_521;

/// The longest piece that [`Pattern::piece`] returns at once.
pub(crate) const PIECE: usize = 256 * 1024;

/// An endless, repeating body.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// One period, followed by as many bytes as a piece can have: a piece that starts anywhere in the period is
    /// contiguous.
    bytes: Box<[u8]>,
}

impl Pattern {
    /// The one pattern of this process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Pattern> = OnceLock::new();
        SHARED.get_or_init(Self::build)
    }

    /// The offset of the bytes of exchange `number`: as many exchanges as the period is long have different offsets, so
    /// that a response to another request is not taken for the right one.
    pub(crate) fn place(number: u64) -> u64 {
        (number % PERIOD as u64) * 7_919 % PERIOD as u64
    }

    fn build() -> Self {
        // xorshift64 (Marsaglia 2003): any fixed sequence is suitable if a tunnel cannot compress it.
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        let bytes = period
            .iter()
            .copied()
            .cycle()
            .take(PERIOD + PIECE)
            .collect();
        Self { bytes }
    }

    /// The bytes from `offset` of the body, `len` bytes or [`PIECE`] if that is fewer.
    pub(crate) fn piece(&self, offset: u64, len: u64) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
        let len = usize::try_from(len).unwrap_or(PIECE).min(PIECE);
        &self.bytes[start..start + len]
    }

    /// Whether `got` equals the body at `offset`.
    pub(crate) fn matches(&self, offset: u64, got: &[u8]) -> bool {
        let mut offset = offset;
        got.chunks(PIECE).all(|chunk| {
            let same = self.piece(offset, chunk.len() as u64) == chunk;
            offset += chunk.len() as u64;
            same
        })
    }
}

/// An incremental checksum of a body, independent of how the body is split: FNV-1a over little-endian 64-bit words. It
/// detects accidental changes, not deliberate ones.
#[derive(Debug, Clone)]
pub(crate) struct Checksum {
    state: u64,
    /// Bytes that do not fill a word yet.
    rest: [u8; 8],
    rest_len: usize,
    bytes: u64,
}

impl Checksum {
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// The checksum of an empty body.
    pub(crate) fn new() -> Self {
        Self {
            state: 0xcbf2_9ce4_8422_2325,
            rest: [0; 8],
            rest_len: 0,
            bytes: 0,
        }
    }

    /// Adds the next bytes of the body.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.rest_len > 0 {
            let take = bytes.len().min(8 - self.rest_len);
            self.rest[self.rest_len..self.rest_len + take].copy_from_slice(&bytes[..take]);
            self.rest_len += take;
            bytes = &bytes[take..];
            if self.rest_len < 8 {
                return;
            }
            self.state = Self::step(self.state, self.rest);
            self.rest_len = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.state = Self::step(self.state, *word);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    /// The number of bytes, and their checksum.
    pub(crate) fn finish(&self) -> (u64, u64) {
        let mut last = [0; 8];
        last[..self.rest_len].copy_from_slice(&self.rest[..self.rest_len]);
        let state = Self::step(self.state, last);
        // The length is included, because zeros at the end would not change the checksum.
        (self.bytes, Self::step(state, self.bytes.to_le_bytes()))
    }

    fn step(state: u64, word: [u8; 8]) -> u64 {
        // The shift moves high bits down, because multiplication only moves bits up.
        let mixed = (state ^ u64::from_le_bytes(word)).wrapping_mul(Self::PRIME);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_continues_where_the_last_one_ended() {
        let pattern = Pattern::shared();
        let mut joined = Vec::new();
        while joined.len() < 3 * PERIOD {
            joined.extend_from_slice(pattern.piece(joined.len() as u64, 1_000));
        }
        assert!(pattern.matches(0, &joined));
        assert_eq!(joined[..PERIOD], joined[PERIOD..2 * PERIOD]);
    }

    #[test]
    fn a_piece_is_never_longer_than_promised() {
        assert_eq!(
            Pattern::shared().piece(PERIOD as u64 - 1, u64::MAX).len(),
            PIECE
        );
        assert_eq!(Pattern::shared().piece(7, 0).len(), 0);
    }

    #[test]
    fn exchanges_do_not_share_a_place() {
        let places: std::collections::BTreeSet<u64> =
            (0..PERIOD as u64).map(Pattern::place).collect();
        assert_eq!(places.len(), PERIOD);
        assert!(Pattern::place(u64::MAX) < PERIOD as u64);
    }

    #[test]
    fn one_wrong_byte_or_one_lost_buffer_is_seen() {
        let pattern = Pattern::shared();
        let mut body = pattern.piece(0, 100_000).to_vec();
        assert!(pattern.matches(0, &body));
        assert!(!pattern.matches(1, &body));
        assert!(!pattern.matches(64 * 1024, &body));
        body[99_999] ^= 1;
        assert!(!pattern.matches(0, &body));
    }

    #[test]
    fn the_checksum_does_not_depend_on_the_pieces() {
        let body = Pattern::shared().piece(0, 10_007);
        let mut whole = Checksum::new();
        whole.update(body);
        for size in [1, 3, 8, 13, 4_096] {
            let mut pieces = Checksum::new();
            for chunk in body.chunks(size) {
                pieces.update(chunk);
            }
            assert_eq!(pieces.finish(), whole.finish(), "pieces of {size}");
        }
        assert_eq!(whole.finish().0, 10_007);
    }

    #[test]
    fn the_checksum_sees_order_length_and_value() {
        let sum = |bytes: &[u8]| {
            let mut sum = Checksum::new();
            sum.update(bytes);
            sum.finish().1
        };
        assert_ne!(sum(b"ab"), sum(b"ba"));
        assert_ne!(sum(b"ab"), sum(b"ab\0"));
        assert_ne!(sum(b"abcdefgh12345678"), sum(b"12345678abcdefgh"));
        assert_ne!(sum(b""), sum(b"\0"));
    }
}
