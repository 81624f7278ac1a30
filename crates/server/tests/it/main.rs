//! The server, with clients in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod entries;
mod records;
mod renewals;
mod support;
mod tls;
mod unauthenticated;
mod uses;
