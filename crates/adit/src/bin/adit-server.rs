//! `adit-server`, the public side.

use std::process::ExitCode;

use adit::{cli, report, serve};
use clap::Parser;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Without a higher limit, fewer visitors can connect at a time.
    let _ = adit_server::raise_descriptor_limit();
    report::exit(serve::run(&cli::Server::parse()))
}
