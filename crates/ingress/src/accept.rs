//! From a socket to one request.

pub mod descriptors;
mod framing;
pub(crate) mod http;
mod http2;
mod http2_frames;
pub mod listener;
mod request_line;
mod sniff;
mod socket;
mod unreadable;
mod upgraded;
