//! The tunnels of a client.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::Duration,
};

use adit_auth::TunnelName;
use adit_balance::Policy;
use adit_client::{
    Hsts, ProxyProtocol, ServiceProtocol, Tls, TunnelKind, TunnelSettings, is_message_control,
    layers::LayerConfig,
};
use adit_router::{HeaderError, HeaderMatch, PathPrefix};

use crate::{
    error::ConfigError,
    fields::{compression, hash_on, host, host_pattern, host_rewrite},
    key_names,
    ranges::WEIGHT,
    read::{Item, Section},
    request_layers, tls,
    tunnel_tls::lifetime,
};

/// The shortest session timeout: a shorter one would end a flow between a request and its response.
const SHORTEST_SESSION: Duration = Duration::from_millis(100);

use TunnelKind::{Grpc, Http, Tcp, Tls as PassThrough, Udp, WebSocket};

/// Keys that are valid only for some types.
const FITS: &[(&str, &[TunnelKind])] = &[
    ("custom_domains", &[Http, Grpc, WebSocket, Tcp, PassThrough]),
    ("custom_headers", &[Http, Grpc, WebSocket]),
    ("domain", &[Http, Grpc, WebSocket, Tcp, PassThrough]),
    ("domains", &[Http, Grpc, WebSocket, Tcp, PassThrough]),
    ("hash_on", &[Http, Grpc, WebSocket]),
    ("hsts", &[Http, Grpc, WebSocket]),
    ("host_header_rewrite", &[Http, Grpc, WebSocket]),
    ("host_rewrite", &[Http, Grpc, WebSocket]),
    ("local_protocol", &[Http]),
    ("local_tls", &[Http, Grpc, WebSocket]),
    ("locations", &[Http, Grpc, WebSocket]),
    ("proxy_protocol", &[Tcp, PassThrough]),
    ("redirect_https", &[Http, Grpc, WebSocket]),
    ("remote_port", &[Http, Grpc, WebSocket, Tcp, Udp]),
    ("session_timeout", &[Udp]),
    ("ssl_cert", &[Http, Grpc, WebSocket, Tcp]),
    ("tls", &[Tcp]),
];

/// The bound of the layers of all tunnels: one message announces them, and has no more room (P-2.1).
const LARGEST_LAYERS_BYTES: usize = 512 << 10;

/// Reads the list. Names, hosts with their locations, and public ports must be unique.
pub(crate) fn read_all(
    item: &Item<'_>,
    file: Option<&Path>,
) -> Result<Vec<TunnelSettings>, ConfigError> {
    let mut tunnels: Vec<TunnelSettings> = Vec::new();
    let mut names = HashSet::new();
    let (mut places, mut ports) = (HashMap::new(), HashMap::new());
    for item in item.list("tunnels")? {
        let mut section = item.section()?;
        let tunnel = read(&mut section, file)?;
        if !names.insert(tunnel.name.clone()) {
            return Err(section.conflict(
                &["name"],
                format!("there is another tunnel called {}", tunnel.name),
            ));
        }
        // UDP has its own port numbers; TCP and HTTP share theirs.
        let port = (tunnel.kind == Udp, tunnel.remote_port);
        if tunnel.remote_port != 0
            && let Some(other) = ports.insert(port, tunnel.name.clone())
        {
            return Err(section.conflict(
                &["remote_port", "config"],
                format!(
                    "the tunnel {other} already has port {} of the server",
                    tunnel.remote_port
                ),
            ));
        }
        for place in places_of(&tunnel) {
            if let Some(other) = places.insert(place.clone(), tunnel.name.clone()) {
                let (domain, location) = place;
                return Err(section
                    .conflict(
                        &["domain", "domains", "custom_domains"],
                        format!("the tunnel {other} already has {domain}{location}"),
                    )
                    .with_help("give them different domains or locations"));
            }
        }
        tunnels.push(tunnel);
    }
    let layers = tunnels.iter().flat_map(|tunnel| &tunnel.layers);
    let bytes: usize = layers.map(LayerConfig::size).sum();
    if bytes > LARGEST_LAYERS_BYTES {
        return Err(item.conflict(format!(
            "the layers of all tunnels have {bytes} bytes together; there is room for {LARGEST_LAYERS_BYTES}"
        )));
    }
    Ok(tunnels)
}

fn places_of(tunnel: &TunnelSettings) -> HashSet<(String, String)> {
    // A host may have a tunnel for requests and another one for TLS that is passed through. The domain of a TCP tunnel is for
    // its certificate.
    if tunnel.kind == Tcp {
        return HashSet::new();
    }
    let everywhere = [String::from(if tunnel.kind == PassThrough {
        " over TLS"
    } else {
        "/"
    })];
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

/// Reads either form: all keys side by side, or all but the name and the type in `config`.
fn read(section: &mut Section<'_>, file: Option<&Path>) -> Result<TunnelSettings, ConfigError> {
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
    let kind = match kind.or(alias) {
        Some(item) => read_kind(&item)?,
        None => TunnelKind::default(),
    };
    let mut tunnel = if section.has("config") {
        let mut config = section.section("config")?;
        section.finish(&key_names::NESTED_TUNNEL)?;
        read_keys(&mut config, kind, file)?
    } else {
        read_keys(section, kind, file)?
    };
    match name {
        Some(name) => name.as_str().clone_into(&mut tunnel.name),
        None => return Err(section.missing("name", "a name such as `web`")),
    }
    Ok(tunnel)
}

fn read_kind(item: &Item<'_>) -> Result<TunnelKind, ConfigError> {
    let text = item.text("a type such as `http` or `tcp`")?;
    let kind = TunnelKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text);
    kind.ok_or_else(|| {
        let error = item.error(format!(
            "unknown type {text:?}, expected {}",
            list(&TunnelKind::ALL)
        ));
        match text {
            "https" => error.with_help(
                "visitors over TLS reach `type: http` as well, with `server.https`; TLS that is passed through is `tls`",
            ),
            "h2c" | "h2" => {
                error.with_help(format!("use `type: http` with `local_protocol: {text}`"))
            }
            _ => error,
        }
    })
}

/// A list in words: `http`, `grpc` or `tcp`.
fn list(kinds: &[TunnelKind]) -> String {
    let names: Vec<_> = kinds
        .iter()
        .map(|kind| format!("`{}`", kind.as_str()))
        .collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Rejects a key that has no meaning for a tunnel of this type.
fn check_keys(section: &Section<'_>, kind: TunnelKind) -> Result<(), ConfigError> {
    for (key, kinds) in FITS {
        if section.has(key) && !kinds.contains(&kind) {
            let message = format!("`{key}` is not a key of `type: {}`", kind.as_str());
            let error = section.conflict(&[key], message);
            return Err(match (*key, kind) {
                ("local_protocol", Grpc) => {
                    error.with_help("a gRPC service uses HTTP/2, over TLS with `local_tls`")
                }
                ("local_protocol", WebSocket) => {
                    error.with_help("a WebSocket service uses HTTP/1.1")
                }
                ("local_tls", Tcp) => error.with_help(
                    "bytes are forwarded unchanged, including TLS between visitor and service",
                ),
                ("hash_on", _) => {
                    error.with_help("connections and flows are hashed by the visitor's address")
                }
                ("ssl_cert", PassThrough) => {
                    error.with_help("the service ends the TLS, and has the certificate")
                }
                ("remote_port", _) => {
                    error.with_help("its visitors use the server's port for HTTPS")
                }
                ("domain" | "domains" | "custom_domains", _) => {
                    error.with_help("it is reached by a port: `remote_port`")
                }
                _ => error.with_help(format!("it is for {}", list(kinds))),
            });
        }
    }
    Ok(())
}

/// Reads all keys except the name.
fn read_keys(
    section: &mut Section<'_>,
    kind: TunnelKind,
    file: Option<&Path>,
) -> Result<TunnelSettings, ConfigError> {
    check_keys(section, kind)?;
    let port = match section.item("local_port") {
        Some(item) => Some(item.number::<u16>(1..=65_535)?),
        None => None,
    };
    let host = match section.item("local_addr") {
        Some(item) => host(&item, "local_port")?,
        None => "127.0.0.1".to_owned(),
    };
    let mut tunnel = TunnelSettings::new("", kind, host, port.unwrap_or_default());
    section.set_number("remote_port", 0..=65_535, &mut tunnel.remote_port)?;
    if let Some(item) = section.item("load_balance") {
        tunnel.load_balance = item.parse::<Policy>("a balancing policy")?;
    }
    section.set_number("weight", WEIGHT, &mut tunnel.weight)?;
    if let Some(item) = section.item("compression") {
        tunnel.compression = compression(&item)?;
        if kind == Udp && tunnel.compression.is_some() {
            return Err(item
                .error("datagrams are not compressed")
                .with_help("remove it, or write `none`"));
        }
    }
    if let Some(item) = section.item("ssl_cert") {
        tunnel.obtains_certificates = obtains_certificates(&item)?;
    }
    tunnel.layers = request_layers::read(section, file)?;
    if let Tcp | Udp = kind {
        request_layers::check_for_sessions(section, kind.as_str(), &tunnel.layers)?;
    }
    match kind {
        Http | Grpc | WebSocket => read_http(section, &mut tunnel, file)?,
        Tcp | PassThrough => {
            if let Some(item) = section.item("proxy_protocol") {
                tunnel.service.proxy_protocol = Some(proxy_protocol(&item)?);
            }
            tunnel.domains = domains(section)?;
            if let Some(item) = section.item("tls") {
                tunnel.terminates_tls = terminates(&item)?;
            }
            if kind == Tcp && !tunnel.terminates_tls && !tunnel.domains.is_empty() {
                return Err(section
                    .conflict(
                        &["domain", "domains", "custom_domains"],
                        "a tunnel of `type: tcp` has a domain for its certificate only, with `tls: terminate`",
                    )
                    .with_help("it is reached by a port: `remote_port`"));
            }
            if kind == Tcp && !tunnel.terminates_tls && tunnel.obtains_certificates {
                return Err(section.conflict(
                    &["ssl_cert"],
                    "a tunnel of `type: tcp` has a certificate only with `tls: terminate`",
                ));
            }
        }
        Udp => {
            let timeout = &mut tunnel.service.session_timeout;
            section.set_wait("session_timeout", SHORTEST_SESSION, timeout)?;
        }
    }
    // This is checked before missing keys are reported: the key may be there under a name of another program.
    section.finish(&key_names::TUNNEL)?;
    if port.is_none() {
        return Err(section.missing("local_port", "the port of the service"));
    }
    Ok(tunnel)
}

/// Reads the protocol of an HTTP service. Returns also whether it is HTTP/2 over TLS.
fn local_protocol(item: &Item<'_>) -> Result<(ServiceProtocol, bool), ConfigError> {
    match item.text("`http1`, `h2c` or `h2`")? {
        "http1" => Ok((ServiceProtocol::Http1, false)),
        "h2c" => Ok((ServiceProtocol::Http2, false)),
        "h2" => Ok((ServiceProtocol::Http2, true)),
        other => Err(item.error(format!(
            "unknown protocol {other:?}, expected `http1`, `h2c` or `h2`"
        ))),
    }
}

/// Reads the keys that route requests or change them.
fn read_http(
    section: &mut Section<'_>,
    tunnel: &mut TunnelSettings,
    file: Option<&Path>,
) -> Result<(), ConfigError> {
    let written = match section.item("local_protocol") {
        Some(item) if tunnel.kind == Http => Some(local_protocol(&item)?),
        _ => None,
    };
    let is_h2 = matches!(written, Some((_, true)));
    let tls = match section.item("local_tls") {
        Some(item) => tls::read(&item, file)?,
        None => is_h2.then(Tls::default),
    };
    match (written, &tls) {
        (Some((_, true)), None) => {
            return Err(section
                .conflict(&["local_tls"], "`local_protocol: h2` is HTTP/2 over TLS")
                .with_help("HTTP/2 in clear text is `h2c`"));
        }
        (Some((ServiceProtocol::Http2, false)), Some(_)) => {
            return Err(section
                .conflict(
                    &["local_tls"],
                    "`local_protocol: h2c` is HTTP/2 in clear text",
                )
                .with_help("HTTP/2 over TLS is `h2`"));
        }
        (Some((protocol, _)), _) => tunnel.service.protocol = protocol,
        (None, Some(_)) if tunnel.kind == Http => tunnel.service.protocol = ServiceProtocol::Either,
        (None, _) => {}
    }
    tunnel.service.tls = tls;
    tunnel.service.host_rewrite = host_rewrite(section)?;
    if let Some(item) = section.item("custom_headers") {
        tunnel.service.custom_headers = custom_headers(&item.section()?)?;
    }
    tunnel.domains = domains(section)?;
    if let Some(item) = section.item("locations") {
        for item in item.one_or_more("path prefixes")? {
            let prefix: PathPrefix = item.parse("a path prefix such as /api")?;
            tunnel.locations.push(prefix.to_string());
        }
    }
    if let Some(item) = section.item("redirect_https") {
        tunnel.redirect_https = item.boolean()?;
    }
    if let Some(item) = section.item("hsts") {
        tunnel.hsts = hsts(&item)?;
    }
    if let Some(item) = section.item("hash_on") {
        tunnel.hash_on = hash_on(&item)?;
    }
    Ok(())
}

/// Reads whether TLS ends at the server: `terminate`, or `off`.
fn terminates(item: &Item<'_>) -> Result<bool, ConfigError> {
    if item.is_off() {
        return Ok(false);
    }
    match item.text("`terminate` or `off`")? {
        "terminate" => Ok(true),
        other => Err(item
            .error(format!("unknown value {other:?}, expected `terminate` or `off`"))
            .with_help("TLS that is passed through is `type: tls`; TLS towards the service is `local_tls`, of HTTP")),
    }
}

/// Reads whether the server obtains certificates for the hosts: `auto`, or `off`.
fn obtains_certificates(item: &Item<'_>) -> Result<bool, ConfigError> {
    if item.is_off() {
        return Ok(false);
    }
    match item.text("`auto` or `off`")? {
        "auto" => Ok(true),
        other => Err(item
            .error(format!("unknown value {other:?}, expected `auto` or `off`"))
            .with_help("the files of certificates for visitors are in `server.https.certificates` of the server")),
    }
}

/// Reads `true`, `false`, or a section.
fn hsts(item: &Item<'_>) -> Result<Option<Hsts>, ConfigError> {
    if let Ok(on) = item.boolean() {
        return Ok(on.then(Hsts::default));
    }
    let mut section = item.section().map_err(|_| {
        item.error("expected `true`, `false`, or a section with `max_age` and `include_subdomains`")
    })?;
    let mut hsts = Hsts::default();
    if let Some(item) = section.item("max_age") {
        hsts.max_age = lifetime(&item, Duration::ZERO)?;
    }
    if let Some(item) = section.item("include_subdomains") {
        hsts.include_subdomains = item.boolean()?;
    }
    section.finish(&key_names::NO_OTHER_KEYS)?;
    Ok(Some(hsts))
}

/// Reads a text or a number: `v2`, `2`.
fn proxy_protocol(item: &Item<'_>) -> Result<ProxyProtocol, ConfigError> {
    match item.number::<u8>(1..=2) {
        Ok(1) => Ok(ProxyProtocol::V1),
        Ok(_) => Ok(ProxyProtocol::V2),
        Err(_) => match item.text("`v1` or `v2`")? {
            "v1" => Ok(ProxyProtocol::V1),
            "v2" => Ok(ProxyProtocol::V2),
            other => Err(item.error(format!(
                "unknown version {other:?} of PROXY protocol, expected `v1` or `v2`"
            ))),
        },
    }
}

/// Reads `custom_headers`; a header may have one value or a list of values.
fn custom_headers(section: &Section<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut headers = Vec::new();
    for (name, item) in section.pairs() {
        if is_message_control(name.to_ascii_lowercase().as_bytes()) {
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

/// Reads the domains, by any of the three names of the key.
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
            let domain = host_pattern(
                &item,
                "a path belongs in `locations`, a port in `remote_port`",
            )?;
            let domain = domain.to_string();
            if domains.contains(&domain) {
                return Err(item.error(format!("the domain {domain} is given twice")));
            }
            domains.push(domain);
        }
    }
    Ok(domains)
}
