//! Messages of protobuf, written in one go.
//!
//! Spans are built at the end of each request that is traced, on the thread that moves data. As values of generated types
//! each of them is some forty small allocations, which are cloned for each try and measured once for each level that
//! they are nested in; here they are appended to one buffer and never looked at again. What is written is the encoding of
//! protobuf (<https://protobuf.dev/programming-guides/encoding/>), by the functions that prost's generated types use.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// A message in the making.
#[derive(Debug, Default, Clone)]
pub(super) struct Wire(Vec<u8>);

impl Wire {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_inner(self) -> Vec<u8> {
        self.0
    }

    /// A number, or a member of an enumeration.
    pub(super) fn varint(&mut self, field: u8, number: u64) {
        self.tag(field, WireType::Varint);
        encode_varint(number, &mut self.0);
    }

    pub(super) fn fixed64(&mut self, field: u8, number: u64) {
        self.tag(field, WireType::SixtyFourBit);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u8, number: u32) {
        self.tag(field, WireType::ThirtyTwoBit);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn double(&mut self, field: u8, number: f64) {
        self.fixed64(field, number.to_bits());
    }

    pub(super) fn text(&mut self, field: u8, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(super) fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.begin(field, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Fields that are written already.
    pub(super) fn fields(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// The tag and the length of a message whose fields come next.
    pub(super) fn begin(&mut self, field: u8, length: usize) {
        self.tag(field, WireType::LengthDelimited);
        encode_varint(length as u64, &mut self.0);
    }

    /// A message whose length is known when it is written. It costs least when it takes as many bytes as `about`.
    pub(super) fn message(&mut self, field: u8, about: usize, write: impl FnOnce(&mut Self)) {
        self.tag(field, WireType::LengthDelimited);
        let at = self.0.len();
        let kept = encoded_len_varint(about as u64);
        self.0.resize(at + kept, 0);
        write(self);
        let length = self.0.len() - at - kept;
        let (prefix, needed) = (at..at + kept, encoded_len_varint(length as u64));
        if needed != kept {
            self.0.splice(prefix, std::iter::repeat_n(0, needed));
        }
        if let Some(mut prefix) = self.0.get_mut(at..at + needed) {
            encode_varint(length as u64, &mut prefix);
        }
    }

    fn tag(&mut self, field: u8, kind: WireType) {
        encode_key(u32::from(field), kind, &mut self.0);
    }
}

/// How many bytes a field of bytes takes, with its tag.
pub(super) fn field_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_long_it_is() {
        let lengths = [0, 1, 127, 128, 16_383, 16_384, 100_000];
        let all = lengths
            .into_iter()
            .flat_map(|length| lengths.map(|about| (length, about)));
        for (length, about) in all {
            let mut wire = Wire::default();
            wire.varint(1, 7);
            wire.message(2, about, |message| {
                message.0.resize(message.0.len() + length, b'x');
            });
            wire.fixed32(3, 9);
            let mut known = Wire::default();
            known.varint(1, 7);
            known.bytes(2, &vec![b'x'; length]);
            known.fixed32(3, 9);
            assert_eq!(wire.0, known.0, "{length}");
            assert_eq!(known.0.len(), 2 + field_bytes(length) + 5);
        }
    }
}
