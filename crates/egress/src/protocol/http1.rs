//! Services over HTTP/1.1: a small client on `httparse`.
//!
//! One task holds one connection and serves one request after the other. A request is passed from the pool to a
//! connection (`connection`), which writes it (`request_writer`) and forwards the response (`response_reader`) in one
//! loop (`exchange`): from the socket's buffer to the lane without a copy. The parsers of untrusted bytes are public
//! for the fuzz tests.

mod body_framing;
mod chunked;
mod connection;
mod exchange;
mod header_line;
mod pool;
mod request;
mod request_head;
mod request_writer;
mod response_head;
mod response_reader;
mod slot;
mod upgrade;

use std::sync::Arc;

use adit_link::Exchange;

use self::request::{Http1Record, Http1Request};
pub use self::{
    body_framing::BodyFraming,
    chunked::{ChunkedDecoder, ChunkedError, Decoded},
    response_head::{HeadError, LineSpan, ResponseHead, parse},
};
pub(crate) use self::{header_line::put_line, pool::Pool};

/// Serves a request on an idle or a new connection of the pool, or queues it until there is one.
pub(crate) fn dispatch(pool: &Arc<Pool>, record: Http1Record, exchange: Exchange) {
    if let Some(request) = pool.submit(Http1Request { record, exchange }) {
        tokio::spawn(connection::run(pool.clone(), request));
    }
}
