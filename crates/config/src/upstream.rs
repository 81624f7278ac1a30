//! The upstreams of a server: the targets of clients' entries and of rules.

use std::{collections::HashSet, path::Path};

use adit_balance::Policy;
use adit_router::normalize_host;
use adit_server::{
    HostPort, HostPortError, Tls, UpstreamProtocol, UpstreamServer, UpstreamSettings,
};

use crate::{
    error::{ConfigError, Kind},
    fields::{compression, hash_on, host_rewrite, name_of},
    key_names,
    ranges::WEIGHT,
    read::{Item, Section},
    tls,
};

/// Reads the list. Names must be unique.
pub(crate) fn read_all(
    item: &Item<'_>,
    file: Option<&Path>,
) -> Result<Vec<UpstreamSettings>, ConfigError> {
    let mut upstreams = Vec::new();
    let mut names = HashSet::new();
    for item in item.list("upstreams")? {
        let mut section = item.section()?;
        let upstream = read(&mut section, file)?;
        if !names.insert(upstream.name.clone()) {
            return Err(section.conflict(
                &["name"],
                format!("there is another upstream called {}", upstream.name),
            ));
        }
        upstreams.push(upstream);
    }
    Ok(upstreams)
}

fn read(section: &mut Section<'_>, file: Option<&Path>) -> Result<UpstreamSettings, ConfigError> {
    let name = match section.item("name") {
        Some(item) => Some(name_of(&item, "upstream name")?),
        None => None,
    };
    let policy = match section.item("policy") {
        Some(item) => item.parse::<Policy>("a balancing policy")?,
        None => Policy::default(),
    };
    let hash_on = match section.item("hash_on") {
        Some(item) => hash_on(&item)?,
        None => "host".to_owned(),
    };
    let (written, is_h2) = match section.item("protocol") {
        Some(item) => {
            let (protocol, is_h2) = protocol(&item)?;
            (Some(protocol), is_h2)
        }
        None => (None, false),
    };
    let tls = match section.item("tls") {
        Some(item) => tls::read(&item, file)?,
        None => is_h2.then(Tls::default),
    };
    let compression = match section.item("compression") {
        Some(item) => compression(&item)?,
        None => None,
    };
    let host_rewrite = host_rewrite(section)?;
    let protocol = written.unwrap_or(match tls {
        Some(_) => UpstreamProtocol::Either,
        None => UpstreamProtocol::Http1,
    });
    let servers = match section.item("servers") {
        Some(item) => Some(servers(&item)?),
        None => None,
    };
    // This is checked before missing keys are reported: the key may be there under a name of another program.
    section.finish(&key_names::UPSTREAM)?;
    let Some(name) = name else {
        return Err(section.missing("name", "a name such as `erp`"));
    };
    let Some(servers) = servers else {
        return Err(section.missing(
            "servers",
            "a list such as `[{ address: \"127.0.0.1:9001\" }]`",
        ));
    };
    if protocol == UpstreamProtocol::Tcp && host_rewrite.is_some() {
        return Err(section.conflict(
            &["host_rewrite", "host_header_rewrite"],
            "`protocol: tcp` forwards bytes unchanged, so the host cannot be rewritten",
        ));
    }
    let problem = match (written, &tls) {
        (Some(UpstreamProtocol::Http2), None) if is_h2 => {
            Some("`protocol: h2` is HTTP/2 over TLS; in clear text it is `h2c`")
        }
        (Some(UpstreamProtocol::Http2), Some(_)) if !is_h2 => {
            Some("`protocol: h2c` is HTTP/2 in clear text; over TLS it is `h2`")
        }
        (Some(UpstreamProtocol::Tcp), Some(_)) => {
            Some("`protocol: tcp` forwards bytes unchanged, TLS of the opener included")
        }
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(section.conflict(&["tls"], problem));
    }
    Ok(UpstreamSettings {
        name,
        policy,
        hash_on,
        protocol,
        tls,
        host_rewrite,
        compression,
        servers,
    })
}

/// Reads the protocol. Returns also whether it is HTTP/2 over TLS.
fn protocol(item: &Item<'_>) -> Result<(UpstreamProtocol, bool), ConfigError> {
    match item.text("`http1`, `h2c`, `h2` or `tcp`")? {
        "http1" | "http" => Ok((UpstreamProtocol::Http1, false)),
        "h2c" => Ok((UpstreamProtocol::Http2, false)),
        "h2" => Ok((UpstreamProtocol::Http2, true)),
        "tcp" => Ok((UpstreamProtocol::Tcp, false)),
        other => Err(item.error(format!(
            "unknown protocol {other:?}, expected `http1`, `h2c`, `h2` or `tcp`"
        ))),
    }
}

fn servers(list: &Item<'_>) -> Result<Vec<UpstreamServer>, ConfigError> {
    let mut servers = Vec::new();
    let mut addresses = HashSet::new();
    for item in list.list("servers")? {
        let mut section = item.section()?;
        let address = match section.item("address") {
            Some(item) => Some(address(&item)?),
            None => None,
        };
        let mut weight = 1_u32;
        section.set_number("weight", WEIGHT, &mut weight)?;
        section.finish(&key_names::UPSTREAM_SERVER)?;
        let Some((host, port)) = address else {
            return Err(section.missing("address", "host and port such as `127.0.0.1:9001`"));
        };
        if !addresses.insert((host.clone(), port)) {
            return Err(section
                .conflict(
                    &["address"],
                    format!("{host}, port {port}, is listed twice"),
                )
                .with_help("give it a greater `weight` instead"));
        }
        servers.push(UpstreamServer { host, port, weight });
    }
    if servers.is_empty() {
        return Err(list
            .error("expected at least one server")
            .of_kind(Kind::Missing));
    }
    Ok(servers)
}

/// Reads host and port; an IPv6 address has brackets.
fn address(item: &Item<'_>) -> Result<(String, u16), ConfigError> {
    const WHAT: &str = "host and port such as 127.0.0.1:9001";
    let text = item.text(WHAT)?;
    let refused = || item.error(format!("expected {WHAT}, found {text:?}"));
    if text.contains("://") {
        return Err(refused().with_help("`protocol` selects how it is reached"));
    }
    let address = text.parse::<HostPort>().map_err(|error| match error {
        HostPortError::NoBrackets => {
            refused().with_help("put brackets around the address, as in [::1]:9001")
        }
        HostPortError::NoPort | HostPortError::NoHost | HostPortError::Port => refused(),
    })?;
    if let Some(ip) = address.ip() {
        return Ok((ip.to_string(), address.port()));
    }
    match normalize_host(address.host()) {
        Ok(host) => Ok((host.into_owned(), address.port())),
        Err(error) => Err(item.error(error.to_string())),
    }
}
