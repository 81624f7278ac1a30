//! The file of a server that the client has joined: address, trust and credential.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_net::HostPort;
use adit_tls::{ClientTls, Identity, Roots, SERVER_NAME, SetupError, TlsName, Trust};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest file: a few certificates and a key.
const LONGEST_FILE: u64 = 1 << 20;

/// Permissions with which others could replace the server that the client trusts.
const OTHERS_WRITE: u32 = 0o022;

/// A server that the client has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The address of the server.
    pub server: String,
    /// The user of the credential.
    pub user: String,
    /// The client id that was chosen when the client joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// How the server is trusted.
    pub trust: JoinedTrust,
    /// The credential.
    pub credential: JoinedCredential,
}

/// How a server is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinedTrust {
    /// By the certificates of its own CA, in PEM.
    OwnCa(String),
    /// By the trust store of the system.
    Public,
    /// Not at all: the connection is in clear text.
    Clear,
}

/// The credential of a client that has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinedCredential {
    /// A key.
    Key(#[serde(serialize_with = "exposed")] SecretString),
    /// A certificate of the server's own CA.
    Certificate(JoinedCertificate),
}

/// A certificate of the server's own CA, with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedCertificate {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM.
    #[serde(serialize_with = "exposed")]
    pub private_key: SecretString,
    /// When the client received it, in seconds since 1970.
    pub issued_at: u64,
    /// When it expires, in seconds since 1970.
    pub expires_at: u64,
}

/// The file is the one place where the secret is written.
fn exposed<S: serde::Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

/// Why the file cannot be used. No text contains a secret.
#[derive(Debug, Error)]
pub enum JoinedError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Other users can write it.
    #[error(
        "other users can write it (mode {0:04o}) and could replace the server: check it, and run chmod 600"
    )]
    Shared(u32),
    /// It is not one that `adit join` has written.
    #[error("invalid: {0}; join again with `adit join`")]
    Form(String),
}

impl Joined {
    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// [`JoinedError`].
    pub fn read(path: &Path) -> Result<Option<Self>, JoinedError> {
        let Some(text) = adit_private_file::read(path, LONGEST_FILE)? else {
            return Ok(None);
        };
        match adit_private_file::shared_mode(path) {
            Some(mode) if mode & OTHERS_WRITE != 0 => return Err(JoinedError::Shared(mode)),
            _ => {}
        }
        // The text of the error could contain a part of the key.
        let joined = serde_json::from_slice(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            JoinedError::Form(format!("JSON at line {line}, column {column}"))
        });
        joined.map(Some)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The file cannot be written; the old one is unchanged.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        adit_private_file::replace(path, &text)
    }

    /// The address of the server.
    ///
    /// # Errors
    /// [`JoinedError::Form`].
    pub fn server(&self) -> Result<HostPort, JoinedError> {
        let parsed = self.server.parse::<HostPort>();
        parsed.map_err(|error| JoinedError::Form(error.to_string()))
    }

    /// TLS on the connections to the server; `None` is clear text.
    ///
    /// # Errors
    /// [`JoinedError::Form`].
    pub fn tls(&self) -> Result<Option<ClientTls>, JoinedError> {
        let form = |error: String| JoinedError::Form(error);
        let identity = match &self.credential {
            JoinedCredential::Key(_) => None,
            JoinedCredential::Certificate(one) => {
                let key = one.private_key.expose_secret().as_bytes();
                let identity = Identity::from_pem(one.certificate.as_bytes(), key);
                Some(identity.map_err(|error| form(error.to_string()))?)
            }
        };
        let tls = match &self.trust {
            JoinedTrust::Clear => return Ok(None),
            JoinedTrust::Public => ClientTls::new(Trust::System, None, identity),
            JoinedTrust::OwnCa(pem) => by_own_ca(pem, identity)?,
        };
        tls.map(Some)
            .map_err(|error: SetupError| form(error.to_string()))
    }

    /// The key, if that is the credential.
    #[must_use]
    pub fn key(&self) -> Option<&SecretString> {
        match &self.credential {
            JoinedCredential::Key(key) => Some(key),
            JoinedCredential::Certificate(_) => None,
        }
    }
}

fn by_own_ca(
    pem: &str,
    identity: Option<Identity>,
) -> Result<Result<ClientTls, SetupError>, JoinedError> {
    let form = |error: String| JoinedError::Form(error);
    let roots = Roots::from_pem(pem.as_bytes()).map_err(|error| form(error.to_string()))?;
    let name = TlsName::parse(SERVER_NAME).map_err(|error| form(error.to_string()))?;
    Ok(ClientTls::new(Trust::Roots(roots), Some(name), identity))
}

impl JoinedCertificate {
    /// When the client requests another certificate: after two thirds of the lifetime.
    #[must_use]
    pub fn renewal(&self) -> SystemTime {
        let lifetime = self.expires_at.saturating_sub(self.issued_at);
        time(self.issued_at.saturating_add(lifetime / 3 * 2))
    }

    /// When it expires.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        time(self.expires_at)
    }
}

/// A time in seconds since 1970. A number beyond all times is now: what has it is renewed.
fn time(seconds: u64) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn joined() -> Joined {
        Joined {
            server: "tunnel.example.com:7000".to_owned(),
            user: "ann".to_owned(),
            client_id: None,
            trust: JoinedTrust::Public,
            credential: JoinedCredential::Key("adit_key_secret".into()),
        }
    }

    #[test]
    fn the_file_is_read_as_written_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joined.json");
        assert!(Joined::read(&path).unwrap().is_none());
        joined().write(&path).unwrap();
        let read = Joined::read(&path).unwrap().unwrap();
        assert_eq!(read.key().unwrap().expose_secret(), "adit_key_secret");
        assert_eq!(read.server().unwrap().to_string(), joined().server);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{read:?}").contains("secret\""), "{read:?}");
    }

    #[test]
    fn a_damaged_or_shared_file_is_an_error_without_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joined.json");
        fs::write(
            &path,
            r#"{"credential": {"key": "adit_key_secret"}, "x": 1}"#,
        )
        .unwrap();
        let error = Joined::read(&path).unwrap_err().to_string();
        assert!(error.contains("adit join"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = Joined::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_time_beyond_all_times_is_now() {
        let certificate = JoinedCertificate {
            certificate: String::new(),
            private_key: "".into(),
            issued_at: u64::MAX,
            expires_at: u64::MAX,
        };
        assert!(certificate.expires() <= SystemTime::now());
        assert!(certificate.renewal() <= SystemTime::now());
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds() {
        let certificate = JoinedCertificate {
            certificate: String::new(),
            private_key: "".into(),
            issued_at: 900,
            expires_at: 1200,
        };
        assert_eq!(
            certificate.renewal(),
            UNIX_EPOCH + Duration::from_secs(1100)
        );
    }
}
