//! Services over HTTP/1.1: a lean client on `httparse`.
//!
//! One task holds one connection and serves one request after the other. Requests reach it through a slot, answers go
//! straight from the socket's buffer to the lane. What is public here is what reads hostile bytes, for the fuzz tests.

mod chunked;
mod connection;
mod download;
mod pool;
mod request;
mod response;
mod timer;
mod upload;

pub use chunked::{Chunked, ChunkedError, Decoded};
pub(crate) use pool::Pool;
pub(crate) use request::put_line;
pub use response::{Framing, Head, HeadError, Line, parse};
