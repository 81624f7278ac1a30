//! `adit`, the private side.

use std::process::ExitCode;

use adit::{
    cli::{self, Command, Route},
    credentials, demo, hash_password, join, output, report, route, status, tunnel,
};
use adit_config::StateDir;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let adit = cli::Adit::read();
    // Without a higher limit, fewer visitors can connect at a time.
    let _ = adit_server::raise_descriptor_limit();
    report::exit(match &adit.command {
        None
        | Some(
            Command::Http(_)
            | Command::Grpc(_)
            | Command::Tcp(_)
            | Command::Udp(_)
            | Command::Start(_),
        ) => tunnel::run(&adit),
        Some(Command::Status) => status::run(&adit),
        Some(Command::Demo(options)) => demo::run(&adit, options),
        Some(Command::Route(Route::Test(test))) => route::run(&adit, test),
        Some(Command::Join(line)) => {
            let state = StateDir::find(adit.state_dir.as_deref(), adit_config::environment());
            join::run(&state, line)
        }
        Some(Command::Credentials(command)) => {
            let state = StateDir::find(adit.state_dir.as_deref(), adit_config::environment());
            credentials::check_used(&state)
                .and_then(|()| credentials::run(&state, command, adit.json))
        }
        Some(Command::HashPassword) => hash_password::run(),
        Some(Command::Completion { shell }) => {
            output::write_whole(&cli::completion(*shell));
            output::check_written()
        }
    })
}
