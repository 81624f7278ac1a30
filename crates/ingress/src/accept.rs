//! Reads requests from a connection.

mod framing;
pub(crate) mod http;
mod http2;
mod http2_frames;
mod request_line;
mod socket;
mod tls_by_mistake;
mod unreadable;
mod upgraded;
