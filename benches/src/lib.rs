//! Compares the design of each core with its naive version and with rivals.
//!
//! A [`Suite`](case::Suite) defines what is measured: which contenders do which operation at which size. Three programs
//! use it: `cargo bench` (criterion, for the time), `adit-bench` (instructions, processor time, quality, and the
//! verdict), `adit-bench-memory` (the same cases with a counting allocator). `ci/bench-compare` runs the last two and
//! writes `docs/bench/`.
//!
//! The naive versions and the code for the rivals are in `baseline/`.
//!
//! A case that cannot continue panics: a number from a failed run would be worse than no number.
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
