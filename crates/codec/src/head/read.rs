//! Reads what all heads share: fields and header lines, their bounds, parts of a request line, trailers.

use bytes::Bytes;

use crate::{
    error::BadMessage,
    headers::{Gather, HeaderBlock, MAX_HEAD_BYTES},
    wire::{MAX_VARINT_BYTES, Reader, Value},
};

/// Reads the fields of a head: gathers its header lines, which stand in field `lines`, and passes each other field to
/// `on_field`, which skips those that it does not know.
#[inline]
pub(super) fn read_fields(
    message: &Bytes,
    lines: u64,
    mut on_field: impl FnMut(u64, Value) -> Result<(), BadMessage>,
) -> Result<HeaderBlock, BadMessage> {
    let mut reader = Reader::new(message);
    let mut headers = Gather::default();
    loop {
        let key_at = reader.offset();
        let Some((field, value)) = reader.field()? else {
            return Ok(headers.finish(message));
        };
        if field == lines {
            headers.push(message, key_at, value.range()?)?;
        } else {
            on_field(field, value)?;
        }
    }
}

/// Whether a received message, without its body, is longer than a head may be.
pub(super) fn is_head_too_long(message: &[u8], body: &[u8]) -> bool {
    message.len() - body.len() > MAX_HEAD_BYTES + MAX_VARINT_BYTES
}

/// Whether bytes are valid in a request line: no space, no control character (RFC 9112, 3).
pub(super) fn is_line_part(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte > 0x20 && byte != 0x7f)
}

/// Whether a path begins with a slash, and it and an authority can stand in a request line.
pub(super) fn is_target(path: &[u8], authority: &[u8]) -> bool {
    path.starts_with(b"/") && is_line_part(path) && is_line_part(authority)
}

/// Trailers, or any other message that is a run of headers in field 1.
pub(crate) fn decode_trailers(message: &Bytes) -> Result<HeaderBlock, BadMessage> {
    if message.len() > MAX_HEAD_BYTES {
        return Err(BadMessage::HeadTooLong);
    }
    read_fields(message, 1, |_, _| Ok(()))
}
