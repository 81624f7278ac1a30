//! Visitors, against a client in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod access;
mod breaks;
mod configured_layers;
mod departures;
mod drains;
mod endings;
mod forwarded;
mod grpc;
mod headers;
mod http;
mod https_layers;
mod interim;
mod layers;
mod observer;
mod refusals;
mod release;
mod returns;
mod streams;
mod targets;
mod tcp;
mod udp;
mod upgrade;
mod websocket;
