//! The command lines of `adit-server` and `adit`, and the values that they pass to `adit-config`.
//!
//! A flag that stands for a key of a file names the variable of that key in its help; the configuration reads it, so
//! that there is one order of layers and one text for an error. The variables of the other flags are read here, and
//! follow one rule: `ADIT__` and the flag; for a flag of a tunnel `ADIT__TUNNEL__` and the flag, whatever the command;
//! for a flag of another command its name in between. No flag takes a secret: every user of the machine can read argv.

mod client;
mod grpc;
mod http;
mod log;
mod route;
mod server;
mod tcp;
mod tunnel;
mod udp;

pub use client::{Adit, Command, Demo, Start, completion};
pub use grpc::Grpc;
pub use http::Http;
pub use route::{Route, RouteTest};
pub use server::{Release, Server, ServerCommand};
pub use tcp::Tcp;
pub use tunnel::{HostArgs, Link, TunnelArgs};
pub use udp::Udp;
