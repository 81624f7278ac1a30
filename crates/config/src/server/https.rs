//! HTTPS for visitors: `server.https`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use adit_server::{HostCertificate, HttpsSettings};

use super::acme;
use crate::{
    certificates::identity,
    error::ConfigError,
    key_names,
    ranges::PORT,
    read::{Item, Section},
};

/// The port for HTTPS visitors, if the section does not name one.
const DEFAULT_PORT: u16 = 7443;

/// A certificate, and whether it is the default.
type Certificate = (Arc<HostCertificate>, bool);

/// Reads the section: certificates in a list, or one beside the port. Without the section there is no HTTPS.
pub(super) fn read(
    section: &mut Section<'_>,
    bind_addr: IpAddr,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<HttpsSettings>, ConfigError> {
    let mut port = DEFAULT_PORT;
    section.set_number("bind_port", PORT, &mut port)?;
    let own = certificate(section, file, warnings)?;
    let list = match section.item("certificates") {
        Some(item) => certificates(&item, file, warnings)?,
        None => Vec::new(),
    };
    let mut acme = section.section("acme")?;
    let (acme, acme_hosts) = acme::read(&mut acme, file, warnings)?.unzip();
    section.finish(&key_names::HTTPS)?;
    if !section.is_written() {
        return Ok(None);
    }
    if own.is_some() && !list.is_empty() {
        return Err(section.conflict(
            &["certificates", "cert_file"],
            "expected either `cert_file` or a list `certificates`",
        ));
    }
    let all: Vec<Certificate> = own.into_iter().chain(list).collect();
    let mut defaults = all.iter().filter(|(_, is_default)| *is_default);
    let default = defaults.next().map(|(certificate, _)| certificate.clone());
    if defaults.next().is_some() {
        return Err(section.conflict(
            &["certificates"],
            "more than one certificate is the default",
        ));
    }
    Ok(Some(HttpsSettings {
        addr: SocketAddr::new(bind_addr, port),
        certificates: all
            .into_iter()
            .map(|(certificate, _)| certificate)
            .collect(),
        default,
        acme: acme.map(Arc::new),
        acme_hosts: acme_hosts.unwrap_or_default(),
    }))
}

fn certificates(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Certificate>, ConfigError> {
    let mut certificates = Vec::new();
    for item in item.list("certificates")? {
        let mut section = item.section()?;
        let certificate = certificate(&mut section, file, warnings)?;
        section.finish(&key_names::NO_OTHER_KEYS)?;
        let missing = || section.missing("cert_file", "the path of a certificate in PEM");
        certificates.push(certificate.ok_or_else(missing)?);
    }
    Ok(certificates)
}

/// Reads `cert_file`, `key_file` and `default`.
fn certificate(
    section: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<Certificate>, ConfigError> {
    let identity = identity(section, file, warnings)?;
    let is_default = match section.item("default") {
        Some(item) => item.boolean()?,
        None => false,
    };
    let Some(identity) = identity else {
        return match is_default {
            true => Err(section.missing("cert_file", "the path of the default certificate in PEM")),
            false => Ok(None),
        };
    };
    let certificate = HostCertificate::new(identity)
        .map_err(|error| section.conflict(&["cert_file"], error.to_string()))?;
    if certificate.is_nameless() && !is_default {
        return Err(section
            .conflict(
                &["cert_file"],
                "the certificate is for no host: it has no DNS name among the alternative names of its subject",
            )
            .with_help("use one that has the hosts of visitors, or set `default: true`"));
    }
    Ok(Some((Arc::new(certificate), is_default)))
}
