//! Protobuf's wire format, as much of it as one envelope needs.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

#[cfg(test)]
use bytes::BytesMut;

use crate::error::BadMessage;

/// A varint is at most this long.
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Bytes that [`put_length_gap`] reserves for a length that is not known yet.
pub(crate) const LENGTH_GAP: usize = 3;

pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const LENGTH_DELIMITED: u8 = 2;
pub(crate) const FIXED32: u8 = 5;

/// The key of a length-delimited field with a number below 16.
pub(crate) const fn length_key(field: u8) -> u8 {
    (field << 3) | LENGTH_DELIMITED
}

/// A target of fields: a `Vec`, or the start of a message. A `BytesMut` is a target in tests only: each append to it is a
/// call, so its content is gathered first.
pub(crate) trait Put {
    /// Appends one byte.
    fn byte(&mut self, byte: u8);
    /// Appends bytes.
    fn slice(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
impl Put for BytesMut {
    fn byte(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[allow(clippy::cast_possible_truncation)] // the low seven bits are what is wanted
pub(crate) fn put_varint(out: &mut impl Put, mut value: u64) {
    while value >= 0x80 {
        out.byte((value as u8) | 0x80);
        value >>= 7;
    }
    out.byte(value as u8);
}

pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

pub(crate) fn put_uint(out: &mut impl Put, field: u8, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(field << 3));
        put_varint(out, value);
    }
}

pub(crate) fn put_bytes(out: &mut impl Put, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.byte(length_key(field));
        put_varint(out, bytes.len() as u64);
        out.slice(bytes);
    }
}

/// Starts a field whose length is filled in by [`fill_length_gap`]: a varint padded to three bytes, which every decoder
/// accepts and which saves a second pass over the content.
pub(crate) fn put_length_gap(out: &mut Vec<u8>, field: u8) -> usize {
    put_varint(out, (u64::from(field) << 3) | u64::from(LENGTH_DELIMITED));
    out.extend_from_slice(&[0; LENGTH_GAP]);
    out.len()
}

/// Fills the gap in front of `start` with the number of bytes written since.
#[allow(clippy::cast_possible_truncation)] // each byte takes seven bits
pub(crate) fn fill_length_gap(out: &mut [u8], start: usize) {
    let length = out.len() - start;
    debug_assert!(length < 1 << (7 * LENGTH_GAP));
    out[start - 3] = (length as u8) | 0x80;
    out[start - 2] = ((length >> 7) as u8) | 0x80;
    out[start - 1] = ((length >> 14) as u8) & 0x7f;
}

/// The value of a 32-bit field from a varint: the low half, as every protobuf reader takes it.
pub(crate) const fn low_32(value: u64) -> u64 {
    value & 0xffff_ffff
}

/// Reads fields of one message. The last field stays here, so that a step returns only a flag: a field that is returned
/// through memory is read back before it has been stored.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    field: u64,
    wire_type: u8,
    /// The value of a number; for a field with a length, the start of its bytes, which end at `at`.
    number: u64,
    from: usize,
}

/// The value of one field: a number, or the position of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Varint(u64),
    Range(usize, usize),
    Fixed,
}

impl Value {
    pub(crate) fn varint(self) -> Result<u64, BadMessage> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(BadMessage::WireType),
        }
    }

    pub(crate) fn range(self) -> Result<(usize, usize), BadMessage> {
        match self {
            Self::Range(from, to) => Ok((from, to)),
            _ => Err(BadMessage::WireType),
        }
    }
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: 0,
            field: 0,
            wire_type: VARINT,
            number: 0,
            from: 0,
        }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.at
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, BadMessage> {
        // Keys, types and most lengths have one byte, ids and the other lengths usually two.
        match self.input.get(self.at..) {
            Some(&[first, ..]) if first < 0x80 => {
                self.at += 1;
                Ok(u64::from(first))
            }
            Some(&[first, second, ..]) if second < 0x80 => {
                self.at += 2;
                Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            // Lengths that were filled in later have three.
            Some(&[first, second, third, ..]) if third < 0x80 => {
                self.at += 3;
                Ok(
                    u64::from(first & 0x7f)
                        | u64::from(second & 0x7f) << 7
                        | u64::from(third) << 14,
                )
            }
            rest => self.long_varint(rest.unwrap_or_default()),
        }
    }

    #[cold]
    fn long_varint(&mut self, rest: &[u8]) -> Result<u64, BadMessage> {
        let mut value = 0u64;
        for (index, &byte) in rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if index == MAX_VARINT_BYTES - 1 && byte > 1 {
                return Err(BadMessage::Varint);
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(if rest.len() >= MAX_VARINT_BYTES {
            BadMessage::Varint
        } else {
            BadMessage::Truncated
        })
    }

    /// Skips these bytes if they are the next ones.
    #[inline]
    pub(crate) fn skip_exactly<const N: usize>(&mut self, bytes: [u8; N]) -> bool {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let found = rest.first_chunk() == Some(&bytes);
        self.at += if found { N } else { 0 };
        found
    }

    /// Field number and wire type of the next field; `None` at the end.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Option<(u64, u8)>, BadMessage> {
        if self.at >= self.input.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = key >> 3;
        if field == 0 || key > u64::from(u32::MAX) {
            return Err(BadMessage::FieldZero);
        }
        Ok(Some((field, (key & 7) as u8)))
    }

    /// Length of a length-delimited field, checked only against `usize`.
    pub(crate) fn length(&mut self) -> Result<usize, BadMessage> {
        usize::try_from(self.varint()?).map_err(|_| BadMessage::Truncated)
    }

    /// The value after a key.
    #[inline]
    pub(crate) fn value(&mut self, wire_type: u8) -> Result<Value, BadMessage> {
        match wire_type {
            VARINT => Ok(Value::Varint(self.varint()?)),
            FIXED64 => self.skip(8).map(|()| Value::Fixed),
            FIXED32 => self.skip(4).map(|()| Value::Fixed),
            LENGTH_DELIMITED => {
                let length = self.length()?;
                let from = self.at;
                self.skip(length)?;
                Ok(Value::Range(from, self.at))
            }
            _ => Err(BadMessage::WireType),
        }
    }

    /// The next field; `None` at the end.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<(u64, Value)>, BadMessage> {
        if !self.step()? {
            return Ok(None);
        }
        let value = match self.wire_type {
            VARINT => Value::Varint(self.number),
            LENGTH_DELIMITED => Value::Range(self.from, self.at),
            _ => Value::Fixed,
        };
        Ok(Some((self.field, value)))
    }

    /// Reads the next field; false at the end.
    fn step(&mut self) -> Result<bool, BadMessage> {
        let Some((field, wire_type)) = self.key()? else {
            return Ok(false);
        };
        (self.field, self.wire_type) = (field, wire_type);
        match self.value(wire_type)? {
            Value::Varint(number) => self.number = number,
            Value::Range(from, _) => self.from = from,
            Value::Fixed => {}
        }
        Ok(true)
    }

    fn skip(&mut self, length: usize) -> Result<(), BadMessage> {
        match self.at.checked_add(length) {
            Some(end) if end <= self.input.len() => {
                self.at = end;
                Ok(())
            }
            _ => Err(BadMessage::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.offset(), out.len());
        }
    }

    #[test]
    fn endless_and_cut_varints_are_distinguished() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(BadMessage::Varint));
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(BadMessage::Varint));
        assert_eq!(Reader::new(&[0xff; 9]).varint(), Err(BadMessage::Truncated));
        assert_eq!(Reader::new(&[]).varint(), Err(BadMessage::Truncated));
        let mut too_big = [0xff; 10];
        too_big[9] = 2;
        assert_eq!(Reader::new(&too_big).varint(), Err(BadMessage::Varint));
    }

    #[test]
    fn a_padded_length_reads_as_the_number() {
        for length in [0usize, 1, 127, 128, 20_000, (1 << 21) - 1] {
            let mut out = Vec::new();
            let start = put_length_gap(&mut out, 6);
            out.resize(start + length, 7);
            fill_length_gap(&mut out, start);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.field(), Ok(Some((6, Value::Range(4, 4 + length)))));
            assert_eq!(reader.field(), Ok(None));
        }
    }

    #[test]
    fn a_length_follows_the_key_of_every_payload_field() {
        for field in 1..=31 {
            let mut out = Vec::new();
            let start = put_length_gap(&mut out, field);
            out.push(7);
            fill_length_gap(&mut out, start);
            let content = Value::Range(start, start + 1);
            assert_eq!(
                Reader::new(&out).field(),
                Ok(Some((u64::from(field), content)))
            );
        }
    }

    #[test]
    fn bad_fields_are_named() {
        assert_eq!(Reader::new(&[0x02]).field(), Err(BadMessage::FieldZero));
        let most = [0xf8, 0xff, 0xff, 0xff, 0x0f, 5];
        let field = Ok(Some(((1 << 29) - 1, Value::Varint(5))));
        assert_eq!(Reader::new(&most).field(), field);
        let above = [0x80, 0x80, 0x80, 0x80, 0x10, 5];
        assert_eq!(Reader::new(&above).field(), Err(BadMessage::FieldZero));
        assert_eq!(Reader::new(&[0x0b]).field(), Err(BadMessage::WireType));
        assert_eq!(
            Reader::new(&[0x0a, 2, 1]).field(),
            Err(BadMessage::Truncated)
        );
        assert_eq!(
            Reader::new(&[0x09, 2, 1]).field(),
            Err(BadMessage::Truncated)
        );
        assert_eq!(
            Reader::new(&[0x0d, 2, 1, 1, 1]).field(),
            Ok(Some((1, Value::Fixed)))
        );
        assert_eq!(Value::Fixed.varint(), Err(BadMessage::WireType));
        assert_eq!(Value::Varint(1).range(), Err(BadMessage::WireType));
    }
}
