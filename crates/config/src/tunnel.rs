//! The tunnels of a client.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use adit_auth::TunnelName;
use adit_balance::Policy;
use adit_client::{ServiceProtocol, ServiceSettings, TunnelSettings};
use adit_router::{HeaderError, HeaderMatch, HostPattern, PathPrefix, normalize_host};

use crate::{
    error::ConfigError,
    read::{Item, Section},
    vocabulary,
};

/// A client that should get more than this many times what another gets is written wrong.
const WEIGHT: std::ops::RangeInclusive<u64> = 1..=1_000;

/// Headers that say how a message is framed or where it goes: replaced, they would make another message of it.
const NOT_OURS_TO_SET: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads the list, in which no name and no place is taken twice.
pub(crate) fn read_all(item: &Item<'_>) -> Result<Vec<TunnelSettings>, ConfigError> {
    let mut tunnels: Vec<TunnelSettings> = Vec::new();
    let mut names = HashSet::new();
    let mut places = HashMap::new();
    for item in item.list("tunnels")? {
        let mut section = item.section()?;
        let tunnel = read(&mut section)?;
        if !names.insert(tunnel.name.clone()) {
            return Err(section.conflict(
                &["name"],
                format!("there is another tunnel called {}", tunnel.name),
            ));
        }
        for place in places_of(&tunnel) {
            if let Some(other) = places.insert(place.clone(), tunnel.name.clone()) {
                let (domain, location) = place;
                return Err(section
                    .conflict(
                        &["domain", "domains", "custom_domains"],
                        format!("{domain}{location} leads to the tunnel {other} already"),
                    )
                    .with_help("give them different domains or locations"));
            }
        }
        tunnels.push(tunnel);
    }
    Ok(tunnels)
}

fn places_of(tunnel: &TunnelSettings) -> HashSet<(String, String)> {
    let everywhere = [String::from("/")];
    let locations = if tunnel.locations.is_empty() {
        everywhere.as_slice()
    } else {
        &tunnel.locations
    };
    tunnel
        .domains
        .iter()
        .flat_map(|domain| locations.iter().map(|at| (domain.clone(), at.clone())))
        .collect()
}

/// Reads either form: all keys side by side, or all but the name and the type under `config`.
fn read(section: &mut Section<'_>) -> Result<TunnelSettings, ConfigError> {
    let name = match section.item("name") {
        Some(item) => Some(item.parse::<TunnelName>("a name")?),
        None => None,
    };
    let (kind, alias) = (section.item("type"), section.item("tunnel_type"));
    if kind.is_some() && alias.is_some() {
        return Err(section.conflict(
            &["tunnel_type"],
            "expected either `type` or `tunnel_type`, which mean the same",
        ));
    }
    check_type(kind.or(alias).as_ref())?;
    let mut tunnel = if section.has("config") {
        let mut config = section.section("config")?;
        section.finish(&vocabulary::NESTED_TUNNEL)?;
        read_keys(&mut config)?
    } else {
        read_keys(section)?
    };
    match name {
        Some(name) => name.as_str().clone_into(&mut tunnel.name),
        None => return Err(section.missing("name", "a name such as `web`")),
    }
    Ok(tunnel)
}

fn check_type(item: Option<&Item<'_>>) -> Result<(), ConfigError> {
    let Some(item) = item else {
        return Ok(());
    };
    match item.text("`http`")? {
        "http" => Ok(()),
        kind @ ("tcp" | "udp" | "grpc" | "websocket") => Err(item
            .error(format!("`type: {kind}` is not supported by this version"))
            .with_help("this version carries `type: http`")),
        kind => Err(item.error(format!("unknown type {kind:?}, expected `http`"))),
    }
}

/// Everything but the name, and nothing else.
fn read_keys(section: &mut Section<'_>) -> Result<TunnelSettings, ConfigError> {
    let port = match section.item("local_port") {
        Some(item) => Some(item.number::<u16>(1..=65_535)?),
        None => None,
    };
    let host = match section.item("local_addr") {
        Some(item) => host(&item, "local_port")?,
        None => "127.0.0.1".to_owned(),
    };
    let protocol = match section.item("local_protocol") {
        Some(item) => match item.text("`http1` or `h2c`")? {
            "http1" => ServiceProtocol::Http1,
            "h2c" => ServiceProtocol::H2c,
            other => {
                return Err(item.error(format!(
                    "unknown protocol {other:?}, expected `http1` or `h2c`"
                )));
            }
        },
        None => ServiceProtocol::default(),
    };
    let host_rewrite = host_rewrite(section)?;
    let custom_headers = match section.item("custom_headers") {
        Some(item) => custom_headers(&item.section()?)?,
        None => Vec::new(),
    };
    let domains = domains(section)?;
    let mut locations = Vec::new();
    if let Some(item) = section.item("locations") {
        for item in item.one_or_more("path prefixes")? {
            let prefix: PathPrefix = item.parse("a path prefix such as /api")?;
            locations.push(prefix.to_string());
        }
    }
    let load_balance = match section.item("load_balance") {
        Some(item) => item.parse::<Policy>("a balancing policy")?,
        None => Policy::default(),
    };
    let hash_on = match section.item("hash_on") {
        Some(item) => hash_on(&item)?,
        None => "host".to_owned(),
    };
    let mut weight = 1_u32;
    section.set_number("weight", WEIGHT, &mut weight)?;
    // Before what is missing: it may be there under a name that others gave it.
    section.finish(&vocabulary::TUNNEL)?;
    let Some(port) = port else {
        return Err(section.missing("local_port", "the port of the service"));
    };
    Ok(TunnelSettings {
        name: String::new(),
        service: ServiceSettings {
            host,
            port,
            protocol,
            host_rewrite,
            custom_headers,
        },
        domains,
        locations,
        load_balance,
        hash_on,
        weight,
    })
}

/// A name or an address, an IPv6 address with or without brackets, and no port.
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
            .with_help(format!("the port belongs into `{port_key}`")));
    }
    match normalize_host(text) {
        Ok(host) => Ok(host.into_owned()),
        Err(error) => Err(item.error(error.to_string())),
    }
}

fn host_rewrite(section: &mut Section<'_>) -> Result<Option<String>, ConfigError> {
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

/// A header may be given one value or a list of them.
fn custom_headers(section: &Section<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut headers = Vec::new();
    for (name, item) in section.pairs() {
        if NOT_OURS_TO_SET.contains(&name.to_ascii_lowercase().as_str()) {
            let error = item.error(format!("the header {name} cannot be set"));
            return Err(if name.eq_ignore_ascii_case("host") {
                error.with_help("use `host_rewrite`")
            } else {
                error.with_help("it belongs to the connection, not to the request")
            });
        }
        for item in item.one_or_more("values")? {
            let value = item.text("the value of a header")?;
            HeaderMatch::try_new(name, value).map_err(|error| {
                item.error(match error {
                    HeaderError::Name { .. } => error.to_string(),
                    // The value may be a secret.
                    HeaderError::Value { .. } => format!(
                        "the value of {name} is longer than 1024 bytes, has a control character, \
                         or a blank at an end"
                    ),
                })
            })?;
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(headers)
}

/// Under whichever of its three names.
fn domains(section: &mut Section<'_>) -> Result<Vec<String>, ConfigError> {
    const NAMES: [&str; 3] = ["domain", "domains", "custom_domains"];
    let given: Vec<_> = NAMES
        .into_iter()
        .filter_map(|name| section.item(name).map(|item| (name, item)))
        .collect();
    if let [_, (name, _), ..] = given.as_slice() {
        return Err(section.conflict(
            &[name],
            "expected only one of `domain`, `domains` and `custom_domains`, which mean the same",
        ));
    }
    let mut domains: Vec<String> = Vec::new();
    for (_, item) in &given {
        for item in item.one_or_more("domains")? {
            let pattern: HostPattern = item.parse("a host name or *.HOST")?;
            let domain = pattern.to_string();
            if domains.contains(&domain) {
                return Err(item.error(format!("the domain {domain} is given twice")));
            }
            domains.push(domain);
        }
    }
    Ok(domains)
}

/// What `consistent_hash` hashes.
fn hash_on(item: &Item<'_>) -> Result<String, ConfigError> {
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
