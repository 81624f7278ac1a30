//! Header blocks: ordered, repeated, as bytes.
//!
//! A block keeps its form on the wire, a run of `Header{name, value}` fields, so that it crosses a process with one
//! slice and no map. Names and values are checked once, when a message is decoded; after that a block may be written to
//! an HTTP/1 connection as it is.

use std::fmt;

use bytes::Bytes;

use crate::{
    error::BadMessage,
    wire::{Put, Reader, length_key, put_varint, varint_len},
};

/// The most bytes of a head, including header lines (P-2.10).
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most header lines that a visitor or a service may send in one head (P-2.10).
pub const MAX_HEADER_LINES: usize = 256;

/// The most header lines of one head on the wire: the 256, and those that adit adds (P-2.10).
pub const MAX_WIRE_LINES: usize = MAX_HEADER_LINES + 16;

const NAME_KEY: u8 = length_key(1);
const VALUE_KEY: u8 = length_key(2);

/// Ordered header lines. Cheap to clone; keeps the buffer of its message alive.
#[derive(Clone, Default)]
pub struct HeaderBlock {
    /// Canonical entries: a one-byte key, the length, then name and value in that order.
    entries: Bytes,
    lines: usize,
}

impl HeaderBlock {
    /// Lines in the order in which they were sent.
    pub fn iter(&self) -> HeaderIter {
        HeaderIter {
            entries: self.entries.clone(),
        }
    }

    /// Name and value of each line, borrowed.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.entries[..];
        std::iter::from_fn(move || {
            let line = split_entry(rest)?;
            let parts = (
                &rest[line.name.0..line.name.1],
                &rest[line.value.0..line.value.1],
            );
            rest = &rest[line.end..];
            Some(parts)
        })
    }

    /// The first value of a name in lower case.
    pub fn first(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// Number of lines.
    pub const fn len(&self) -> usize {
        self.lines
    }

    /// Whether the block has no lines.
    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        self.entries.len()
    }
}

/// Two blocks are equal if they have the same lines in the same order, whichever messages they are from.
impl PartialEq for HeaderBlock {
    fn eq(&self, other: &Self) -> bool {
        self.lines == other.lines && self.lines().eq(other.lines())
    }
}

impl Eq for HeaderBlock {}

impl fmt::Debug for HeaderBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.lines().map(|(name, value)| {
                (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                )
            }))
            .finish()
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for HeaderBlock {
    /// Gathers lines; invalid ones are left out.
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(lines: I) -> Self {
        let mut entries = Vec::new();
        let mut count = 0;
        for (name, value) in lines {
            if is_name(name) && is_value(value) {
                put_header(&mut entries, 1, name, value);
                count += 1;
            }
        }
        Self {
            entries: entries.into(),
            lines: count,
        }
    }
}

/// Owned slices of each line, sharing the block's buffer.
pub struct HeaderIter {
    entries: Bytes,
}

impl Iterator for HeaderIter {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let line = split_entry(&self.entries)?;
        let name = self.entries.slice(line.name.0..line.name.1);
        let value = self.entries.slice(line.value.0..line.value.1);
        let _ = self.entries.split_to(line.end);
        Some((name, value))
    }
}

struct Entry {
    name: (usize, usize),
    value: (usize, usize),
    end: usize,
}

/// The first entry of a canonical run.
fn split_entry(run: &[u8]) -> Option<Entry> {
    if run.is_empty() {
        return None;
    }
    let mut reader = Reader::new(run.get(1..)?);
    let length = reader.length().ok()?;
    let from = 1 + reader.offset();
    let end = from.checked_add(length)?;
    let line = parse_line(run.get(from..end)?).ok()?;
    Some(Entry {
        name: (from + line.name.0, from + line.name.1),
        value: (from + line.value.0, from + line.value.1),
        end,
    })
}

struct Line {
    name: (usize, usize),
    value: (usize, usize),
    canonical: bool,
}

fn parse_line(header: &[u8]) -> Result<Line, BadMessage> {
    let mut reader = Reader::new(header);
    let mut line = Line {
        name: (0, 0),
        value: (0, 0),
        canonical: true,
    };
    let mut last = 0;
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => line.name = value.range()?,
            2 => line.value = value.range()?,
            _ => line.canonical = false,
        }
        line.canonical &= field > last;
        last = field;
    }
    Ok(line)
}

/// A valid header name of HTTP/2: a token without upper case (RFC 9110, 5.6.2; RFC 9113, 8.2.1).
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| {
            matches!(byte,
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
                | b'*' | b'+' | b'^' | b'`' | b'|' | b'~')
        })
}

/// A header value that cannot end its line (RFC 9110, 5.5): no control characters but the tab.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}

/// Writes one line as field `field` of its head.
pub(crate) fn put_header(out: &mut impl Put, field: u8, name: &[u8], value: &[u8]) {
    let length = 2
        + varint_len(name.len() as u64)
        + name.len()
        + varint_len(value.len() as u64)
        + value.len();
    out.byte(length_key(field));
    put_varint(out, length as u64);
    out.byte(NAME_KEY);
    put_varint(out, name.len() as u64);
    out.slice(name);
    out.byte(VALUE_KEY);
    put_varint(out, value.len() as u64);
    out.slice(value);
}

/// Gathers the header fields of one head while it is decoded.
#[derive(Default)]
pub(crate) struct Gather {
    /// The entries while they are contiguous: their start and end in the message.
    run: Option<(usize, usize)>,
    /// The repacked entries once they are not contiguous.
    repacked: Option<Vec<u8>>,
    lines: usize,
}

impl Gather {
    /// Adds the header with its key at `key_at` and its content at `from..to` of `message`.
    pub(crate) fn push(
        &mut self,
        message: &[u8],
        key_at: usize,
        (from, to): (usize, usize),
    ) -> Result<(), BadMessage> {
        self.lines += 1;
        if self.lines > MAX_WIRE_LINES {
            return Err(BadMessage::TooManyHeaders);
        }
        let header = message.get(from..to).ok_or(BadMessage::Truncated)?;
        let line = parse_line(header)?;
        let (name, value) = (
            &header[line.name.0..line.name.1],
            &header[line.value.0..line.value.1],
        );
        if !is_name(name) {
            return Err(BadMessage::HeaderName);
        }
        if !is_value(value) {
            return Err(BadMessage::HeaderValue);
        }
        // The repacked form has keys of one byte, so that an entry is found without the number of its field.
        let one_byte_key = message[key_at] < 0x80;
        if let Some(repacked) = &mut self.repacked {
            put_header(repacked, 1, name, value);
            return Ok(());
        }
        match self.run {
            None if line.canonical && one_byte_key => self.run = Some((key_at, to)),
            Some((start, end)) if end == key_at && line.canonical && one_byte_key => {
                self.run = Some((start, to));
            }
            run => {
                let mut repacked = Vec::new();
                if let Some((start, end)) = run {
                    repacked.extend_from_slice(&message[start..end]);
                }
                put_header(&mut repacked, 1, name, value);
                self.repacked = Some(repacked);
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self, message: &Bytes) -> HeaderBlock {
        let entries = match (self.repacked, self.run) {
            (Some(repacked), _) => repacked.into(),
            (None, Some((start, end))) => message.slice(start..end),
            (None, None) => Bytes::new(),
        };
        HeaderBlock {
            entries,
            lines: self.lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    /// The headers in field `field` of a message.
    fn gathered(message: &Bytes, field: u64) -> Result<HeaderBlock, BadMessage> {
        let mut reader = Reader::new(message);
        let mut gather = Gather::default();
        loop {
            let key_at = reader.offset();
            let Some((number, value)) = reader.field()? else {
                return Ok(gather.finish(message));
            };
            if number == field {
                gather.push(message, key_at, value.range()?)?;
            }
        }
    }

    fn is_slice(block: &HeaderBlock, message: &Bytes) -> bool {
        let (inner, outer) = (block.entries.as_ptr_range(), message.as_ptr_range());
        outer.start <= inner.start && inner.end <= outer.end
    }

    #[test]
    fn a_run_of_headers_is_one_slice_of_its_message() {
        let mut out = BytesMut::new();
        put_header(&mut out, 6, b"a", b"1");
        put_header(&mut out, 6, b"b", b"2");
        let message = out.freeze();
        let read = gathered(&message, 6).unwrap();
        assert!(is_slice(&read, &message));
        assert_eq!(read.wire_len(), message.len());
        assert_eq!((read.len(), read.is_empty()), (2, false));
        assert_eq!(read, block(&[("a", "1"), ("b", "2")]));
        let none = gathered(&message, 5).unwrap();
        assert_eq!((none.len(), none.is_empty(), none.wire_len()), (0, true, 0));
    }

    #[test]
    fn headers_that_are_no_run_are_packed_anew() {
        let expected = block(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let (a, b, c) = (
            &[0x32, 6, 0x0a, 1, b'a', 0x12, 1, b'1'][..],
            &[0x32, 6, 0x0a, 1, b'b', 0x12, 1, b'2'][..],
            &[0x32, 6, 0x0a, 1, b'c', 0x12, 1, b'3'][..],
        );
        let between = &[0x08, 1][..];
        let value_first = &[0x32, 6, 0x12, 1, b'2', 0x0a, 1, b'b'][..];
        let name_twice = &[0x32, 9, 0x0a, 1, b'x', 0x0a, 1, b'b', 0x12, 1, b'2'][..];
        let and_more = &[0x32, 8, 0x0a, 1, b'b', 0x12, 1, b'2', 0x18, 1][..];
        let long_key = &[0xb2, 0x00, 6, 0x0a, 1, b'b', 0x12, 1, b'2'][..];
        for parts in [
            [a, between, b, c],
            [a, b, between, c],
            [a, value_first, c, between],
            [a, name_twice, between, c],
            [a, and_more, c, between],
            [a, long_key, c, between],
        ] {
            let message = Bytes::from(parts.concat());
            let read = gathered(&message, 6).unwrap();
            assert_eq!(read, expected, "{parts:?}");
            assert_eq!(read.wire_len(), 24, "packed");
            assert!(!is_slice(&read, &message));
        }
        // The line in another form is first: no entry before it has to be copied.
        for odd in [value_first, long_key] {
            let message = Bytes::from([odd, c].concat());
            let read = gathered(&message, 6).unwrap();
            assert_eq!(read, block(&[("b", "2"), ("c", "3")]));
            assert_eq!(read.wire_len(), 16);
        }
    }

    #[test]
    fn an_invalid_header_is_named() {
        let refusal = |name: &[u8], value: &[u8]| {
            let mut out = BytesMut::new();
            put_header(&mut out, 1, name, value);
            gathered(&out.freeze(), 1).err()
        };
        assert_eq!(refusal(b"A", b""), Some(BadMessage::HeaderName));
        assert_eq!(refusal(b"", b""), Some(BadMessage::HeaderName));
        assert_eq!(refusal(b"a", b"\r"), Some(BadMessage::HeaderValue));
        assert_eq!(refusal(b"a", b""), None);
        let number = Bytes::from_static(&[0x0a, 2, 0x08, 1]);
        assert_eq!(gathered(&number, 1).err(), Some(BadMessage::WireType));
    }

    #[test]
    fn lines_are_counted_to_the_bound() {
        let mut out = BytesMut::new();
        for _ in 0..MAX_WIRE_LINES {
            put_header(&mut out, 1, b"a", b"");
        }
        let full = out.clone().freeze();
        assert_eq!(gathered(&full, 1).unwrap().len(), 272);
        put_header(&mut out, 1, b"a", b"");
        let over = gathered(&out.freeze(), 1);
        assert_eq!(over.err(), Some(BadMessage::TooManyHeaders));
    }

    #[test]
    fn blocks_are_equal_by_their_lines() {
        let one = block(&[("a", "1"), ("b", "2")]);
        assert_eq!(one, one.clone());
        assert_ne!(one, block(&[("a", "1")]));
        assert_ne!(block(&[("a", "1")]), one);
        assert_ne!(one, block(&[("a", "1"), ("b", "3")]));
        assert_ne!(one, block(&[("a", "1"), ("c", "2")]));
        assert_eq!(format!("{one:?}"), r#"{"a": "1", "b": "2"}"#);
    }

    #[test]
    fn lengths_are_those_of_the_wire() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 20_000] {
            let (name, value) = (vec![b'n'; 1 + length / 2], vec![b'v'; length]);
            let mut out = BytesMut::new();
            put_header(&mut out, 4, &name, &value);
            let message = out.freeze();
            let read = gathered(&message, 4).unwrap();
            assert_eq!(read.first(&name), Some(&value[..]));
            assert_eq!(read.wire_len(), message.len());
        }
    }

    fn block(lines: &[(&str, &str)]) -> HeaderBlock {
        lines
            .iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect()
    }

    #[test]
    fn lines_keep_order_and_repetition() {
        let block = block(&[("set-cookie", "a=1"), ("x", ""), ("set-cookie", "b=2")]);
        assert_eq!(block.len(), 3);
        let lines: Vec<_> = block.lines().collect();
        assert_eq!(
            lines,
            [
                (&b"set-cookie"[..], &b"a=1"[..]),
                (&b"x"[..], &b""[..]),
                (&b"set-cookie"[..], &b"b=2"[..])
            ]
        );
        let owned: Vec<_> = block.iter().collect();
        assert_eq!(owned.len(), 3);
        assert_eq!(&owned[2].1[..], b"b=2");
        assert_eq!(block.first(b"set-cookie"), Some(&b"a=1"[..]));
        assert_eq!(block.first(b"absent"), None);
    }

    #[test]
    fn line_breaks_in_headers_are_refused() {
        for name in ["", "A", "a b", "a:", "a\r", "\u{e9}"] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
        for value in ["a\r\nb: c", "\n", "\0", "\u{7f}", "\u{1}"] {
            assert!(!is_value(value.as_bytes()), "{value:?}");
        }
        assert!(is_value(b"\t caf\xc3\xa9 ~"));
        assert!(is_name(b"x-1_2.3~"));
        assert_eq!(
            block(&[("ok", "1"), ("Bad", "2"), ("bad", "\r\n")]).len(),
            1
        );
    }
}
