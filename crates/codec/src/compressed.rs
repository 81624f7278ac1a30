//! The compression fields of a message (section 13 of the protocol). The compression itself is done elsewhere.

use crate::{
    error::BadMessage,
    id::Compression,
    wire::{Put, low_32, put_uint},
};

pub(crate) const INFLATED_BYTES_FIELD: u8 = 22;
pub(crate) const COMPRESSION_FIELD: u8 = 23;

/// The largest inflated size of one message (P-13.2): the largest payload that senders put into one (P-2.1).
pub const MAX_INFLATED_BYTES: usize = 64 * 1024;

/// The algorithm of compressed payload, and its inflated size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// The algorithm.
    pub by: Compression,
    /// The inflated size of the payload: 1 to [`MAX_INFLATED_BYTES`], and greater than the compressed size.
    pub inflated_bytes: u32,
}

impl Compressed {
    /// The inflated size.
    pub const fn inflated_len(self) -> usize {
        self.inflated_bytes as usize
    }

    /// Reads the two fields; `None` when the message has neither.
    pub(crate) fn read(inflated_bytes: u64, by: u64) -> Result<Option<Self>, BadMessage> {
        let (inflated_bytes, by) = (low_32(inflated_bytes), low_32(by));
        if inflated_bytes == 0 && by == 0 {
            return Ok(None);
        }
        match (Compression::from_wire(by), u32::try_from(inflated_bytes)) {
            (Some(by), Ok(inflated_bytes)) => Ok(Some(Self { by, inflated_bytes })),
            _ => Err(BadMessage::Compression),
        }
    }

    /// Whether a compressed size of `length` bytes is valid, as the start of a payload of `whole` bytes.
    pub(crate) fn holds(self, length: usize, whole: u64) -> bool {
        let before = self.inflated_len();
        length < before && before <= MAX_INFLATED_BYTES && before as u64 <= whole
    }

    pub(crate) fn put(self, out: &mut impl Put) {
        put_uint(out, INFLATED_BYTES_FIELD, u64::from(self.inflated_bytes));
        put_uint(out, COMPRESSION_FIELD, u64::from(self.by.to_wire()));
    }
}
