//! `adit`, the private side.

use std::process::ExitCode;

use adit::{
    cli::{self, Command, Route},
    demo, report, route, status, tunnel,
};
use clap::Parser;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = cli::Adit::parse();
    report::exit(match &command.command {
        Command::Http(_)
        | Command::Grpc(_)
        | Command::Tcp(_)
        | Command::Udp(_)
        | Command::Start(_) => tunnel::run(&command),
        Command::Status => status::run(&command),
        Command::Demo(options) => demo::run(&command, options),
        Command::Route(Route::Test(test)) => route::run(&command, test),
        Command::Completion { shell } => {
            cli::completion(*shell, &mut std::io::stdout()).map_err(report::Failed::other)
        }
    })
}
