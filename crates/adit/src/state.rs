//! The files through which processes of one machine find each other.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use adit_config::{
    RunningServer, StateDir,
    permissions::{Owner, check_secret, owner},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::report::Failed;

/// A client that checks for a running server holds the lock for a moment; a server holds it while it runs.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A file that exists as long as its process; removed when dropped.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // A newer process may have replaced the file with its own.
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

/// A running client, the content of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningClient {
    /// The process id of the client.
    pub pid: u32,
    /// The client id.
    pub client_id: String,
    /// The address of the client's status.
    pub admin_addr: Option<SocketAddr>,
}

/// The access of a server to the state directory while the server runs.
#[derive(Debug)]
pub enum StateDirLock {
    /// The server keeps its token and its addresses in the directory. Locked where the system can lock.
    Held(Option<File>),
    /// The access is read-only: another running server holds the directory.
    HeldByOther,
    /// No access: the directory cannot be created or written.
    Unusable,
}

/// Takes the state directory for a server, or logs a warning: a server runs without it as well.
pub fn hold(state: &StateDir) -> StateDirLock {
    let path = state.lock_file();
    let dir = state.path().display();
    let file = match adit_private_file::make_dir(state.path()).and_then(|()| open_lock(&path)) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(
                "cannot use the state directory {dir} ({error}): `adit status` and clients on this machine do not find \
                 this server; point --state-dir at a directory that can be written"
            );
            return StateDirLock::Unusable;
        }
    };
    if let Ok(Owner::Other(uid)) = fs::metadata(state.path()).map(|metadata| owner(&metadata)) {
        tracing::warn!(
            "the state directory {dir} belongs to another user (uid {uid}), who can replace its files"
        );
    }
    let mut locked = file.try_lock();
    for _ in 0..LOCK_TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(LOCK_PAUSE);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => StateDirLock::Held(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let first = state.running_server().ok().flatten();
            let pid = first.map_or_else(String::new, |first| format!(" (pid {})", first.pid));
            tracing::warn!(
                "another adit-server{pid} uses the state directory {dir}: clients on this machine and `adit status` find \
                 that server, not this one; start this server with its own --state-dir"
            );
            StateDirLock::HeldByOther
        }
        // Some network file systems do not support locks. Then clients use the server that started last.
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "the state directory cannot be locked");
            StateDirLock::Held(None)
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// The token of this machine: the stored one, or a new one from `random`, readable by its owner only. Without it no
/// client could register, so the program ends if the directory cannot store it.
///
/// # Errors
/// The token can be neither read nor stored, or another user may have chosen it.
pub fn token(
    state: &StateDir,
    hold: &StateDirLock,
    random: [u8; 32],
) -> Result<SecretString, Failed> {
    let path = state.token_file();
    match read_token(&path) {
        Ok(Some(token)) => return Ok(token),
        Ok(None) => {}
        Err(error) => return Err(Failed::other(error)),
    }
    if let StateDirLock::HeldByOther = hold {
        return Err(Failed::other(format!(
            "missing token for clients; another adit-server uses the state directory {}: set ADIT__TOKEN or \
             server.auth, or start this server with its own --state-dir",
            state.path().display()
        )));
    }
    let token = adit_auth::generate_token(random);
    adit_private_file::replace(&path, token.expose_secret().as_bytes()).map_err(|error| {
        Failed::other(format!(
            "cannot keep a token for clients in {}: {error}; set ADIT__TOKEN or server.auth, or point --state-dir at a \
             directory that this user can write",
            path.display()
        ))
    })?;
    Ok(token)
}

fn read_token(path: &Path) -> Result<Option<SecretString>, String> {
    let unreadable =
        |error: io::Error| format!("cannot read the token {}: {error}", path.display());
    let text = match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) => return Ok(None),
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(unreadable(error)),
            };
        }
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if let Owner::Other(uid) = owner(&metadata) {
        return Err(format!(
            "the token {} belongs to another user (uid {uid}), who could then admit clients: remove it, or point \
             --state-dir at a directory of this user",
            path.display()
        ));
    }
    if let Some(warning) = check_secret(path, &metadata)? {
        tracing::warn!("{warning}");
    }
    Ok(Some(text.trim().to_owned().into()))
}

/// Writes the addresses of the server, unless another server holds the directory. When the file appears, it is complete
/// and the server accepts connections. If the directory cannot be written, a warning is logged.
pub fn announce_server(
    state: &StateDir,
    hold: &StateDirLock,
    server: &RunningServer,
) -> Option<StateFile> {
    match hold {
        StateDirLock::Held(_) => announce(state.server_file(), server),
        StateDirLock::HeldByOther | StateDirLock::Unusable => None,
    }
}

/// Writes the address of a client's status. If the directory cannot be written, a warning is logged.
pub fn announce_client(state: &StateDir, client: &RunningClient) -> Option<StateFile> {
    let name = format!("{}.{}.json", client.client_id, client.pid);
    announce(clients_dir(state.path()).join(name), client)
}

/// The clients of this machine by their files. A client that was killed may be among them.
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

fn announce(path: PathBuf, what: &impl Serialize) -> Option<StateFile> {
    let text = serde_json::to_vec(what).unwrap_or_default();
    match adit_private_file::replace(&path, &text) {
        Ok(()) => Some(StateFile { path }),
        Err(error) => {
            tracing::warn!(
                "cannot write {} ({error}): other programs of adit on this machine cannot find this one; point --state-dir \
                 at a directory that can be written",
                path.display()
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_created_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("deep/state"));
        let hold = hold(&state);
        let first = token(&state, &hold, [1; 32]).unwrap();
        let again = token(&state, &hold, [2; 32]).unwrap();
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
        let state_file = announce_client(&state, &client).unwrap();
        assert_eq!(running_clients(&state), [client.clone()]);
        drop(state_file);
        assert_eq!(running_clients(&state), []);

        let state_file = announce_client(&state, &client).unwrap();
        client.pid += 1;
        fs::write(&state_file.path, serde_json::to_vec(&client).unwrap()).unwrap();
        drop(state_file);
        assert_eq!(running_clients(&state), [client]);
    }

    fn server(pid: u32) -> RunningServer {
        let addr: SocketAddr = ([127, 0, 0, 1], 1).into();
        RunningServer {
            pid,
            tunnel_addr: addr,
            http_addr: addr,
            admin_addr: None,
            own_ca: false,
        }
    }

    #[test]
    fn a_second_server_keeps_the_files_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let us = std::process::id();
        let first = hold(&state);
        let state_file = announce_server(&state, &first, &server(us));
        let second = hold(&state);
        assert!(matches!(second, StateDirLock::HeldByOther), "{second:?}");
        assert!(announce_server(&state, &second, &server(us)).is_none());
        let refused = token(&state, &second, [1; 32]).unwrap_err().to_string();
        assert!(refused.contains("another adit-server"), "{refused}");
        drop(second);
        assert_eq!(state.running_server().unwrap(), Some(server(us)));
        // When the first server has ended, the next one gets the directory.
        drop((state_file, first));
        let third = hold(&state);
        assert!(announce_server(&state, &third, &server(us)).is_some());
    }

    #[test]
    fn an_unusable_directory_prevents_only_a_new_token() {
        for path in ["/proc/adit", "/dev/null/adit"] {
            let state = StateDir::new(path);
            let hold = hold(&state);
            assert!(matches!(hold, StateDirLock::Unusable), "{hold:?}");
            assert!(announce_server(&state, &hold, &server(1)).is_none());
            let client = RunningClient {
                pid: 1,
                client_id: "a".into(),
                admin_addr: None,
            };
            assert!(announce_client(&state, &client).is_none());
            let refused = token(&state, &hold, [1; 32]).unwrap_err().to_string();
            assert!(refused.contains("ADIT__TOKEN"), "{refused}");
        }
    }

    #[test]
    fn a_token_file_of_another_user_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let hold = hold(&state);
        token(&state, &hold, [1; 32]).unwrap();
        // Only root can change the owner of a file; other users skip the test.
        if std::os::unix::fs::chown(state.token_file(), Some(12_345), None).is_err() {
            return;
        }
        let refused = token(&state, &hold, [1; 32]).unwrap_err().to_string();
        assert!(refused.contains("uid 12345"), "{refused}");
    }

    #[test]
    fn a_token_file_that_all_users_can_write_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let hold = hold(&state);
        token(&state, &hold, [1; 32]).unwrap();
        fs::set_permissions(state.token_file(), fs::Permissions::from_mode(0o666)).unwrap();
        let refused = token(&state, &hold, [1; 32]).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }
}
