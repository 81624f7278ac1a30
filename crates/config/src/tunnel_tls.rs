//! TLS on the connections between server and client: `server.tls` and `client.tls`.

use std::path::Path;

use adit_tls::{ClientTls, Fingerprint, ServerTls, Trust};

use crate::{
    certificates::{identity, roots, server_name},
    error::ConfigError,
    key_names,
    read::{Item, Section},
};

/// Reads `server.tls`: `off`, or a section with a certificate and its key.
pub(crate) fn server(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<ServerTls>, ConfigError> {
    if item.is_off() {
        return Ok(None);
    }
    let mut section = item
        .section()
        .map_err(|_| item.error("expected `off`, or a section with `cert_file` and `key_file`"))?;
    let identity = identity(&mut section, file, warnings)?;
    let client_ca = match section.item("client_ca_file") {
        Some(item) => Some(roots(&item, file)?),
        None => None,
    };
    section.finish(&key_names::SERVER_TLS)?;
    let identity = identity.ok_or_else(|| {
        section.missing("cert_file", "the path of the server's certificate in PEM")
    })?;
    let tls = ServerTls::new(identity, client_ca);
    tls.map(Some).map_err(|error| item.error(error.to_string()))
}

/// Reads `client.tls`: `true` for the trust store of the platform, `off`, or a section.
pub(crate) fn client(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<ClientTls>, ConfigError> {
    if item.is_off() {
        return Ok(None);
    }
    let (trust, server_name, identity) = match item.boolean() {
        Ok(true) => (Trust::System, None, None),
        Ok(false) => return Ok(None),
        Err(_) => {
            let mut section = item.section().map_err(|_| {
                item.error(
                    "expected `true`, `off`, or a section with `ca_file`, `ca_fingerprint`, `server_name`, `cert_file` \
                     or `key_file`",
                )
            })?;
            let trust = trust(&mut section, file)?;
            let name = match section.item("server_name") {
                Some(item) => Some(server_name(&item)?),
                None => None,
            };
            let identity = identity(&mut section, file, warnings)?;
            section.finish(&key_names::CLIENT_TLS)?;
            (trust, name, identity)
        }
    };
    let tls = ClientTls::new(trust, server_name, identity);
    tls.map(Some).map_err(|error| item.error(error.to_string()))
}

/// Which certificates of a server are accepted.
fn trust(section: &mut Section<'_>, file: Option<&Path>) -> Result<Trust, ConfigError> {
    match (section.item("ca_file"), section.item("ca_fingerprint")) {
        (Some(_), Some(_)) => Err(section.conflict(
            &["ca_fingerprint"],
            "expected either `ca_file` or `ca_fingerprint`: each of them alone selects the CA",
        )),
        (Some(item), None) => Ok(Trust::Roots(roots(&item, file)?)),
        (None, Some(item)) => Ok(Trust::Pinned(item.parse::<Fingerprint>("a fingerprint")?)),
        (None, None) => Ok(Trust::System),
    }
}
