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
mod slot;
mod timer;
mod upload;

use std::sync::Arc;

use crate::request::job::Job;

pub use chunked::{Chunked, ChunkedError, Decoded};
pub(crate) use pool::Pool;
pub(crate) use request::put_line;
pub use response::{Framing, Head, HeadError, Line, parse};

/// Serves a request on a connection of the pool, idle or new, or lets it wait for one.
pub(crate) fn dispatch(pool: &Arc<Pool>, job: Job) {
    if let Some(job) = pool.place(job) {
        tokio::spawn(connection::run(pool.clone(), job));
    }
}
