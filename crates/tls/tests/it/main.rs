//! Both ends of the tunnel's TLS, in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod authority;
mod causes;
mod mutual;
mod parts;
mod reload;
mod support;
mod visitors;
