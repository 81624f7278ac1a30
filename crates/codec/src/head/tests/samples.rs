//! Heads for the tests of each protocol.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    head::{EncodedHead, Open},
    headers::MAX_HEAD_BYTES,
    wire::MAX_VARINT_BYTES,
};

pub(in crate::head) fn open() -> Open {
    Open {
        request_uuid: [7; 16],
        tunnel: "web".into(),
        revision: 3,
        visitor: "192.0.2.1:4000".into(),
        traceparent: "00-1-2-01".into(),
        baggage: "a=b".into(),
        resumable: true,
    }
}

/// The content of an encoded head, without key and length.
pub(in crate::head) fn content(head: EncodedHead) -> Bytes {
    // The key is a varint of one byte or two, and the length takes three bytes.
    let last_of_key = head.field.iter().position(|byte| byte & 0x80 == 0);
    Bytes::from(head.field).slice(last_of_key.unwrap() + 4..)
}

/// A head with an unknown field after it, which makes it `length` bytes long.
pub(in crate::head) fn filled(head: &Bytes, length: usize) -> Bytes {
    let mut out = BytesMut::from(&head[..]);
    // Key and length take six bytes.
    let noise = length - out.len() - 6;
    crate::wire::put_varint(&mut out, 100 << 3 | 2);
    out.put_slice(&[
        (noise & 0x7f) as u8 | 0x80,
        (noise >> 7 & 0x7f) as u8 | 0x80,
        (noise >> 14 & 0x7f) as u8 | 0x80,
        0,
    ]);
    out.put_bytes(0, noise);
    assert_eq!(out.len(), length);
    out.freeze()
}

/// The longest head that is read (P-2.10).
pub(in crate::head) const LONGEST: usize = MAX_HEAD_BYTES + MAX_VARINT_BYTES;
