//! Lanes in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod attach;
mod compression;
mod credit_wait;
mod datagrams;
mod exchange;
mod frames;
mod grpc;
mod pace;
mod proxy;
mod support;
mod time;
mod turns;
