//! The command lines of `adit-server` and `adit`, and the values that they pass to `adit-config`.
//!
//! The help of a flag that corresponds to a key of the file names the variable of that key; the configuration reads the
//! variable, so that there is one order of layers and one text for an error. The variables of the other flags are read
//! here, and are named by one rule: `ADIT__` and the flag; for a flag of a tunnel `ADIT__TUNNEL__` and the flag,
//! whatever the command; for a flag of another command, the command's name in between. No flag takes a secret, because
//! every user of the machine can read the command line. The flags of the commands that change credentials (`user`, `token`,
//! `key`, `ca`, and `join` of the server) have no variables: one that was left in the environment would change rights unseen.

mod client;
mod credentials;
mod grpc;
mod http;
mod join;
mod log;
mod route;
mod server;
mod tcp;
mod tunnel;
mod udp;

pub use client::{Adit, Command, Demo, Start, completion};
pub use credentials::{Credentials, Key, NewFlags, ScopeFlags, Token, User};
pub use grpc::Grpc;
pub use http::Http;
pub use join::{Ca, CaIssue, Invite, Join};
pub use route::{Route, RouteTest};
pub use server::{Release, Server, ServerCommand};
pub use tcp::Tcp;
pub use tunnel::{HostArgs, Link, TunnelArgs};
pub use udp::Udp;
