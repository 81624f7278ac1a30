//! TLS towards a service: `local_tls` of a tunnel, `tls` of an upstream.

use std::path::Path;

use adit_client::{Roots, Tls, TlsName, Trust};

use crate::{
    bounded_file,
    error::ConfigError,
    fields::path,
    key_names,
    read::{Item, Section},
};

/// The bound of a CA file. The trust store of a platform has a tenth of this size; a larger file was given by mistake.
const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// Reads `true` for the trust store of the platform, `false` for clear text, or a section.
pub(crate) fn read(item: &Item<'_>, file: Option<&Path>) -> Result<Option<Tls>, ConfigError> {
    match item.boolean() {
        Ok(true) => return Ok(Some(Tls::default())),
        Ok(false) => return Ok(None),
        Err(_) => {}
    }
    let mut section = item.section().map_err(|_| {
        item.error(
            "expected `true`, `false`, or a section with `ca_file`, `server_name` or `insecure`",
        )
    })?;
    let roots = match section.item("ca_file") {
        Some(item) => Some(roots(&item, &path(&item, file)?)?),
        None => None,
    };
    let server_name = match section.item("server_name") {
        Some(item) => Some(server_name(&item)?),
        None => None,
    };
    let insecure = match section.item("insecure") {
        Some(item) => item.boolean()?,
        None => false,
    };
    section.finish(&key_names::SERVICE_TLS)?;
    let trust = match (roots, insecure) {
        (Some(_), true) => return Err(both(&section)),
        (Some(roots), false) => Trust::Roots(roots),
        (None, true) => Trust::Anyone,
        (None, false) => Trust::System,
    };
    Ok(Some(Tls { trust, server_name }))
}

fn both(section: &Section<'_>) -> ConfigError {
    section
        .conflict(
            &["insecure"],
            "`insecure` accepts every certificate, so that `ca_file` has no effect",
        )
        .with_help("leave out `insecure`")
}

fn server_name(item: &Item<'_>) -> Result<TlsName, ConfigError> {
    let text = item.text("the name that the service's certificate is for")?;
    TlsName::parse(text).map_err(|error| item.error(error.to_string()))
}

fn roots(item: &Item<'_>, path: &Path) -> Result<Roots, ConfigError> {
    let refused = |problem: String| item.error(format!("the file {} {problem}", path.display()));
    let read = bounded_file::read(path, LARGEST_FILE_BYTES)
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    let pem = read.ok_or_else(|| refused("is larger than 4 MiB".to_owned()))?;
    Roots::from_pem(&pem).map_err(|error| {
        refused(format!("is not a list of CA certificates: {error}"))
            .with_help("the certificate of the CA that signed the service's, in PEM")
    })
}
