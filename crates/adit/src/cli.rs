//! The command lines of `adit-server` and `adit`: what can be written, and what it says to `adit-config`.
//!
//! A flag that stands for a key of a file names the variable of that key in its help, and leaves reading it to the
//! configuration, so that there is one order of layers and one text for an error. The variables of the other flags are
//! read here. No flag takes a secret: what stands in argv, everybody on the machine can read.

mod client;
mod log;
mod server;

pub use client::{
    Adit, Command, Demo, Grpc, Http, Link, Route, RouteTest, Start, Tcp, Udp, completion,
};
pub use server::{Release, Server, ServerCommand};
