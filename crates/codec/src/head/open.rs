//! The fields of every opening message.

use crate::{
    error::BadMessage,
    headers::is_value,
    wire::{Reader, Value, fill_length_gap, put_bytes, put_length_gap, put_uint},
};

/// The fields of every opening message (P-2.8). Texts are owned in a received message, and may be borrowed in one to be
/// sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Open<T = Box<str>> {
    /// UUIDv7 of the request, the same on both sides.
    pub request_uuid: [u8; 16],
    /// The tunnel's name.
    pub tunnel: T,
    /// Config revision that the opener acted on.
    pub revision: u64,
    /// The visitor's socket address.
    pub visitor: T,
    /// W3C `traceparent`, or empty.
    pub traceparent: T,
    /// W3C `baggage`, or empty.
    pub baggage: T,
    /// Whether the opener keeps unconsumed payload, to resume after a loss.
    pub resumable: bool,
}

pub(super) fn put_open<T: AsRef<str>>(out: &mut Vec<u8>, open: &Open<T>) {
    let start = put_length_gap(out, 1);
    put_bytes(out, 1, &open.request_uuid);
    put_bytes(out, 2, open.tunnel.as_ref().as_bytes());
    put_uint(out, 3, open.revision);
    put_bytes(out, 4, open.visitor.as_ref().as_bytes());
    put_bytes(out, 5, open.traceparent.as_ref().as_bytes());
    put_bytes(out, 6, open.baggage.as_ref().as_bytes());
    put_uint(out, 7, u64::from(open.resumable));
    fill_length_gap(out, start);
}

/// Reads the opening part of `message`, which is the content of one field.
pub(super) fn read_open(message: &[u8], field: Value) -> Result<Open, BadMessage> {
    let (from, to) = field.range()?;
    let bytes = &message[from..to];
    let mut open = Open::default();
    let mut has_uuid = false;
    let mut reader = Reader::new(bytes);
    let text = |(from, to): (usize, usize)| {
        // Their values reach header lines and logs: characters that could end a line are rejected.
        match std::str::from_utf8(&bytes[from..to]) {
            Ok(text) if is_value(text.as_bytes()) => Ok(Box::from(text)),
            _ => Err(BadMessage::Head),
        }
    };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => {
                let (from, to) = value.range()?;
                open.request_uuid = bytes[from..to].try_into().map_err(|_| BadMessage::Head)?;
                has_uuid = true;
            }
            2 => open.tunnel = text(value.range()?)?,
            3 => open.revision = value.varint()?,
            4 => open.visitor = text(value.range()?)?,
            5 => open.traceparent = text(value.range()?)?,
            6 => open.baggage = text(value.range()?)?,
            7 => open.resumable = value.varint()? != 0,
            _ => {}
        }
    }
    if has_uuid {
        Ok(open)
    } else {
        Err(BadMessage::Head)
    }
}
