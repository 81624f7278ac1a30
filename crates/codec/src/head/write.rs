//! Writes what all heads share: header lines, the payload in the head, the bounds; and the heads of responses, which
//! differ only in what may stand in them.

use crate::{
    error::HeadError,
    frame::MAX_MESSAGE_BYTES,
    headers::{MAX_HEAD_BYTES, MAX_WIRE_LINES, put_header},
    id::{MessageType, ProtocolType},
    wire::{fill_length_gap, put_bytes, put_length_gap, put_uint, varint_len},
};

/// Room for the bytes that [`crate::write_head`] puts before a head: id, types and end.
pub(super) const ENVELOPE_BYTES: usize = 32;

/// A head ready to be sent: the payload field of its envelope, without the id.
#[derive(Debug)]
pub struct EncodedHead {
    pub(crate) protocol: ProtocolType,
    pub(crate) message_type: MessageType,
    pub(crate) field: Vec<u8>,
    pub(super) body_bytes: usize,
}

impl EncodedHead {
    /// The protocol of the message.
    pub const fn protocol(&self) -> ProtocolType {
        self.protocol
    }

    /// Payload bytes in this head; they cost credit (P-4.1).
    pub const fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Size of this head on the wire, without the envelope.
    pub fn wire_len(&self) -> usize {
        self.field.len()
    }
}

/// Writes header lines, up to the bounds of P-2.10.
pub(super) fn put_headers<'h>(
    out: &mut Vec<u8>,
    field: u8,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
) -> Result<(), HeadError> {
    let mut lines = 0;
    for (name, value) in headers {
        lines += 1;
        if lines > MAX_WIRE_LINES {
            return Err(HeadError::TooManyHeaders {
                limit: MAX_WIRE_LINES,
            });
        }
        if out.len() + name.len() + value.len() > MAX_HEAD_BYTES {
            return Err(HeadError::TooLong {
                limit: MAX_HEAD_BYTES,
            });
        }
        put_header(out, field, name, value);
    }
    Ok(())
}

/// Writes the head of a response as the content of `field`. `upgrade`: the protocol of a switch, or empty.
pub(super) fn encode_response<'h>(
    (field, protocol): (u8, ProtocolType),
    status: u16,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    upgrade: &[u8],
    body: &[u8],
) -> Result<EncodedHead, HeadError> {
    let mut out = Vec::with_capacity(256 + body.len());
    let start = put_length_gap(&mut out, field);
    put_uint(&mut out, 1, u64::from(status));
    put_headers(&mut out, 2, headers)?;
    put_bytes(&mut out, 4, upgrade);
    let kind = (protocol, MessageType::Response);
    finish(out, start, kind, (3, body))
}

/// Writes the payload in the head and closes the field that began at `start`.
pub(super) fn finish(
    mut out: Vec<u8>,
    start: usize,
    kind: (ProtocolType, MessageType),
    (body_field, body): (u8, &[u8]),
) -> Result<EncodedHead, HeadError> {
    if out.len() > MAX_HEAD_BYTES {
        return Err(HeadError::TooLong {
            limit: MAX_HEAD_BYTES,
        });
    }
    let body_len = 1 + varint_len(body.len() as u64) + body.len();
    if out.len() + body_len + ENVELOPE_BYTES > MAX_MESSAGE_BYTES {
        return Err(HeadError::TooLong {
            limit: MAX_MESSAGE_BYTES,
        });
    }
    put_bytes(&mut out, body_field, body);
    fill_length_gap(&mut out, start);
    Ok(EncodedHead {
        protocol: kind.0,
        message_type: kind.1,
        field: out,
        body_bytes: body.len(),
    })
}
