//! One module for each protocol: it connects to the service, writes the request and forwards the response.

mod carry;
pub mod http1;
pub(crate) mod http2;
mod interim;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod websocket;
