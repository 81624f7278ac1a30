//! Bytes that both ends can compute.
//!
//! The byte at an offset depends only on the offset, with a prime period: lost, repeated or swapped bytes change the
//! checksum or the length. All pieces are slices of one table, so that generating them costs nothing compared to
//! sending them.

use std::sync::LazyLock;

use blake3::{Hash, Hasher};
use bytes::{Bytes, BytesMut};

/// The period of the pattern: the largest prime below 2^20, not a multiple of any chunk or frame.
const PERIOD: usize = 1_048_573;

/// The largest piece.
const PIECE: usize = 64 * 1024;

/// The bytes of one period and one piece more, so that no piece has to wrap.
static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut table = BytesMut::with_capacity(PERIOD + PIECE + 8);
    let mut index = 0;
    while table.len() < PERIOD {
        table.extend_from_slice(&mixed(index).to_le_bytes());
        index += 1;
    }
    table.truncate(PERIOD);
    let start = Bytes::copy_from_slice(&table[..PIECE]);
    table.extend_from_slice(&start);
    table.freeze()
});

/// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
const fn mixed(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The pattern up to a length, piece by piece.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    position: usize,
    left: u64,
}

impl Pattern {
    pub(super) const fn new(length: u64) -> Self {
        Self {
            position: 0,
            left: length,
        }
    }

    /// Bytes that have not been returned yet.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }
}

impl Iterator for Pattern {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
        if length == 0 {
            return None;
        }
        let piece = TABLE.slice(self.position..self.position + length);
        self.position = (self.position + length) % PERIOD;
        self.left -= length as u64;
        Some(piece)
    }
}

/// Length and checksum of the pattern up to a length.
pub(super) fn digest(length: u64) -> Digest {
    let mut digest = Digest::default();
    for piece in Pattern::new(length) {
        digest.update(&piece);
    }
    digest
}

/// Length and checksum of received bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Digest {
    length: u64,
    hasher: Hasher,
}

impl Digest {
    pub(super) fn update(&mut self, data: &[u8]) {
        self.length += data.len() as u64;
        self.hasher.update(data);
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn checksum(&self) -> Hash {
        self.hasher.finalize()
    }

    /// Checks that this body equals the expected one.
    pub(super) fn same_as(&self, expected: &Self) -> Result<(), String> {
        if self.length != expected.length {
            return Err(format!(
                "{} bytes arrived instead of {}",
                self.length, expected.length
            ));
        }
        let (arrived, sent) = (self.checksum(), expected.checksum());
        if arrived == sent {
            Ok(())
        } else {
            Err(format!(
                "the bytes changed on the way: checksum {arrived} instead of {sent}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Digest, PERIOD, PIECE, Pattern, digest, mixed};

    fn whole(length: u64) -> Vec<u8> {
        Pattern::new(length).flatten().collect()
    }

    #[test]
    fn a_byte_depends_on_its_offset_alone() {
        let length = 2 * PERIOD + 100;
        let bytes = whole(length as u64);
        assert_eq!(bytes.len(), length);
        for (offset, byte) in bytes.iter().enumerate() {
            let at = offset % PERIOD;
            let expected = mixed((at / 8) as u64).to_le_bytes()[at % 8];
            assert_eq!(*byte, expected, "at {offset}");
        }
    }

    #[test]
    fn pieces_are_full_until_the_last() {
        let pieces: Vec<_> = Pattern::new(2 * PIECE as u64 + 1)
            .map(|piece| piece.len())
            .collect();
        assert_eq!(pieces, [PIECE, PIECE, 1]);
        assert_eq!(Pattern::new(0).next(), None);
        let mut pattern = Pattern::new(PIECE as u64);
        assert_eq!(pattern.left(), PIECE as u64);
        pattern.next().unwrap();
        assert_eq!(pattern.left(), 0);
        assert_eq!(pattern.next(), None);
    }

    #[test]
    fn the_digest_is_blake3_of_the_bytes() {
        let digest = digest(200_000);
        assert_eq!(digest.length(), 200_000);
        assert_eq!(digest.checksum(), blake3::hash(&whole(200_000)));
    }

    #[test]
    fn a_lost_byte_a_swap_and_a_change_show() {
        let expected = digest(10_000);
        let digest_of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.update(bytes);
            digest
        };
        let good = whole(10_000);
        assert_eq!(digest_of(&good).same_as(&expected), Ok(()));
        let lost = digest_of(&good[1..]).same_as(&expected).unwrap_err();
        assert_eq!(lost, "9999 bytes arrived instead of 10000");
        let mut swapped = good.clone();
        swapped.rotate_left(4096);
        assert!(
            digest_of(&swapped)
                .same_as(&expected)
                .unwrap_err()
                .contains("changed")
        );
        let mut changed = good;
        changed[9_999] ^= 1;
        assert!(
            digest_of(&changed)
                .same_as(&expected)
                .unwrap_err()
                .contains("changed")
        );
    }
}
