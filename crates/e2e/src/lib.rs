//! Runs the shipped binaries `adit-server` and `adit` as a user does: as processes, with their command lines, files,
//! ports and signals.
//!
//! Holds: processes that end with the test that started them ([`Server`], [`Client`]), services that misbehave on
//! request ([`Service`], [`Scripted`]), visitors ([`Visitor`], [`Raw`]), and functions that read the resources of a
//! process ([`procfs`]).
//!
//! Promises: there are no fixed sleeps; every wait checks a condition and has a deadline ([`eventually`]). Every
//! configured port is 0, and every server has its own loopback address, so that the ports of a restarted server are
//! free. No failure is hidden by a retry.
//!
//! Leaves to the caller: building the binaries first. They must be in the directory above that of the running test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests only: a panic is how a test fails"
)]

mod binaries;
mod bodies;
mod client;
mod collector;
mod eventually;
mod load;
mod process;
pub mod procfs;
pub mod programs;
pub mod python;
mod raw;
mod relay;
mod scripted;
mod server;
mod service;
mod status;
mod visitor;
mod world;

pub use binaries::binary;
pub use bodies::{Body, Feeder, body_of, checked, empty, feed, full, pattern, piece};
pub use client::{Client, ClientOptions};
pub use collector::{Collected, Collector, Trace};
pub use eventually::{eventually, stays, within};
pub use load::Load;
pub use process::{Process, Run, run, run_program};
pub use raw::{End, Raw, Read};
pub use relay::Relay;
pub use scripted::Scripted;
pub use server::{Server, ServerOptions, own_address};
pub use service::{Handled, Service, ServiceStats};
pub use status::{count, query};
pub use visitor::{FullResponse, Visitor, connect_from, full_response, get, post};
pub use world::{HOST, World};
