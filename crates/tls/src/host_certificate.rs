//! A certificate that a server shows to visitors, and the hosts that it is for.

use std::time::{Duration, SystemTime};

use thiserror::Error;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::identity::Identity;

/// A certificate with its key, and the hosts in it. Two values are equal if their certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    identity: Identity,
    names: Box<[HostName]>,
    expires: SystemTime,
}

/// A host name in a certificate, in lower case: a name, or all names with one label before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostName {
    Exact(Box<str>),
    /// The name without `*.`.
    Wildcard(Box<str>),
}

/// A certificate whose names cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the first certificate of the file cannot be read: {0}")]
pub struct HostCertificateError(String);

impl HostCertificate {
    /// Reads the names (DNS names of the subject's alternative names) and the expiry of a certificate. The common name is
    /// not a name: clients do not use it.
    ///
    /// # Errors
    /// [`HostCertificateError`].
    pub fn new(identity: Identity) -> Result<Self, HostCertificateError> {
        let certified = identity.certified();
        let der = certified.cert.first().map_or(&[][..], |first| first);
        let failed = |error: &dyn std::fmt::Display| HostCertificateError(error.to_string());
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| failed(&error))?;
        let alternatives = parsed
            .subject_alternative_name()
            .map_err(|error| failed(&error))?;
        let general = alternatives.map(|names| names.value.general_names.as_slice());
        let names = general
            .unwrap_or_default()
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => HostName::parse(name),
                _ => None,
            });
        let names = names.collect();
        let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        Ok(Self {
            identity,
            names,
            expires: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(expires))
                .unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// Whether the certificate is valid for a host, in any case. Addresses are no hosts.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.names.iter().any(|name| name.matches(host))
    }

    /// The names in the certificate, as it has them.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|name| match name {
            HostName::Exact(name) => name.to_string(),
            HostName::Wildcard(above) => format!("*.{above}"),
        })
    }

    /// Whether the certificate has no name of a host: no visitor asks for it by name.
    #[must_use]
    pub const fn is_nameless(&self) -> bool {
        self.names.is_empty()
    }

    /// The end of its validity.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) const fn host_names(&self) -> &[HostName] {
        &self.names
    }
}

impl HostName {
    /// Parses a DNS name of a certificate; `None` for a wildcard that is not the whole first label (RFC 9525, 6.3).
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(above) if !above.is_empty() && !above.contains('*') => {
                Some(Self::Wildcard(above.into()))
            }
            None if !name.is_empty() && !name.contains('*') => Some(Self::Exact(name.into())),
            _ => None,
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::Wildcard(above) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(above)),
        }
    }
}
