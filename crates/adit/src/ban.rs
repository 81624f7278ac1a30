//! `adit-server ban`: shows or ends the bans of visitors' addresses.

use adit_config::StateDir;
use serde_json::{Value, json};

use crate::{cli, control_request, load::load, outln, report::Failed};

/// Sends the command to the server that runs on the state directory.
///
/// # Errors
/// No server runs, or it cannot be reached, or the address is invalid.
pub fn run(command: &cli::Server, ban: &cli::Ban) -> Result<(), Failed> {
    let state = StateDir::new(load(command)?.settings.state_dir);
    let (path, body) = match ban {
        cli::Ban::List => ("/api/bans", Value::Null),
        cli::Ban::Clear { address } => ("/api/bans/clear", json!({ "address": address })),
    };
    let response = control_request::send(&state, path, &body)?;
    let Some(response) = response else {
        let text = format!("no server runs on {}", state.path().display());
        return Err(Failed::other(text));
    };
    match ban {
        cli::Ban::List => list(&response, command.json)?,
        cli::Ban::Clear { .. } => {
            let cleared = response["cleared"].as_u64();
            let cleared = cleared.ok_or_else(|| control_request::unknown(&response))?;
            let bans = if cleared == 1 { "ban" } else { "bans" };
            outln!("{cleared} {bans} ended");
        }
    }
    Ok(())
}

fn list(response: &Value, json: bool) -> Result<(), Failed> {
    let bans = response["bans"].as_array();
    let bans = bans.ok_or_else(|| control_request::unknown(response))?;
    if json {
        outln!("{}", response["bans"]);
        return Ok(());
    }
    if bans.is_empty() {
        outln!("no address is banned");
        return Ok(());
    }
    outln!("{:<40} {:>10}   place", "network", "time left");
    for ban in bans {
        let text = |key: &str| ban[key].as_str().unwrap_or_default();
        let left = ban["seconds_left"].as_u64().unwrap_or_default();
        outln!("{:<40} {left:>8} s   {}", text("network"), text("place"));
    }
    Ok(())
}
