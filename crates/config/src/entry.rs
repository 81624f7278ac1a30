//! The entries of a client: listeners that lead to upstreams of the server.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use adit_client::{EntryKind, EntrySettings};

use crate::{
    error::ConfigError,
    fields::{compression, name_of},
    key_names,
    proxies::trusted_proxies,
    read::{Item, Section},
    request_layers,
};

/// Reads the list. Names and addresses must be unique.
pub(crate) fn read_all(
    item: &Item<'_>,
    file: Option<&Path>,
) -> Result<Vec<EntrySettings>, ConfigError> {
    let mut entries: Vec<EntrySettings> = Vec::new();
    let (mut names, mut addresses) = (HashSet::new(), HashMap::new());
    for item in item.list("entries")? {
        let mut section = item.section()?;
        let entry = read(&mut section, file)?;
        if !names.insert(entry.name.clone()) {
            return Err(section.conflict(
                &["name"],
                format!("there is another entry called {}", entry.name),
            ));
        }
        if entry.listen.port() != 0
            && let Some(other) = addresses.insert(entry.listen, entry.name.clone())
        {
            return Err(section.conflict(
                &["listen"],
                format!("the entry {other} already listens on {}", entry.listen),
            ));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read(section: &mut Section<'_>, file: Option<&Path>) -> Result<EntrySettings, ConfigError> {
    let name = match section.item("name") {
        Some(item) => Some(name_of(&item, "entry name")?),
        None => None,
    };
    let kind = match section.item("type") {
        Some(item) => kind(&item)?,
        None => EntryKind::default(),
    };
    let listen = match section.item("listen") {
        Some(item) => Some(listen(&item)?),
        None => None,
    };
    let upstream = match section.item("upstream") {
        Some(item) => Some(name_of(&item, "upstream name")?),
        None => None,
    };
    let compression = match section.item("compression") {
        Some(item) => compression(&item)?,
        None => None,
    };
    let trusted_proxies = trusted_proxies(section)?;
    let layers = request_layers::read(section, file)?;
    // This is checked before missing keys are reported: the key may be there under a name of another program.
    section.finish(&key_names::ENTRY)?;
    let Some(name) = name else {
        return Err(section.missing("name", "a name such as `erp`"));
    };
    let Some(listen) = listen else {
        return Err(section.missing("listen", "an address such as `127.0.0.1:9000`"));
    };
    let Some(upstream) = upstream else {
        return Err(section.missing(
            "upstream",
            "the name of one of the server's upstreams, such as `erp`",
        ));
    };
    if layers.iter().any(|layer| layer.provider().is_some()) {
        return Err(section
            .conflict(&["layers"], "a layer `forward_auth` is not for an entry")
            .with_help("its provider is a part of the server's configuration"));
    }
    if kind == EntryKind::Tcp {
        request_layers::check_for_sessions(section, "tcp", &layers)?;
    }
    Ok(EntrySettings {
        name: name.as_str().to_owned(),
        kind,
        listen,
        upstream,
        compression,
        trusted_proxies,
        layers,
    })
}

fn kind(item: &Item<'_>) -> Result<EntryKind, ConfigError> {
    match item.text("`http` or `tcp`")? {
        "http" => Ok(EntryKind::Http),
        "tcp" => Ok(EntryKind::Tcp),
        // Entries of type `http` carry these protocols.
        kind @ ("grpc" | "websocket") => Err(item
            .error(format!("`type: {kind}` is not supported for an entry"))
            .with_help(format!("`type: http` serves {kind} visitors as well"))),
        "udp" => Err(item.error("entries do not support UDP, expected `http` or `tcp`")),
        kind => Err(item.error(format!("unknown type {kind:?}, expected `http` or `tcp`"))),
    }
}

/// An address with a port, or a port on loopback: an address that other machines can reach must be written in full.
fn listen(item: &Item<'_>) -> Result<SocketAddr, ConfigError> {
    match item.number::<u16>(0..=65_535) {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => {
            item.parse_as("an address with port such as 127.0.0.1:9000, or a port on loopback")
        }
    }
}
