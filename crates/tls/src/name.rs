//! Names that certificates are valid for.

use rustls::pki_types::ServerName;
use thiserror::Error;

/// A host name or an IP address that a certificate can be valid for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsName(Box<str>);

/// A text that is neither a host name nor an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a host name or an address, found {0:?}")]
pub struct NameError(String);

impl TlsName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`]: the text is neither a host name nor an IP address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(NameError(text.to_owned())),
        }
    }

    /// The name as it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
