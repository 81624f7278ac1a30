//! Calls of gRPC (section 8 of the protocol): both ends of a lane in memory, tonic or a script behind it, tonic or HTTP/2
//! frame by frame before it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(unreachable_pub, reason = "each file uses its part")]

mod world;

#[path = "grpc/carried.rs"]
mod carried;
#[path = "grpc/endings.rs"]
mod endings;
#[path = "grpc/failures.rs"]
mod failures;
#[path = "grpc/library.rs"]
mod library;
#[path = "grpc/service.rs"]
mod service;
#[path = "grpc/setting.rs"]
mod setting;
