//! Where certificates are obtained, and how.

use std::{fmt, time::Duration};

use adit_tls::Roots;
use base64::{
    Engine,
    prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use http::Uri;
use secrecy::{ExposeSecret, SecretSlice};
use thiserror::Error;

use crate::{dns::Dns01, schedule::Policy};

/// The production CA of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The staging CA of Let's Encrypt.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// A CA and the account at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca {
    directory: String,
    roots: Option<Roots>,
    email: Option<String>,
    binding: Option<ExternalBinding>,
}

/// The key by which a CA connects an ACME account to one that it knows already (RFC 8555, 7.3.4). `Debug` has no part of
/// the key.
#[derive(Clone)]
pub struct ExternalBinding {
    pub(crate) key_id: String,
    pub(crate) key: SecretSlice<u8>,
}

/// A value of a CA's settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CaError {
    /// The directory is not a URL of HTTPS.
    #[error("expected a URL such as {LETS_ENCRYPT:?}, found {0:?}")]
    Directory(String),
    /// The address is not one of e-mail.
    #[error("expected an address such as \"admin@example.com\", found {0:?}")]
    Email(String),
    /// The key of the external account is not in base64url.
    #[error("the key of the external account is not valid base64url; copy it as the CA shows it")]
    ExternalKey,
}

impl Ca {
    /// The CA with this directory, verified by the trust store of the system.
    ///
    /// # Errors
    /// [`CaError::Directory`].
    pub fn new(directory: &str) -> Result<Self, CaError> {
        let invalid = || CaError::Directory(directory.to_owned());
        let uri: Uri = directory.parse().map_err(|_| invalid())?;
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        Ok(Self {
            directory: directory.to_owned(),
            roots: None,
            email: None,
            binding: None,
        })
    }

    /// Trusts these root certificates, and no others, for the connection to the CA: a private CA such as step-ca.
    #[must_use]
    pub fn with_roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Names an address to which the CA writes.
    ///
    /// # Errors
    /// [`CaError::Email`].
    pub fn with_email(mut self, email: &str) -> Result<Self, CaError> {
        let valid = email.split_once('@').is_some_and(|(name, host)| {
            let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | ',' | '?' | '<' | '>');
            !name.is_empty() && !host.is_empty() && name.chars().all(fits) && host.chars().all(fits)
        });
        if !valid {
            return Err(CaError::Email(email.to_owned()));
        }
        self.email = Some(email.to_owned());
        Ok(self)
    }

    /// Connects the account to one that the CA knows. `key` is in base64url, with or without padding, as CAs show it.
    ///
    /// # Errors
    /// [`CaError::ExternalKey`].
    pub fn with_external_account(mut self, key_id: &str, key: &str) -> Result<Self, CaError> {
        let key = key.trim();
        let decoded = BASE64_URL_SAFE_NO_PAD
            .decode(key)
            .or_else(|_| BASE64_URL_SAFE.decode(key))
            .map_err(|_| CaError::ExternalKey)?;
        if decoded.is_empty() {
            return Err(CaError::ExternalKey);
        }
        self.binding = Some(ExternalBinding {
            key_id: key_id.to_owned(),
            key: decoded.into(),
        });
        Ok(self)
    }

    /// Another CA with the same roots and contact, and without an external account.
    ///
    /// # Errors
    /// [`CaError::Directory`].
    pub fn at(self, directory: &str) -> Result<Self, CaError> {
        Ok(Self {
            directory: Self::new(directory)?.directory,
            binding: None,
            ..self
        })
    }

    /// The URL of the directory.
    #[must_use]
    pub fn directory(&self) -> &str {
        &self.directory
    }

    pub(crate) fn roots(&self) -> Option<&Roots> {
        self.roots.as_ref()
    }

    /// The contacts of the account, as URLs.
    pub(crate) fn contacts(&self) -> Vec<String> {
        let email = self.email.iter();
        email.map(|email| format!("mailto:{email}")).collect()
    }

    pub(crate) fn binding(&self) -> Option<&ExternalBinding> {
        self.binding.as_ref()
    }
}

impl ExternalBinding {
    pub(crate) fn key(&self) -> instant_acme::ExternalAccountKey {
        instant_acme::ExternalAccountKey::new(self.key_id.clone(), self.key.expose_secret())
    }
}

impl PartialEq for ExternalBinding {
    fn eq(&self, other: &Self) -> bool {
        self.key_id == other.key_id && self.key.expose_secret() == other.key.expose_secret()
    }
}

impl Eq for ExternalBinding {}

impl fmt::Debug for ExternalBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalBinding")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// How the CA validates names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// The CA requests a path over HTTP on port 80.
    Http01,
    /// The CA makes a TLS handshake on port 443.
    TlsAlpn01,
    /// The CA reads a record of DNS. The only one for wildcard names.
    Dns01(Box<Dns01>),
}

impl Validation {
    /// The name of the method, as in RFC 8555.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01(_) => "dns-01",
        }
    }
}

/// The times of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// One request to the CA, with its response.
    pub request: Duration,
    /// From the moment at which the CA may validate until it has.
    pub validation: Duration,
    /// From the last step of an order until the certificate is there.
    pub issuance: Duration,
    /// At a shutdown, how long an order in its last step may take: its certificate counts at the CA.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            validation: Duration::from_secs(120),
            issuance: Duration::from_secs(120),
            shutdown: Duration::from_secs(10),
        }
    }
}

/// The settings of a [`Manager`](crate::Manager).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The CA whose certificates are used.
    pub production: Ca,
    /// The CA that orders go to after a failure, until one passes.
    pub staging: Option<Ca>,
    /// How the CA validates names.
    pub validation: Validation,
    /// The numbers of the schedule. [`Policy::staging`] follows from [`staging`](Self::staging).
    pub policy: Policy,
    /// The times of an order.
    pub timeouts: Timeouts,
    /// The most orders that run at the same time, at least 1.
    pub max_orders: usize,
    /// The most names; more are ignored, with a warning.
    pub max_names: usize,
    /// For so long what is stored of a name is kept after its certificate has expired and its last order was made.
    pub keep_unused: Duration,
}

impl Settings {
    /// Settings for a CA, with defaults for the rest. The production CA of Let's Encrypt gets its staging CA, with the same
    /// contact.
    #[must_use]
    pub fn new(production: Ca, validation: Validation) -> Self {
        let staging = (production.directory == LETS_ENCRYPT).then(|| Ca {
            directory: LETS_ENCRYPT_STAGING.to_owned(),
            binding: None,
            ..production.clone()
        });
        Self {
            production,
            staging,
            validation,
            policy: Policy::default(),
            timeouts: Timeouts::default(),
            max_orders: 4,
            max_names: 10_000,
            keep_unused: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_url_of_https() {
        Ca::new(LETS_ENCRYPT).unwrap();
        Ca::new("https://127.0.0.1:14000/dir").unwrap();
        for directory in [
            "http://ca.example/dir",
            "ca.example",
            "",
            "https://",
            "/dir",
        ] {
            assert_eq!(
                Ca::new(directory).err(),
                Some(CaError::Directory(directory.to_owned()))
            );
        }
    }

    #[test]
    fn an_address_and_an_external_key_are_checked() {
        let ca = || Ca::new(LETS_ENCRYPT).unwrap();
        let with = ca().with_email("admin@example.com").unwrap();
        assert_eq!(with.contacts(), ["mailto:admin@example.com"]);
        for email in [
            "admin",
            "@example.com",
            "a@b,c@d",
            "a b@example.com",
            "mailto:",
        ] {
            assert!(ca().with_email(email).is_err(), "{email}");
        }
        let secret = "c2VjcmV0LXNlY3JldA";
        let bound = ca().with_external_account("kid-1", secret).unwrap();
        assert!(!format!("{bound:?}").contains(secret));
        assert!(
            ca().with_external_account("kid-1", "c2VjcmV0LXNlY3JldA==")
                .is_ok()
        );
        for key in ["", "!", "c2VjcmV0+/"] {
            assert_eq!(
                ca().with_external_account("k", key).err(),
                Some(CaError::ExternalKey)
            );
        }
    }

    #[test]
    fn lets_encrypt_has_its_staging_ca() {
        let ca = Ca::new(LETS_ENCRYPT).unwrap();
        let settings = Settings::new(ca, Validation::Http01);
        let staging = settings.staging.unwrap();
        assert_eq!(staging.directory(), LETS_ENCRYPT_STAGING);
        let other = Ca::new("https://ca.example/dir").unwrap();
        assert!(Settings::new(other, Validation::Http01).staging.is_none());
    }
}
