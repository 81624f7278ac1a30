//! The naive versions and the rivals that the benches compare with.

pub mod announce;
pub mod balance;
pub mod codec;
pub mod compression;
pub mod flow;
pub mod mux;
pub mod pending;
pub mod reconnect;
pub mod router;
