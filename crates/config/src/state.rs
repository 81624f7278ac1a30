//! The state directory: where a server stores its addresses and token for clients of the same machine.

use std::{
    fs::{self, TryLockError},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use adit_client::HostPort;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{
    environment::Variables,
    error::{ConfigError, Origin},
    token,
};

/// The directory of the token and the addresses of a server on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// The addresses of a running server, the content of [`StateDir::server_file`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningServer {
    /// The process id of the server.
    pub pid: u32,
    /// Address for clients.
    pub tunnel_addr: SocketAddr,
    /// Address for HTTP visitors.
    pub http_addr: SocketAddr,
    /// Address for HTTPS visitors, if there is one.
    #[serde(default)]
    pub https_addr: Option<SocketAddr>,
    /// Address of the admin port, if there is one.
    #[serde(default)]
    pub admin_addr: Option<SocketAddr>,
    /// Whether clients connect over TLS, and the server's certificate is of the CA in [`StateDir::ca_file`].
    #[serde(default)]
    pub own_ca: bool,
}

impl StateDir {
    /// The directory at this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory when no file is read: that of `flag`, or else of `ADIT__STATE_DIR`, `$XDG_STATE_HOME/adit`,
    /// `$HOME/.local/state/adit`, or `/var/lib/adit`.
    #[must_use]
    pub fn find(
        flag: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self::choose(flag, None, &Variables::new(variables))
    }

    /// Finds the directory as [`find`](Self::find) does, with the value of a file after those of the flag and the
    /// variable.
    pub(crate) fn choose(
        flag: Option<&Path>,
        file: Option<PathBuf>,
        variables: &Variables,
    ) -> Self {
        // The XDG specification requires relative paths to be ignored.
        let absolute = |name| {
            variables
                .value(name)
                .map(Path::new)
                .filter(|path| path.is_absolute())
        };
        Self(
            flag.or_else(|| variables.value("ADIT__STATE_DIR").map(Path::new))
                .map(Path::to_path_buf)
                .or(file)
                .or_else(|| absolute("XDG_STATE_HOME").map(|path| path.join("adit")))
                .or_else(|| absolute("HOME").map(|path| path.join(".local/state/adit")))
                .unwrap_or_else(|| PathBuf::from("/var/lib/adit")),
        )
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of the token that a server generated for clients of this machine; readable by its owner only.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.0.join("token")
    }

    /// The file with the certificates of the server's own CA, in PEM.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.0.join("tls/ca.crt")
    }

    /// The file of the server that this client has joined: address, trust and credential; readable by its owner only.
    #[must_use]
    pub fn joined_file(&self) -> PathBuf {
        self.0.join("joined.json")
    }

    /// The file of the running server's addresses, as JSON.
    #[must_use]
    pub fn server_file(&self) -> PathBuf {
        self.0.join("server.json")
    }

    /// The Unix socket on which the running server accepts commands; only its owner may open it.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// The server on this machine, if one has stored its addresses. It may have been killed since.
    ///
    /// # Errors
    /// The file cannot be read, or was not written by a server.
    pub fn running_server(&self) -> Result<Option<RunningServer>, ConfigError> {
        let file = self.server_file();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => {
                return Err(unreadable(&file, &error).with_help(
                    "run as the user of the server, or name another directory with --state-dir",
                ));
            }
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            ConfigError::new(
                Origin::place(error.line(), error.column()),
                "",
                "expected the addresses of a running server",
            )
            .in_file(&file)
            .with_help("start the server again, or remove this file")
        })
    }

    /// The file that a running server keeps locked.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.0.join("server.lock")
    }

    /// Whether a running server holds the directory: the file of addresses alone may be left from a killed server. The
    /// lock is tried only if that file exists, because a server that starts at this moment could not take it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        if !self.server_file().exists() {
            return false;
        }
        let lock = fs::File::open(self.lock_file());
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The token of the server on this machine.
    pub(crate) fn token(
        &self,
        warnings: &mut Vec<String>,
    ) -> Result<Option<SecretString>, ConfigError> {
        let file = self.token_file();
        if fs::metadata(&file).is_err_and(|error| is_absent(&error)) {
            return Ok(None);
        }
        let refused = |problem| {
            ConfigError::new(Origin::place(0, 0), "", problem)
                .in_file(&file)
                .with_help(
                    "run as the user of the server, or give a token with --token-file or ADIT__TOKEN",
                )
        };
        token::read_file(&file, warnings).map(Some).map_err(refused)
    }
}

/// Whether the error means that the file does not exist, or that its directory is a file.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl RunningServer {
    /// Whether a client of this machine that connects to `server` reaches this one.
    pub(crate) fn is_at(&self, server: &HostPort) -> bool {
        let ip = self.tunnel_addr.ip();
        self.tunnel_addr.port() == server.port()
            && (server.ip() == Some(ip)
                || server.is_loopback() && (ip.is_unspecified() || ip.is_loopback()))
    }

    /// The address for a client on the same machine: loopback, if the server listens on all addresses.
    #[must_use]
    pub fn dial_addr(&self) -> SocketAddr {
        reachable(self.tunnel_addr)
    }
}

/// The address with an unspecified IP replaced by loopback, because not every system connects to the former.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

fn unreadable(file: &Path, error: &io::Error) -> ConfigError {
    ConfigError::new(
        Origin::place(0, 0),
        "",
        format!("the file cannot be read: {error}"),
    )
    .in_file(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(flag: Option<&str>, variables: &[(&str, &str)]) -> PathBuf {
        let owned = variables.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        StateDir::find(flag.map(Path::new), owned).0
    }

    #[test]
    fn the_directory_is_the_first_that_is_named() {
        let all = [
            ("ADIT__STATE_DIR", "/env"),
            ("XDG_STATE_HOME", "/xdg"),
            ("HOME", "/home/a"),
        ];
        assert_eq!(find(Some("flag"), &all), Path::new("flag"));
        assert_eq!(find(None, &all), Path::new("/env"));
        assert_eq!(find(None, &all[1..]), Path::new("/xdg/adit"));
        let home = Path::new("/home/a/.local/state/adit");
        assert_eq!(find(None, &all[2..]), home);
        assert_eq!(find(None, &[("XDG_STATE_HOME", "x"), all[2]]), home);
        assert_eq!(find(None, &[]), Path::new("/var/lib/adit"));
    }

    #[test]
    fn a_server_that_listens_everywhere_is_dialled_on_loopback() {
        for (listening, dialled) in [
            ("0.0.0.0:7000", "127.0.0.1:7000"),
            ("[::]:7001", "[::1]:7001"),
            ("192.0.2.1:7002", "192.0.2.1:7002"),
        ] {
            assert_eq!(
                listening.parse().map(reachable),
                dialled.parse::<SocketAddr>(),
                "{listening}"
            );
        }
    }
}
