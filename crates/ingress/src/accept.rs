//! Reads requests from a connection.

mod framing;
pub(crate) mod http;
mod http2;
mod http2_frames;
mod request_line;
mod socket;
mod unreadable;
mod upgraded;
