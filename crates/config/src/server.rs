//! The settings of the server.

mod acme;
mod auth;
mod client_certificates;
mod error_pages;
mod forward_auth;
mod https;
mod issuers;
mod limits;
mod rules;
mod traffic;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use adit_server::{Settings, Timeouts, TunnelTls};

use crate::{
    admin::admin,
    document::Node,
    environment::Variables,
    error::ConfigError,
    fields::{host_name, ip, path},
    key_names::{self, NO_OTHER_KEYS},
    layers::{files, gather, side, within},
    loaded::Loaded,
    overrides::ServerOverrides,
    problems::read_all,
    proxies::{proxy_protocol, public_url, trusted_proxies},
    ranges::{COUNT, PORT, SHORTEST, THREADS},
    read::Section,
    request_layers,
    state::StateDir,
    telemetry,
    threads::default_threads,
    timeouts, tunnel_tls, upstream,
};

/// Reads the settings of the server from `file`, if there is one, then from `environment`, then from `overrides`; a
/// later source takes precedence.
///
/// # Errors
/// [`ConfigError`] with all errors.
pub fn load_server(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &ServerOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let variables = Variables::new(environment);
    let (mut root, mut found) = gather(file, &variables, "server")?;
    let laid = overrides.lay_over(&mut root);
    found.extend(laid.err().map(|error| within(error, file)));
    read_all(root, found, |root| {
        read(root, file, &variables, overrides).map_err(|error| within(error, file))
    })
}

fn read(
    root: &Node,
    file: Option<&Path>,
    variables: &Variables,
    overrides: &ServerOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let mut server = side(root, "server", "client")?;
    let bind_addr = match server.item("bind_addr") {
        Some(item) => ip(&item)?,
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let (mut bind_port, mut http_port) = (7000_u16, 7080_u16);
    server.set_number("bind_port", PORT, &mut bind_port)?;
    let any_port = SocketAddr::new(bind_addr, 0);
    let mut settings = Settings::new(any_port, any_port);
    server.set_number("max_clients", COUNT, &mut settings.max_clients)?;
    let mut http = server.section("http")?;
    http.set_number("bind_port", PORT, &mut http_port)?;
    http.finish(&key_names::HTTP)?;
    let tunnel_addr = SocketAddr::new(bind_addr, bind_port);
    let http_addr = SocketAddr::new(bind_addr, http_port);
    (settings.tunnel_addr, settings.http_addr) = (tunnel_addr, http_addr);
    settings.trusted_proxies = trusted_proxies(&mut server)?;
    settings.proxy_protocol = proxy_protocol(&mut server, &settings.trusted_proxies)?;
    settings.public_url = public_url(server.section("public_url")?)?;
    let admin = admin(&mut server, SocketAddr::from((Ipv4Addr::LOCALHOST, 7500)))?;
    settings.admin_addr = admin.addr;
    let mut warnings = variables.misspelt();
    let mut https = server.section("https")?;
    settings.https = https::read(&mut https, bind_addr, file, &mut warnings)?;
    settings.tls = match server.item("tls") {
        Some(item) => tunnel_tls::server(&item, file, &mut warnings)?,
        None => TunnelTls::Auto,
    };
    settings.makes_token = !auth::needs_no_token(&mut server);
    let auth = auth::read(&mut server, &settings.tls, file, variables, &mut warnings)?;
    (settings.tokens, settings.issuers) = (auth.tokens, auth.issuers);
    settings.certificates = auth.certificates;
    if let TunnelTls::Certificate(tls) = &settings.tls
        && tls.has_optional_client_certificates()
        && settings.certificates.is_none()
    {
        return Err(server
            .conflict(
                &["tls"],
                "certificates of clients that are not required have no effect without `method: mtls`",
            )
            .with_help("add `method: mtls` to `server.auth`, or remove `require_client_certificate`"));
    }
    settings.shared_groups = auth::shared_groups(&mut server, &settings, &mut warnings)?;
    settings.limits = limits::read(&mut server.section("limits")?)?;
    settings.timeouts = read_timeouts(&mut server.section("timeouts")?)?;
    settings.threads = default_threads();
    server.set_number("threads", THREADS, &mut settings.threads)?;
    settings.domain = server
        .item("domain")
        .map(|item| host_name(&item, "the visitors' port is `http.bind_port`"))
        .transpose()?;
    settings.upstreams = match server.item("upstreams") {
        Some(item) => upstream::read_all(&item, file)?,
        None => Vec::new(),
    };
    settings.rules = rules::read(&mut server, &settings.upstreams, file)?;
    settings.layers = request_layers::read(&mut server, file)?;
    if let Some(item) = server.item("error_pages") {
        settings.error_pages = error_pages::read(&item, file)?;
    }
    settings.forward_auth = match server.item("forward_auth") {
        Some(item) => forward_auth::read(&item, file)?,
        None => Vec::new(),
    };
    let providers = &settings.forward_auth;
    forward_auth::check_names(&server, "layers", &settings.layers, providers)?;
    for rule in &settings.rules {
        forward_auth::check_names(&server, "rules", &rule.layers, providers)?;
    }
    let state_dir = match server.item("state_dir") {
        Some(item) => Some(path(&item, file)?),
        None => None,
    };
    let telemetry = telemetry::read(&mut server, file, variables, "adit-server", &mut warnings)?;
    server.finish(&key_names::SERVER)?;

    if bind_port != 0 && tunnel_addr == http_addr {
        return Err(server.conflict(
            &["http", "bind_port"],
            format!("clients and visitors cannot share port {bind_port}"),
        ));
    }
    if let Some(https) = &settings.https
        && https.addr.port() != 0
        && [tunnel_addr, http_addr].contains(&https.addr)
    {
        return Err(server.conflict(
            &["https", "bind_port", "http"],
            format!(
                "port {} is that of clients or of HTTP visitors; HTTPS needs another one",
                https.addr.port()
            ),
        ));
    }
    if let Some(admin) = settings.admin_addr
        && admin.port() != 0
        && ([tunnel_addr, http_addr].contains(&admin)
            || settings
                .https
                .as_ref()
                .is_some_and(|https| https.addr == admin))
    {
        return Err(server.conflict(
            &["admin", "bind_port", "http"],
            format!(
                "{admin} is the address of clients or visitors; the admin port needs another one"
            ),
        ));
    }
    let state_dir = StateDir::choose(overrides.state_dir.as_deref(), state_dir, variables);
    settings.state_dir = state_dir.path().to_path_buf();
    Ok(Loaded {
        settings,
        telemetry,
        admin_hosts: admin.hosts,
        files: files(root, file),
        warnings,
    })
}

fn read_timeouts(section: &mut Section<'_>) -> Result<Timeouts, ConfigError> {
    let mut times = Timeouts::default();
    let none = Duration::ZERO;
    section.set_wait("startup_grace", none, &mut times.startup_grace)?;
    section.set_wait("client_wait", none, &mut times.client_wait)?;
    section.set_wait("permit_wait", none, &mut times.permit_wait)?;
    timeouts::edge(section, &mut times.edge)?;
    section.set_wait("setup", SHORTEST, &mut times.setup)?;
    section.set_wait("handshake", SHORTEST, &mut times.handshake)?;
    section.set_wait("denial", none, &mut times.denial)?;
    section.set_wait("visitor_handshake", SHORTEST, &mut times.visitor_handshake)?;
    section.set_wait("takeover_probe", SHORTEST, &mut times.takeover_probe)?;
    section.set_wait("heartbeat", SHORTEST, &mut times.heartbeat)?;
    section.set_wait("dead_after", SHORTEST, &mut times.dead_after)?;
    section.set_wait("drain", none, &mut times.drain)?;
    section.set_wait("tunnel_retention", none, &mut times.tunnel_retention)?;
    section.finish(&NO_OTHER_KEYS)?;
    if times.dead_after <= times.heartbeat {
        return Err(section
            .conflict(
                &["dead_after", "heartbeat"],
                format!(
                    "dead_after ({:?}) must be longer than heartbeat ({:?}): otherwise every quiet link counts as dead",
                    times.dead_after, times.heartbeat
                ),
            )
            .with_help("three times the heartbeat tolerates a lost probe"));
    }
    Ok(times)
}
