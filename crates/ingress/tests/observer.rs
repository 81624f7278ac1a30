//! What an observer is told of each request, and what crosses the link for whoever traces it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "each file uses its part")]

mod world;

#[path = "observer/contexts.rs"]
mod contexts;
#[path = "observer/failures.rs"]
mod failures;
#[path = "observer/grpc.rs"]
mod grpc;
#[path = "grpc/setting.rs"]
mod grpc_setting;
#[path = "observer/http.rs"]
mod http_requests;
#[path = "observer/rig.rs"]
mod rig;
#[path = "observer/tcp.rs"]
mod tcp;
#[path = "tcp/world.rs"]
mod tcp_world;
#[path = "observer/udp.rs"]
mod udp;
#[path = "udp/world.rs"]
mod udp_world;
#[path = "observer/websocket.rs"]
mod websocket;
#[path = "websocket/setting.rs"]
mod websocket_setting;
