//! Reads `server.forward_auth`, and checks the names of providers in layers.

use std::{collections::HashSet, path::Path, time::Duration};

use adit_server::{
    ForwardAuthSettings, HostPort, Tls,
    layers::{LayerConfig, header_to_copy},
};
use http::{HeaderName, Uri};

use crate::{
    error::ConfigError,
    key_names,
    read::{Item, Section},
    tls,
};

/// Sizes of the body of a response.
const BODY: std::ops::RangeInclusive<u64> = 0..=1 << 20;
const SHORTEST: Duration = Duration::from_millis(1);
const WHAT: &str = "a URL such as `http://127.0.0.1:9091/verify`";

/// Reads the list.
pub(super) fn read(
    item: &Item<'_>,
    file: Option<&Path>,
) -> Result<Vec<ForwardAuthSettings>, ConfigError> {
    let mut providers: Vec<ForwardAuthSettings> = Vec::new();
    for item in item.list("providers")? {
        let provider = read_one(&item, file)?;
        if providers.iter().any(|other| other.name == provider.name) {
            let what = format!("another provider has the name {:?}", provider.name);
            return Err(item.conflict(what));
        }
        providers.push(provider);
    }
    Ok(providers)
}

fn read_one(item: &Item<'_>, file: Option<&Path>) -> Result<ForwardAuthSettings, ConfigError> {
    let mut section = item.section()?;
    let (name, url) = (section.item("name"), section.item("url"));
    let copied = headers(section.item("copy_headers"))?;
    let sent = headers(section.item("send_headers"))?;
    let mut timeout = ForwardAuthSettings::TIMEOUT;
    section.set_wait("timeout", SHORTEST, &mut timeout)?;
    let mut max_body_bytes = ForwardAuthSettings::MAX_BODY_BYTES;
    section.set_size("max_body", BODY, &mut max_body_bytes)?;
    let tls_item = section.item("tls");
    section.finish(&key_names::FORWARD_AUTH)?;
    let Some(name) = name else {
        return Err(section.missing("name", "a name such as `sso`"));
    };
    let Some(url) = url else {
        return Err(section.missing("url", WHAT));
    };
    let name = name.text("a name such as `sso`")?.to_owned();
    let uri: Uri = url.parse_as(WHAT)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(url.error(format!("expected {WHAT}")));
    };
    let given = match &tls_item {
        Some(item) => tls::read(item, file)?,
        None => None,
    };
    let tls = match (scheme, given) {
        ("https", given) => Some(given.unwrap_or_else(Tls::default)),
        ("http", None) => None,
        ("http", Some(_)) => {
            return Err(section.conflict(&["tls"], "`tls` is for a URL that begins with https://"));
        }
        _ => return Err(url.error(format!("expected {WHAT}"))),
    };
    if authority.as_str().contains('@') {
        return Err(url.error("expected a URL without a user"));
    }
    let port = if tls.is_some() { 443 } else { 80 };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    Ok(ForwardAuthSettings {
        name,
        address: HostPort::new(host, authority.port_u16().unwrap_or(port)),
        host: authority.as_str().to_owned(),
        target: target.to_owned(),
        tls,
        copied,
        sent,
        timeout,
        max_body_bytes,
    })
}

fn headers(item: Option<Item<'_>>) -> Result<Vec<HeaderName>, ConfigError> {
    let Some(item) = item else {
        return Ok(Vec::new());
    };
    let items = item.one_or_more("names of headers")?;
    let read = items.iter().map(|item| {
        let name = header_to_copy(item.text("the name of a header")?.as_bytes());
        name.map_err(|error| item.error(error.to_string()))
    });
    read.collect()
}

/// Rejects layers that name a provider which is not in the list.
pub(super) fn check_names(
    section: &Section<'_>,
    key: &'static str,
    layers: &[LayerConfig],
    providers: &[ForwardAuthSettings],
) -> Result<(), ConfigError> {
    let known: HashSet<_> = providers
        .iter()
        .map(|provider| provider.name.as_str())
        .collect();
    let mut named = layers.iter().filter_map(LayerConfig::provider);
    match named.find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let what = format!("a layer names the unknown provider {name:?}");
            Err(section
                .conflict(&[key], what)
                .with_help("define it in `server.forward_auth`"))
        }
    }
}
