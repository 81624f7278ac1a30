//! The command lines of `adit-server` and `adit`: what can be written, and what it says to `adit-config`.
//!
//! A flag that stands for a key of a file names the variable of that key in its help, and leaves reading it to the
//! configuration, so that there is one order of layers and one text for an error. The variables of the other flags are
//! read here. No flag takes a secret: what stands in argv, everybody on the machine can read.

mod client;
mod grpc;
mod http;
mod link;
mod log;
mod policies;
mod route;
mod server;
mod tcp;
mod udp;

pub use client::{Adit, Command, Demo, Start, completion};
pub use grpc::Grpc;
pub use http::Http;
pub use link::Link;
pub use route::{Route, RouteTest};
pub use server::{Release, Server, ServerCommand};
pub use tcp::Tcp;
pub use udp::Udp;
