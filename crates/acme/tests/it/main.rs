//! Orders at CAs: Pebble, a CA that is made for the cases which Pebble lacks, and a name server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod bind;
mod ca;
mod double;
mod first_orders;
mod pebble;
mod programs;
mod rules;
mod stored;
mod support;
