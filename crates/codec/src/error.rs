//! What can be wrong with bytes from a peer.

use thiserror::Error;

/// The framing is lost: nothing after this can be read, the data stream ends (P-2.1).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A message announces more than the bound.
    #[error("message of {length} bytes at offset {offset} is above the bound of {limit}")]
    TooLong {
        /// Announced length.
        length: u64,
        /// Where in the stream the message begins.
        offset: u64,
        /// The bound.
        limit: u64,
    },
    /// The compression flag of the gRPC prefix is set or invalid.
    #[error(
        "message prefix {flag:#04x} at offset {offset}: compressed messages were not agreed on"
    )]
    Compressed {
        /// The first byte of the prefix.
        flag: u8,
        /// Where in the stream the message begins.
        offset: u64,
    },
    /// The envelope is not protobuf, so not even the request is known.
    #[error("invalid TunnelMessage at offset {offset}: {what}")]
    NotAMessage {
        /// What was wrong.
        what: BadMessage,
        /// Where in the stream the message begins.
        offset: u64,
    },
}

/// What is wrong with one message; a protocol error of its request alone where the envelope could be read (P-2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadMessage {
    /// Ends inside a field.
    #[error("it ends inside a field")]
    Truncated,
    /// A varint of more than ten bytes.
    #[error("a varint does not end")]
    Varint,
    /// A wire type that protobuf does not have, or another than the field's.
    #[error("a field has the wrong wire type")]
    WireType,
    /// Field number 0, or one above protobuf's bound of 2^29 - 1.
    #[error("a field has a number that protobuf does not have")]
    FieldZero,
    /// No payload that this build knows.
    #[error("the payload is unknown")]
    UnknownPayload,
    /// `message_type` contradicts the payload.
    #[error("message_type contradicts the payload")]
    Contradiction,
    /// A header name is empty or not a lower-case token.
    #[error("a header name is not a lower-case token")]
    HeaderName,
    /// A header value holds CR, LF or NUL.
    #[error("a header value holds CR, LF or NUL")]
    HeaderValue,
    /// More header lines than the bound.
    #[error("more header lines than allowed")]
    TooManyHeaders,
    /// A head above the bound.
    #[error("a head is longer than allowed")]
    HeadTooLong,
    /// A field of a head holds what it cannot: spaces in a path, a status outside 100 to 999, a UUID not of 16 bytes,
    /// control characters in the text of `Open`.
    #[error("a field of the head holds what it cannot")]
    Head,
    /// A WebSocket frame with an opcode, reserved bits or a length that no frame has.
    #[error("a WebSocket frame that none can be")]
    Frame,
    /// Compressed as nothing can be (P-13.2).
    #[error("it is compressed as nothing can be")]
    Compression,
    /// A datagram above [`crate::MAX_DATAGRAM_BYTES`].
    #[error("a datagram is longer than any can be")]
    Datagram,
}

/// A head that cannot be put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// Above the bound for heads, or with its body above the bound for messages.
    #[error("the head has more than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// More lines than the bound.
    #[error("the head has more than {limit} header lines")]
    TooManyHeaders {
        /// The bound.
        limit: usize,
    },
}
