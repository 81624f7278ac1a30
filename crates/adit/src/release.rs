//! `adit-server release`: takes a name from the user that owns it.

use std::{path::Path, time::Duration};

use adit_config::StateDir;
use adit_net::{Stream, connect_unix};
use adit_server::names::{Name, NamesFile};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    admin_request, cli,
    load::load,
    outln,
    report::Failed,
    runtime::background,
    state::{self, StateDirLock},
};

/// Longest time for the response of a running server.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// Sends the command to the server that runs on the state directory; without one, edits the file of names.
///
/// # Errors
/// The name is in use or has no owner, or the server or its file cannot be reached.
pub fn run(command: &cli::Server, release: &cli::Release) -> Result<(), Failed> {
    let name = Name::parse(&release.kind, &release.name).map_err(Failed::config)?;
    let state = StateDir::new(load(command)?.settings.state_dir);
    let socket = state.admin_socket();
    let running =
        background()?.block_on(async { timeout(RESPONSE_WITHIN, send(&socket, &name)).await });
    let released = match running {
        Ok(Some(released)) => released?,
        Ok(None) => {
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
        Err(_) => {
            let text = format!("the server at {} does not respond", socket.display());
            return Err(Failed::other(text));
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

/// The number of names that the running server released; `None` when no server runs.
async fn send(socket: &Path, name: &Name) -> Option<Result<usize, Failed>> {
    let stream = match connect_unix(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return None;
        }
        Err(error) => {
            let text = format!("cannot open {}: {error}", socket.display());
            return Some(Err(Failed::other(text)));
        }
    };
    Some(send_over(stream, name).await)
}

async fn send_over(stream: Stream, name: &Name) -> Result<usize, Failed> {
    let fail = |error: &dyn std::fmt::Display| {
        Failed::other(format!("cannot reach the running server: {error}"))
    };
    let body = json!({ "kind": name.kind(), "name": name.text() }).to_string();
    let request = http::Request::post("/api/names/release")
        .header(http::header::HOST, "localhost")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| fail(&error))?;
    let sent = admin_request::send(stream, request).await;
    let body = sent.map_err(|error| fail(&error))?;
    match (body["released"].as_u64(), body["error"].as_str()) {
        (Some(released), _) => Ok(usize::try_from(released).unwrap_or(usize::MAX)),
        (None, Some(error)) => Err(Failed::other(error)),
        (None, None) => Err(fail(&body)),
    }
}
