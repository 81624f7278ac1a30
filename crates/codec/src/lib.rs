//! Encodes and decodes tunnel messages. Also has the two structures that every byte passes through: the outbox and the
//! buffer pool.
//!
//! Holds: the identifiers of the wire ([`RequestId`], [`ProtocolType`], [`ResetCode`]); encoders that write a head once
//! and never copy a large payload; a [`Decoder`] that reads messages from transport frames without joining them;
//! [`Outbox`], to which many senders append and which one writer drains; [`Pool`], to which read buffers return.
//!
//! Promises:
//! - every length is checked against a bound before memory is taken, and a message never costs more than
//!   [`MAX_MESSAGE_BYTES`];
//! - fields are read in any order; in ascending order a payload is handed on before all of it has arrived;
//! - header names and values that leave a decoder can be written to an HTTP/1 connection as they are;
//! - an append to the outbox wakes a parked writer exactly when there is something to write.
//!
//! Leaves to others: which message is sent next (`adit-mux`), credit (`adit-flow`), sockets (`adit-link`).
//!
//! Cost: a payload is read by reference at any size. One above [`COALESCE_BYTES`] is written by reference too; everything
//! smaller is copied once into a shared block. Numbers in `docs/bench/`, suite `codec`.
//!
//! Proof: `tests/oracle.rs` against the generated messages, `tests/properties.rs` for frames cut at any byte,
//! `tests/fuzz.rs` for hostile input, `tests/loom.rs` for outbox and pool.

#![cfg_attr(adit_loom, allow(dead_code, unused_imports))]

mod batch;
mod compressed;
mod decoder;
mod envelope;
mod error;
pub mod fields;
mod frame;
mod head;
mod headers;
mod id;
mod message;
mod outbox;
mod pool;
mod sync;
mod wire;

pub use batch::{Batch, BatchBuilder, COALESCE_BYTES};
pub use compressed::{Compressed, MAX_INFLATED_BYTES};
pub use decoder::Decoder;
pub use envelope::{Envelope, Payload};
pub use error::{BadMessage, DecodeError, HeadError};
pub use frame::{MAX_MESSAGE_BYTES, PREFIX_BYTES};
pub use head::{
    EncodedHead, GrpcRequest, GrpcRequestHead, GrpcResponse, GrpcResponseHead, HttpRequest,
    HttpRequestHead, HttpResponse, HttpResponseHead, Open, RequestHead, ResponseHead, TcpOpen,
    TcpOpenHead, UdpOpen, UdpOpenHead, WebSocketFrame, WebSocketRequest, WebSocketRequestHead,
    WebSocketResponse, WebSocketResponseHead, accepted,
};
pub use headers::{HeaderBlock, HeaderIter, MAX_HEAD_BYTES, MAX_HEADER_LINES, MAX_WIRE_LINES};
pub use id::{Compression, MessageType, ProtocolType, RequestId, ResetCode, Side};
pub use message::{
    MAX_DATAGRAM_BYTES, write_chunk_prefix, write_compressed_prefix, write_control,
    write_datagram_prefix, write_end, write_frame_prefix, write_head, write_reset,
    write_stop_sending, write_trailers, write_window,
};
pub use outbox::{Outbox, Queue};
pub use pool::{Pool, PooledBuffer};
