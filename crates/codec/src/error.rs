//! Errors in bytes from a peer.

use thiserror::Error;

/// The framing is lost: nothing after this can be read, the data stream ends (P-2.1).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A message announces more than the bound.
    #[error("message of {length} bytes at offset {offset} is above the bound of {limit}")]
    TooLong {
        /// Announced length.
        length: u64,
        /// Offset in the stream of the message.
        offset: u64,
        /// The bound.
        limit: u64,
    },
    /// The compression flag of the gRPC prefix is set or invalid.
    #[error(
        "message prefix {flag:#04x} at offset {offset}: compressed messages are not negotiated"
    )]
    Compressed {
        /// The first byte of the prefix.
        flag: u8,
        /// Offset in the stream of the message.
        offset: u64,
    },
    /// The envelope is not protobuf, so that the request is unknown.
    #[error("invalid TunnelMessage at offset {offset}: {what}")]
    NotAMessage {
        /// The error.
        what: BadMessage,
        /// Offset in the stream of the message.
        offset: u64,
    },
}

/// The error of one message; a protocol error of its request only, if the envelope could be read (P-2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadMessage {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Truncated,
    /// A varint of more than ten bytes.
    #[error("a varint does not end")]
    Varint,
    /// An invalid wire type, or one that the field does not have.
    #[error("a field has the wrong wire type")]
    WireType,
    /// Field number 0, or one above protobuf's bound of 2^29 - 1.
    #[error("a field has an invalid number")]
    FieldZero,
    /// A payload unknown to this version.
    #[error("the payload is unknown")]
    UnknownPayload,
    /// `message_type` contradicts the payload.
    #[error("message_type contradicts the payload")]
    Contradiction,
    /// A header name is empty or not a lower-case token.
    #[error("a header name is not a lower-case token")]
    HeaderName,
    /// A header value contains CR, LF or NUL.
    #[error("a header value contains CR, LF or NUL")]
    HeaderValue,
    /// The head has more header lines than the bound.
    #[error("more header lines than allowed")]
    TooManyHeaders,
    /// A head above the bound.
    #[error("a head is longer than allowed")]
    HeadTooLong,
    /// An invalid value in a field of a head: spaces in a path, a status outside 100 to 999, a UUID not of 16 bytes,
    /// control characters in the text of `Open`.
    #[error("a field of the head has an invalid value")]
    Head,
    /// A WebSocket frame with an invalid opcode, reserved bits or length.
    #[error("a WebSocket frame has an invalid opcode, reserved bits or length")]
    Frame,
    /// Invalid compression fields (P-13.2).
    #[error("the compression fields are invalid")]
    Compression,
    /// A datagram above [`crate::MAX_DATAGRAM_BYTES`].
    #[error("a datagram is longer than allowed")]
    Datagram,
}

/// A head that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The head is longer than the bound for heads, or longer than the bound for messages with its body.
    #[error("the head has more than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// The head has more lines than the bound.
    #[error("the head has more than {limit} header lines")]
    TooManyHeaders {
        /// The bound.
        limit: usize,
    },
}
