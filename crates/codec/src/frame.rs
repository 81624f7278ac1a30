//! The framing of messages on the stream: gRPC's length prefix.
//!
//! One byte of compression flag, four bytes of big-endian length ("gRPC over HTTP/2", Length-Prefixed-Message). The
//! framed transport will have its own prefix; this file is the only one that knows the difference.

use crate::error::DecodeError;

/// Bytes before each message.
pub const PREFIX_BYTES: usize = 5;

/// The longest message (P-2.1). A message of this protocol is much shorter: its largest payload is 64 KiB.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The prefix of a message of `length` bytes.
pub(crate) fn prefix_of(length: usize) -> [u8; PREFIX_BYTES] {
    debug_assert!(length <= MAX_MESSAGE_BYTES);
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// The length a prefix announces.
pub(crate) fn read_prefix(prefix: [u8; PREFIX_BYTES], offset: u64) -> Result<usize, DecodeError> {
    let [flag, a, b, c, d] = prefix;
    if flag != 0 {
        return Err(DecodeError::Compressed { flag, offset });
    }
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(length) if length <= MAX_MESSAGE_BYTES => Ok(length),
        _ => Err(DecodeError::TooLong {
            length: u64::from(length),
            offset,
            limit: MAX_MESSAGE_BYTES as u64,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_round_trips_up_to_the_bound() {
        for length in [0, 1, 255, 256, 65_536, MAX_MESSAGE_BYTES] {
            assert_eq!(read_prefix(prefix_of(length), 9), Ok(length));
        }
    }

    #[test]
    fn prefix_above_the_bound_is_named_with_its_place() {
        let length = u32::try_from(MAX_MESSAGE_BYTES + 1).unwrap();
        let [a, b, c, d] = length.to_be_bytes();
        assert_eq!(
            read_prefix([0, a, b, c, d], 77),
            Err(DecodeError::TooLong {
                length: u64::from(length),
                offset: 77,
                limit: 1 << 20
            })
        );
    }

    #[test]
    fn a_compressed_message_is_refused() {
        assert_eq!(
            read_prefix([1, 0, 0, 0, 1], 3),
            Err(DecodeError::Compressed { flag: 1, offset: 3 })
        );
    }
}
