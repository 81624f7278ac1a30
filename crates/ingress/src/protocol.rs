//! One module for each protocol of visitors.

mod grpc;
pub(crate) mod http;
pub(crate) mod served;
pub(crate) mod tcp;
pub(crate) mod udp;
mod websocket;
