//! Prints the figures of a suite's memory as JSON. This is a separate program, because callgrind would also count the
//! counting allocator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use adit_benches::{case::Meter, suites};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() {
    let name = std::env::args().nth(1).expect("the name of a suite");
    let suite = { suites::ALL.iter() }
        .find(|suite| suite.name == name)
        .expect("a suite of this name");
    let meter = Meter {
        current: || ALLOCATOR.current_usage(),
        peak: || ALLOCATOR.peak_usage(),
        reset_peak: || ALLOCATOR.reset_peak_usage(),
    };
    let figures = (suite.memory)(&meter);
    println!(
        "{}",
        serde_json::to_string(&figures).expect("figures are plain")
    );
}
