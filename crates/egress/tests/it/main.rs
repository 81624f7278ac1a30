//! Services, against a server in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod grpc;
mod grpc_tls;
mod hyper_services;
mod interim;
mod lifecycle;
mod observer;
mod observer_protocols;
mod oracle;
mod services;
mod tcp;
mod udp;
mod upgrade;
mod websocket;
