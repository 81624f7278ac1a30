//! The files by which processes of one machine find each other.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use adit_config::{RunningServer, StateDir};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::report::Failed;

/// A file that is there as long as its process; removed when dropped.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A newer process may have put its own in place: what it says is not ours to remove.
        if let Ok(text) = fs::read_to_string(&self.path)
            && let Ok(Pid { pid }) = serde_json::from_str(&text)
            && pid == std::process::id()
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[derive(Deserialize)]
struct Pid {
    pid: u32,
}

/// A running client, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningClient {
    /// Its process.
    pub pid: u32,
    /// Its name.
    pub client_id: String,
    /// Where its status is served.
    pub admin_addr: Option<SocketAddr>,
}

/// The token of this machine: the one kept, or a new one made of `random`, readable for its owner only.
///
/// # Errors
/// When the state directory cannot be used.
pub fn token(state: &StateDir, random: [u8; 32]) -> Result<SecretString, Failed> {
    let path = state.token_file();
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned().into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(&path, &error)),
    }
    let token = adit_auth::generate_token(random);
    write_private(&path, token.expose_secret().as_bytes())?;
    Ok(token)
}

/// Says where the server is. The file is complete when it appears: whoever waits for it may connect.
///
/// # Errors
/// When the state directory cannot be used.
pub fn announce_server(state: &StateDir, server: &RunningServer) -> Result<Presence, Failed> {
    announce(state.server_file(), server)
}

/// Says where a client's status is.
///
/// # Errors
/// When the state directory cannot be used.
pub fn announce_client(state: &StateDir, client: &RunningClient) -> Result<Presence, Failed> {
    let name = format!("{}.{}.json", client.client_id, client.pid);
    announce(clients_dir(state.path()).join(name), client)
}

/// The clients that say they run on this machine. One that died without a word may be among them.
#[must_use]
pub fn running_clients(state: &StateDir) -> Vec<RunningClient> {
    let Ok(entries) = fs::read_dir(clients_dir(state.path())) else {
        return Vec::new();
    };
    let mut clients: Vec<RunningClient> = entries
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| serde_json::from_str(&text).ok())
        .collect();
    clients.sort_by(|a, b| (&a.client_id, a.pid).cmp(&(&b.client_id, b.pid)));
    clients
}

fn clients_dir(state: &Path) -> PathBuf {
    state.join("clients")
}

fn announce(path: PathBuf, what: &impl Serialize) -> Result<Presence, Failed> {
    let text = serde_json::to_vec(what).map_err(Failed::other)?;
    write_private(&path, &text)?;
    Ok(Presence { path })
}

/// Writes aside and renames, so that nobody reads half a file.
fn write_private(path: &Path, content: &[u8]) -> Result<(), Failed> {
    let fail = |error| unusable(path, &error);
    if let Some(parent) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(fail)?;
    }
    let aside = path.with_extension(format!("new.{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&aside, path))
        .map_err(fail)
}

fn unusable(path: &Path, error: &io::Error) -> Failed {
    Failed::other(format!(
        "cannot use {}: {error}; point --state-dir at a directory that this user can write",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("deep/state"));
        let first = token(&state, [1; 32]).unwrap();
        let again = token(&state, [2; 32]).unwrap();
        assert_eq!(first.expose_secret(), again.expose_secret());
        let mode = fs::metadata(state.token_file())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_presence_goes_with_its_process_but_not_another_ones() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let mut client = RunningClient {
            pid: std::process::id(),
            client_id: "a".into(),
            admin_addr: None,
        };
        let presence = announce_client(&state, &client).unwrap();
        assert_eq!(running_clients(&state), [client.clone()]);
        drop(presence);
        assert_eq!(running_clients(&state), []);

        let presence = announce_client(&state, &client).unwrap();
        client.pid += 1;
        fs::write(&presence.path, serde_json::to_vec(&client).unwrap()).unwrap();
        drop(presence);
        assert_eq!(running_clients(&state), [client]);
    }
}
