//! Where the keys of an issuer come from, and the keys of a file.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use adit_auth::{JwtAlgorithm, JwtKey, JwtKeyError};
use adit_tls::Trust;
use thiserror::Error;

use crate::{
    jwks::{JwksError, MAX_KEYS, read_jwks},
    jwks_url::JwksUrl,
};

/// The longest file or response with keys.
pub const MAX_KEY_BYTES: usize = 256 * 1024;

/// Where the keys of an issuer come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Public keys in PEM, one or several.
    PemFile {
        /// The file.
        path: PathBuf,
        /// The algorithm of all of them.
        algorithm: JwtAlgorithm,
    },
    /// A secret that the issuer has too: the content of a file, without white space at its end.
    SecretFile {
        /// The file.
        path: PathBuf,
        /// The algorithm.
        algorithm: JwtAlgorithm,
    },
    /// A set of keys in a file.
    JwksFile {
        /// The file.
        path: PathBuf,
        /// Keys for other algorithms are skipped.
        algorithm: Option<JwtAlgorithm>,
    },
    /// A set of keys at a URL.
    JwksUrl(UrlSource),
}

/// A set of keys at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlSource {
    /// The URL.
    pub url: JwksUrl,
    /// Keys for other algorithms are skipped.
    pub algorithm: Option<JwtAlgorithm>,
    /// How the certificate of the URL's server is verified.
    pub trust: Trust,
    /// The time between two requests when no key is missing.
    pub refresh: Duration,
    /// The longest time of one request.
    pub timeout: Duration,
}

impl UrlSource {
    /// A source that is read every ten minutes, and whose certificate is verified by the trust store of the system.
    #[must_use]
    pub fn new(url: JwksUrl) -> Self {
        Self {
            url,
            algorithm: None,
            trust: Trust::System,
            refresh: Duration::from_secs(600),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Why the keys of an issuer cannot be read. The text names the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeySourceError {
    /// The file cannot be read.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// TLS cannot be set up for the URL.
    #[error("{0}")]
    Tls(String),
}

impl KeySource {
    /// The file, if the keys are in one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::PemFile { path, .. }
            | Self::SecretFile { path, .. }
            | Self::JwksFile { path, .. } => Some(path),
            Self::JwksUrl(_) => None,
        }
    }

    /// Whether the keys of both come from the same place, if not in the same way.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::JwksUrl(one), Self::JwksUrl(other)) => one.url == other.url,
            _ => self.path().is_some() && self.path() == other.path(),
        }
    }

    /// Whether the keys of a file can be read now.
    ///
    /// # Errors
    /// [`KeySourceError`].
    pub fn check(&self) -> Result<(), KeySourceError> {
        read_file(self).map(drop)
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.path()) {
            (Self::JwksUrl(source), _) => source.url.fmt(f),
            (_, Some(path)) => path.display().fmt(f),
            (_, None) => Ok(()),
        }
    }
}

/// The keys of the file of a source; none for a URL.
///
/// # Errors
/// [`KeySourceError`].
pub(crate) fn read_file(source: &KeySource) -> Result<Vec<JwtKey>, KeySourceError> {
    let Some(path) = source.path() else {
        return Ok(Vec::new());
    };
    let failed = |problem: String| KeySourceError::File {
        path: path.display().to_string(),
        problem,
    };
    let bytes = read(path).map_err(|error| failed(error.to_string()))?;
    let text =
        || str::from_utf8(&bytes).map_err(|_| failed("the keys are not text in UTF-8".to_owned()));
    let key = |error: JwtKeyError| failed(error.to_string());
    match source {
        KeySource::PemFile { algorithm, .. } => pem_keys(text()?, *algorithm).map_err(failed),
        KeySource::SecretFile { algorithm, .. } => {
            let secret = bytes.trim_ascii_end();
            Ok(vec![JwtKey::from_secret(*algorithm, secret).map_err(key)?])
        }
        KeySource::JwksFile { algorithm, .. } => read_jwks(text()?, *algorithm, true)
            .map_err(|error: JwksError| failed(error.to_string())),
        KeySource::JwksUrl(_) => Ok(Vec::new()),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_KEY_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > MAX_KEY_BYTES {
        let error = format!("larger than {MAX_KEY_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(bytes)
}

/// The keys of a text with one or several sections of PEM: while a key is replaced, the file has both.
fn pem_keys(text: &str, algorithm: JwtAlgorithm) -> Result<Vec<JwtKey>, String> {
    const BEGIN: &str = "-----BEGIN ";
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    if starts.len() > MAX_KEYS {
        return Err(format!(
            "{} keys in PEM, expected at most {MAX_KEYS}",
            starts.len()
        ));
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let sections: Vec<&str> = { starts.iter().copied().zip(ends) }
        .filter_map(|(start, end)| text.get(start..end))
        .collect();
    let mut keys = Vec::with_capacity(sections.len());
    for section in &sections {
        keys.push(JwtKey::from_pem(algorithm, section).map_err(|error| error.to_string())?);
    }
    if keys.is_empty() {
        return Err(JwtKeyError::Pem(algorithm).to_string());
    }
    Ok(keys)
}
