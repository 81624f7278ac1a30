//! The certificate of a client, once its handshake has proved it, and the names in it.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::fingerprint::Fingerprint;

/// The certificate that a client has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvedCertificate {
    /// One of the server's own CA, for the credential with this id.
    OwnCa(String),
    /// One of a CA of the users of the server.
    ClientCa(ClientCertificate),
}

/// A certificate of a CA of the users of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The CA to which its chain leads.
    pub ca: Fingerprint,
    /// The common names of its subject.
    pub common_names: Vec<String>,
    /// The DNS names of its subject's alternative names.
    pub dns_names: Vec<String>,
    /// The URIs of its subject's alternative names.
    pub uris: Vec<String>,
    /// The end of its validity.
    pub expires: SystemTime,
}

impl ClientCertificate {
    /// Reads a certificate that was verified against `ca`. `None`: it has a form that this parser does not accept.
    pub(crate) fn read(certificate: &CertificateDer<'_>, ca: Fingerprint) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let common_names = { parsed.subject().iter_common_name() }
            // A name of another form than text counts as well: it is not skipped, and names no user.
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect();
        let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
        let alternatives = parsed.subject_alternative_name().ok()?;
        for name in alternatives.iter().flat_map(|one| &one.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        Some(Self {
            ca,
            common_names,
            dns_names,
            uris,
            expires: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(expires))
                .unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }
}
