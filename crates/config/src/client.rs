//! The settings of the client.

use std::{net::SocketAddr, path::Path, time::Duration};

use adit_auth::{ClientId, GroupId};
use adit_client::{Limits, Settings, Timeouts};

use crate::{
    admin::admin,
    document::Node,
    entry,
    environment::Variables,
    error::ConfigError,
    fields::path,
    hostname,
    key_names::{self, NO_OTHER_KEYS},
    layers::{files, gather, side, within},
    loaded::Loaded,
    overrides::ClientOverrides,
    problems::read_all,
    ranges::{BUDGET, COUNT, LANES, RATE, SHARE, SHORTEST, TURN, WINDOW},
    read::Section,
    server_link::{ServerEndpoint, ServerLink},
    state::StateDir,
    telemetry, timeouts, tunnel,
};

/// Reads the settings of the client from `file`, if there is one, then from `environment`, then from `overrides`; a
/// later source takes precedence.
///
/// Without the address of a server, the server on this machine is used; without a token, the one that it stored in the
/// state directory. The list of tunnels may be empty: the caller decides whether that is valid.
///
/// # Errors
/// [`ConfigError`] with all errors; [`ConfigError::waits_for_server`] when the only one is that no server runs.
pub fn load_client(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &ClientOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let variables = Variables::new(environment);
    let (mut root, mut found) = gather(file, &variables, "client")?;
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
    overrides: &ClientOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let mut client = side(root, "client", "server")?;
    let (client_id, client_id_chosen) = match client.item("client_id") {
        Some(item) => (item.parse::<ClientId>("a name")?.as_str().to_owned(), true),
        None => (String::new(), false),
    };
    let group_id = match client.item("group_id") {
        Some(item) => Some(item.parse::<GroupId>("a name")?.as_str().to_owned()),
        None => None,
    };
    let mut warnings = variables.misspelt();
    let link = ServerLink::read(&mut client, file, variables, overrides, &mut warnings)?;
    let reconnect = reconnect(&mut client.section("reconnect")?)?;
    let mut lanes = 1_u32;
    client.set_number("lanes", LANES, &mut lanes)?;
    // The admin port is any free one: `adit status` finds it through the state directory.
    let admin = admin(&mut client, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let admin_addr = admin.addr;
    if let Some(admin_addr) = admin_addr
        && !admin_addr.ip().is_loopback()
    {
        return Err(client
            .conflict(
                &["admin"],
                format!("the status of a client is served on loopback only, found {admin_addr}"),
            )
            .with_help("for example 127.0.0.1:7501"));
    }
    let limits = limits(&mut client.section("limits")?)?;
    let timeouts = read_timeouts(&mut client.section("timeouts")?)?;
    let tunnels = match client.item("tunnels") {
        Some(item) => tunnel::read_all(&item, file)?,
        None => Vec::new(),
    };
    let entries = match client.item("entries") {
        Some(item) => entry::read_all(&item, file)?,
        None => Vec::new(),
    };
    let state_dir = match client.item("state_dir") {
        Some(item) => Some(path(&item, file)?),
        None => None,
    };
    let telemetry = telemetry::read(&mut client, file, variables, "adit-client", &mut warnings)?;
    client.finish(&key_names::CLIENT)?;

    let state_dir = StateDir::choose(overrides.state_dir.as_deref(), state_dir, variables);
    let mut files = files(root, file);
    let has_work = !tunnels.is_empty() || !entries.is_empty();
    let ServerEndpoint {
        server,
        proxy,
        tls,
        token,
        joined,
        client_id: joined_id,
    } = link.resolve(&state_dir, has_work, variables, &mut files, &mut warnings)?;
    let client_id = match (client_id_chosen, joined_id) {
        (true, _) => client_id,
        (false, Some(joined)) => joined.as_str().to_owned(),
        (false, None) => hostname::client_id(variables),
    };
    let settings = Settings {
        group_id: group_id.unwrap_or_else(|| client_id.clone()),
        client_id,
        client_id_chosen,
        server_host: server.host().to_owned(),
        server_port: server.port(),
        proxy,
        tls,
        token,
        joined,
        reconnect,
        lanes,
        state_dir: state_dir.path().to_path_buf(),
        admin_addr,
        tunnels,
        entries,
        limits,
        timeouts,
    };
    Ok(Loaded {
        settings,
        telemetry,
        admin_hosts: admin.hosts,
        files,
        warnings,
    })
}

fn reconnect(section: &mut Section<'_>) -> Result<adit_reconnect::Config, ConfigError> {
    let defaults = adit_reconnect::Config::default();
    let mut max_retries = defaults.max_retries();
    section.set_number("max_retries", 0..=u32::MAX.into(), &mut max_retries)?;
    let (mut initial, mut max) = (defaults.initial_delay(), defaults.max_delay());
    section.set_wait("initial_delay", SHORTEST, &mut initial)?;
    section.set_wait("max_delay", SHORTEST, &mut max)?;
    let factor = match section.item("backoff_factor") {
        Some(item) => item.fraction()?,
        None => defaults.backoff_factor(),
    };
    let jitter = match section.item("enable_jitter") {
        Some(item) => item.boolean()?,
        None => defaults.enable_jitter(),
    };
    let mut stable_after = defaults.stable_after();
    section.set_wait("stable_after", Duration::ZERO, &mut stable_after)?;
    let stop = match section.item("stop_when_unauthenticated") {
        Some(item) => item.boolean()?,
        None => defaults.stop_when_unauthenticated(),
    };
    section.finish(&key_names::RECONNECT)?;
    adit_reconnect::Config::try_new(max_retries, initial, max, factor, jitter)
        .map(|config| {
            config
                .with_stable_after(stable_after)
                .with_stop_when_unauthenticated(stop)
        })
        .map_err(|error| {
            let keys: &[&str] = match error {
                adit_reconnect::ConfigError::Factor { .. } => &["backoff_factor"],
                adit_reconnect::ConfigError::ZeroDelay => &["initial_delay"],
                _ => &["max_delay", "initial_delay"],
            };
            section.conflict(keys, error.to_string())
        })
}

fn limits(section: &mut Section<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    section.set_number("max_requests", COUNT, &mut limits.max_requests)?;
    section.set_number(
        "max_service_connections",
        COUNT,
        &mut limits.max_service_connections,
    )?;
    section.set_number(
        "max_idle_connections",
        0..=*COUNT.end(),
        &mut limits.max_idle_connections,
    )?;
    section.set_number("max_waiting", 0..=*COUNT.end(), &mut limits.max_waiting)?;
    section.set_number("tunnel_share", SHARE, &mut limits.tunnel_share_percent)?;
    section.set_number("visitor_share", SHARE, &mut limits.visitor_share_percent)?;
    section.set_size("min_rate", RATE, &mut limits.min_rate_bytes_per_sec)?;
    section.set_number(
        "max_entry_connections",
        COUNT,
        &mut limits.max_entry_connections,
    )?;
    section.set_size("max_window", WINDOW, &mut limits.max_window_bytes)?;
    section.set_size("budget", BUDGET, &mut limits.budget_bytes)?;
    section.set_size("turn", TURN, &mut limits.turn_bytes)?;
    section.finish(&NO_OTHER_KEYS)?;
    Ok(limits)
}

fn read_timeouts(section: &mut Section<'_>) -> Result<Timeouts, ConfigError> {
    let mut times = Timeouts::default();
    section.set_wait("connect", SHORTEST, &mut times.connect)?;
    section.set_wait("handshake", SHORTEST, &mut times.handshake)?;
    section.set_wait("link_wait", Duration::ZERO, &mut times.link_wait)?;
    section.set_wait("permit_wait", Duration::ZERO, &mut times.permit_wait)?;
    timeouts::edge(section, &mut times.edge)?;
    section.set_wait("drain", Duration::ZERO, &mut times.drain)?;
    section.finish(&NO_OTHER_KEYS)?;
    Ok(times)
}
