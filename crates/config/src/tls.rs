//! TLS towards a service: `local_tls` of a tunnel, `tls` of an upstream.

use std::path::Path;

use adit_client::Tls;
use adit_tls::Trust;

use crate::{
    certificates::{roots, server_name},
    error::ConfigError,
    key_names,
    read::{Item, Section},
};

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
        Some(item) => Some(roots(&item, file)?),
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
