//! Fields that more than one section has: paths, hosts, names, compression.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use adit_auth::TunnelName;
use adit_client::Compression;
use adit_router::{HeaderMatch, HostPattern, normalize_host};

use crate::{
    error::{ConfigError, Origin},
    read::{Item, Section},
};

/// Reads a path. A relative path in a file is relative to the directory of the file.
pub(crate) fn path(item: &Item<'_>, file: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let text = item.text("a path")?;
    if text.is_empty() {
        return Err(item.error("expected a path, found nothing"));
    }
    let base = match (item.origin(), file) {
        (Origin::File { .. }, Some(file)) => file.parent(),
        _ => None,
    };
    Ok(base.map_or_else(|| PathBuf::from(text), |base| base.join(text)))
}

pub(crate) fn ip(item: &Item<'_>) -> Result<IpAddr, ConfigError> {
    const WHAT: &str = "an IP address such as 0.0.0.0, 127.0.0.1 or ::";
    let text = item.text(WHAT)?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text).parse() {
        Ok(ip) => Ok(ip),
        Err(_) => item.parse_as(WHAT),
    }
}

/// A name or an address without a port; an IPv6 address may have brackets.
pub(crate) fn host(item: &Item<'_>, port_key: &str) -> Result<String, ConfigError> {
    let text = item.text("a host name or an address")?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    if text.contains("://") {
        return Err(item.error(format!(
            "expected a host name or an address, found the URL {text:?}"
        )));
    }
    if text.contains(':') {
        return Err(item
            .error(format!(
                "expected a host name or an address alone, found {text:?}"
            ))
            .with_help(format!("the port belongs in `{port_key}`")));
    }
    match normalize_host(text) {
        Ok(host) => Ok(host.into_owned()),
        Err(error) => Err(item.error(error.to_string())),
    }
}

/// A host name without a wildcard. `rest` is the advice for a path or a port in it.
pub(crate) fn host_name(item: &Item<'_>, rest: &str) -> Result<String, ConfigError> {
    let pattern = host_pattern(item, rest)?;
    if pattern.is_wildcard() {
        return Err(item
            .error("expected a host name without a wildcard")
            .with_help(format!("write {}", pattern.name())));
    }
    Ok(pattern.name().to_owned())
}

/// A host or `*.HOST` alone. A scheme, a path or a port would be ignored, and is rejected instead. `rest` is the advice
/// for these.
pub(crate) fn host_pattern(item: &Item<'_>, rest: &str) -> Result<HostPattern, ConfigError> {
    const WHAT: &str = "a host name or *.HOST";
    let text = item.text(WHAT)?;
    let after = text.split_once("://").map_or(text, |(_, after)| after);
    let host = after.split(['/', '?', '#']).next().unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let has_port =
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    // An IPv6 address without brackets has an error of its own.
    let has_port = has_port && (host.starts_with('[') || host.matches(':').count() == 1);
    if host == text && !has_port {
        return item.parse(WHAT);
    }
    let host = if has_port {
        host.rsplit_once(':').map_or(host, |(host, _)| host)
    } else {
        host
    };
    Err(item
        .error(format!("expected {WHAT} alone, found {text:?}"))
        .with_help(format!("write {host}; {rest}")))
}

pub(crate) fn host_rewrite(section: &mut Section<'_>) -> Result<Option<String>, ConfigError> {
    let (ours, alias) = (
        section.item("host_rewrite"),
        section.item("host_header_rewrite"),
    );
    if ours.is_some() && alias.is_some() {
        return Err(section.conflict(
            &["host_header_rewrite"],
            "expected either `host_rewrite` or `host_header_rewrite`, which mean the same",
        ));
    }
    let Some(item) = ours.or(alias) else {
        return Ok(None);
    };
    let text = item.text("a host name")?;
    normalize_host(text).map_err(|error| item.error(error.to_string()))?;
    Ok(Some(text.to_owned()))
}

/// Reads the part of a request that `consistent_hash` hashes.
pub(crate) fn hash_on(item: &Item<'_>) -> Result<String, ConfigError> {
    const WHAT: &str = "`host`, `header:NAME` or `cookie:NAME`";
    let text = item.text(WHAT)?;
    let name = text
        .strip_prefix("header:")
        .or_else(|| text.strip_prefix("cookie:"));
    match name {
        // The name of a cookie is a token too (RFC 6265, section 4.1.1).
        Some(name) if HeaderMatch::try_new(name, "").is_ok() => Ok(text.to_owned()),
        None if text == "host" => Ok(text.to_owned()),
        _ => Err(item.error(format!("expected {WHAT}, found {text:?}"))),
    }
}

pub(crate) fn compression(item: &Item<'_>) -> Result<Option<Compression>, ConfigError> {
    const WHAT: &str = "`none`, `gzip` or `zstd`";
    match item.text(WHAT)? {
        "none" => Ok(None),
        name => match Compression::from_name(name) {
            Some(by) => Ok(Some(by)),
            None => Err(item.error(format!("unknown compression {name:?}, expected {WHAT}"))),
        },
    }
}

/// A name that follows the rules for tunnel names; errors call it `kind`.
pub(crate) fn name_of(item: &Item<'_>, kind: &'static str) -> Result<TunnelName, ConfigError> {
    TunnelName::parse(item.text("a name")?).map_err(|mut error| {
        error.kind = kind;
        item.error(error.to_string())
    })
}
