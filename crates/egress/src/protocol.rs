//! Calls services: one module for each protocol.

pub(crate) mod h2c;
pub mod http1;
mod interim;
pub(crate) mod tcp;
pub(crate) mod udp;
mod upgrade;
pub(crate) mod websocket;
