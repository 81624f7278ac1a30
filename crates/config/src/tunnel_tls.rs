//! TLS on the connections between server and client: `server.tls` and `client.tls`.

use std::{path::Path, time::Duration};

use adit_server::{OwnCaSettings, TunnelTls};
use adit_tls::{
    ClientCertificates, ClientTls, Fingerprint, Roots, SERVER_NAME, ServerTls, TlsName, Trust,
};

use crate::{
    bounded_file,
    certificates::{LARGEST_FILE_BYTES, identity, roots, server_name},
    error::{ConfigError, Origin},
    key_names,
    lifetime::{DAY, parse_lifetime},
    read::{Item, Section},
};

/// The shortest lifetime of a certificate: one of less than some seconds would be replaced all the time.
const SHORTEST: Duration = Duration::from_secs(3);

/// The longest lifetime.
const LONGEST: Duration = DAY.saturating_mul(36_500);

/// Reads `server.tls`: `auto`, `off`, `true` for the server's own CA, or a section.
pub(crate) fn server(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<TunnelTls, ConfigError> {
    if item.is_off() {
        return Ok(TunnelTls::Off);
    }
    if item.is_word("auto") {
        return Ok(TunnelTls::Auto);
    }
    if item.boolean() == Ok(true) {
        return Ok(TunnelTls::OwnCa(OwnCaSettings::default()));
    }
    let mut section = item.section().map_err(|_| {
        item.error(
            "expected `auto`, `off`, `true`, or a section with `cert_file` and `key_file` or with `names` for the server's \
             own CA",
        )
    })?;
    let identity = identity(&mut section, file, warnings)?;
    let client_ca = match section.item("client_ca_file") {
        Some(item) => Some(roots(&item, file)?),
        None => None,
    };
    let is_required = match section.item("require_client_certificate") {
        Some(item) if client_ca.is_none() => {
            return Err(item.conflict(
                "`require_client_certificate` is for certificates of the CA in `client_ca_file`",
            ));
        }
        Some(item) => item.boolean()?,
        None => true,
    };
    let own_ca = own_ca(&mut section)?;
    section.finish(&key_names::SERVER_TLS)?;
    match (identity, client_ca, own_ca) {
        (Some(_), _, Some((key, _))) => Err(section.conflict(
            &[key, "cert_file"],
            format!(
                "`{key}` is for certificates of the server's own CA, not for that of `cert_file`"
            ),
        )),
        (Some(identity), client_ca, None) => {
            let clients = match client_ca {
                None => ClientCertificates::None,
                Some(roots) if is_required => ClientCertificates::Required(roots),
                Some(roots) => ClientCertificates::Optional(roots),
            };
            let tls = ServerTls::new(identity, clients);
            tls.map(TunnelTls::Certificate)
                .map_err(|error| item.error(error.to_string()))
        }
        (None, Some(_), _) => {
            Err(section.missing("cert_file", "the path of the server's certificate in PEM"))
        }
        (None, None, own_ca) => Ok(TunnelTls::OwnCa(
            own_ca.map(|(_, settings)| settings).unwrap_or_default(),
        )),
    }
}

/// The settings of the server's own CA, with the first of their keys; `None` without any of them.
fn own_ca(section: &mut Section<'_>) -> Result<Option<(&'static str, OwnCaSettings)>, ConfigError> {
    let mut settings = OwnCaSettings::default();
    let mut first = None;
    if let Some(item) = section.item("names") {
        first.get_or_insert("names");
        for name in item.one_or_more("names")? {
            settings.names.push(server_name(&name)?);
        }
    }
    for (key, slot) in [
        ("certificate_lifetime", &mut settings.certificate_lifetime),
        ("ca_lifetime", &mut settings.ca_lifetime),
    ] {
        if let Some(item) = section.item(key) {
            first.get_or_insert(key);
            *slot = lifetime(&item, SHORTEST)?;
        }
    }
    if settings.ca_lifetime < settings.certificate_lifetime {
        return Err(section.conflict(
            &["ca_lifetime", "certificate_lifetime"],
            "a CA cannot expire before the certificates that it issues",
        ));
    }
    Ok(first.map(|key| (key, settings)))
}

/// Reads a number of days such as `90d`, or a time, not shorter than `shortest`.
pub(crate) fn lifetime(item: &Item<'_>, shortest: Duration) -> Result<Duration, ConfigError> {
    let text = item
        .text_with("a lifetime", "add a unit, such as `90d`")?
        .trim();
    let lifetime = parse_lifetime(text);
    let lifetime = lifetime.filter(|lifetime| (shortest..=LONGEST).contains(lifetime));
    lifetime.ok_or_else(|| {
        item.error(format!(
            "expected a lifetime from {shortest:?} to 36500d, such as `90d` or `12h`, found {text:?}"
        ))
    })
}

/// How a client trusts its server.
#[derive(Debug)]
pub(crate) enum ClientChoice {
    /// TLS beyond loopback.
    Auto,
    /// Clear text.
    Off,
    /// TLS on every address.
    On(ClientTls),
}

/// Reads `client.tls`: `auto`, `off`, `true` for the trust store of the platform, or a section.
pub(crate) fn client(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<ClientChoice, ConfigError> {
    if item.is_off() {
        return Ok(ClientChoice::Off);
    }
    if item.is_word("auto") {
        return Ok(ClientChoice::Auto);
    }
    let (trust, server_name, identity) = match item.boolean() {
        Ok(true) => (Trust::System, None, None),
        Ok(false) => return Ok(ClientChoice::Off),
        Err(_) => {
            let mut section = item.section().map_err(|_| {
                item.error(
                    "expected `auto`, `off`, `true`, or a section with `ca_file`, `ca_fingerprint`, `server_name`, \
                     `cert_file` or `key_file`",
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
    tls.map(ClientChoice::On)
        .map_err(|error| item.error(error.to_string()))
}

/// TLS of a client that verifies the server by the platform's trust store.
pub(crate) fn by_system() -> Result<ClientTls, ConfigError> {
    let tls = ClientTls::new(Trust::System, None, None);
    tls.map_err(|error| ConfigError::new(Origin::Default, "client.tls", error.to_string()))
}

/// TLS of a client that trusts the own CA of a server on this machine.
pub(crate) fn by_own_ca(path: &Path) -> Result<ClientTls, ConfigError> {
    let failed = |problem: String| {
        ConfigError::new(Origin::place(0, 0), "", problem)
            .in_file(path)
            .with_help("run as the user of the server, or set `client.tls`")
    };
    let pem = bounded_file::read(path, LARGEST_FILE_BYTES).map_err(|error| {
        failed(format!(
            "the CA of the server on this machine cannot be read: {error}"
        ))
    })?;
    let pem = pem.ok_or_else(|| failed("the file is larger than 4 MiB".to_owned()))?;
    let roots = Roots::from_pem(&pem).map_err(|error| failed(error.to_string()))?;
    let name = TlsName::parse(SERVER_NAME).map_err(|error| failed(error.to_string()))?;
    ClientTls::new(Trust::Roots(roots), Some(name), None).map_err(|error| failed(error.to_string()))
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
