//! Compares designs: each core beside its naive version and beside rivals.
//!
//! A [`Suite`](case::Suite) says once what is measured: which contenders do which operation at which size. Three
//! programs read it: `cargo bench` (criterion, for the time), `adit-bench` (instructions, processor time, quality, and
//! the verdict), `adit-bench-memory` (the same cases under an allocator that counts). `ci/bench-compare` runs the last
//! two and writes `docs/bench/`.
//!
//! The naive versions and what was written for the rivals stand in `baseline/`.
//!
//! A case that cannot go on panics: a number from a run that went wrong would be worse than none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../baseline/mod.rs"]
pub mod baseline;
pub mod case;
pub mod compare;
pub mod dice;
pub mod measure;
pub mod record;
pub mod suites;
pub mod verdict;
