//! Drives the shipped binaries `adit-server` and `adit` as a person would: as processes, through their command lines,
//! files, ports and signals.
//!
//! Holds: processes that end with the test that started them ([`Server`], [`Client`]), services that misbehave on
//! request ([`Service`], [`Scripted`]), visitors ([`Visitor`], [`Raw`]), and readers of what a process holds
//! ([`procfs`]).
//!
//! Promises: nothing here sleeps and hopes; every wait looks for a condition and has a deadline ([`eventually`]). Every
//! port is 0, every server has a loopback address of its own, so that a killed server finds its ports free when it
//! returns. Nothing is tried a second time to hide that it failed once.
//!
//! Leaves to the caller: building the binaries first. They are looked for beside the running test.
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
pub use status::{ask, count};
pub use visitor::{Answer, Visitor, answer_of, get, post};
pub use world::{HOST, World};
