//! `adit-server release`: takes a name from the user that owns it.

use adit_config::StateDir;
use adit_server::names::{Name, NamesFile};
use serde_json::{Value, json};

use crate::{
    cli, control_request,
    load::load,
    outln,
    report::Failed,
    state::{self, StateDirLock},
};

/// Sends the command to the server that runs on the state directory; without one, edits the file of names.
///
/// # Errors
/// The name is in use or has no owner, or the server or its file cannot be reached.
pub fn run(command: &cli::Server, release: &cli::Release) -> Result<(), Failed> {
    let name = Name::parse(&release.kind, &release.name).map_err(Failed::config)?;
    let state = StateDir::new(load(command)?.settings.state_dir);
    let body = json!({ "kind": name.kind(), "name": name.text() });
    let released = match control_request::send(&state, "/api/names/release", &body)? {
        Some(body) => released(&body)?,
        None => {
            // The lock is held until the file is written: no server may start in between.
            let hold = state::hold(&state);
            if let StateDirLock::HeldByOther = hold {
                return Err(Failed::other(format!(
                    "a server runs on {} without a control socket; stop it first",
                    state.path().display()
                )));
            }
            let file = NamesFile::in_dir(state.path());
            let released = file.release(&name);
            released.map_err(|error| {
                Failed::other(format!("cannot change {}: {error}", file.path().display()))
            })?
        }
    };
    if released == 0 {
        return Err(Failed::other(format!("{name} has no owner")));
    }
    let with_it = match released {
        1 => String::new(),
        more => format!(", and {} names that belong to it", more - 1),
    };
    outln!("released {name}{with_it}");
    Ok(())
}

/// The number of names that the server released.
fn released(body: &Value) -> Result<usize, Failed> {
    let released = body["released"].as_u64();
    let released = released.ok_or_else(|| control_request::unknown(body))?;
    Ok(usize::try_from(released).unwrap_or(usize::MAX))
}
