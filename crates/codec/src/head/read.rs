//! Reads what all heads have: their bounds, parts of a request line, trailers.

use bytes::Bytes;

use crate::{
    error::BadMessage,
    headers::{Gather, HeaderBlock, MAX_HEAD_BYTES},
    wire::{MAX_VARINT_BYTES, Reader},
};

/// Whether a message that arrived is longer than a head may be, its body aside.
pub(super) fn is_head_too_long(message: &[u8], body: &[u8]) -> bool {
    message.len() - body.len() > MAX_HEAD_BYTES + MAX_VARINT_BYTES
}

/// Whether bytes can stand in a request line: no space, no control character (RFC 9112, 3).
pub(super) fn is_line_part(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte > 0x20 && byte != 0x7f)
}

/// Trailers, or any other message that is a run of headers in field 1.
pub(crate) fn decode_trailers(message: &Bytes) -> Result<HeaderBlock, BadMessage> {
    if message.len() > MAX_HEAD_BYTES {
        return Err(BadMessage::HeadTooLong);
    }
    let mut reader = Reader::new(message);
    let mut headers = Gather::default();
    loop {
        let key_at = reader.offset();
        let Some((field, value)) = reader.field()? else {
            break;
        };
        if field == 1 {
            headers.push(message, key_at, value.range()?)?;
        }
    }
    Ok(headers.finish(message))
}
