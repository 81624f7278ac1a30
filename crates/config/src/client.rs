//! The settings of the client.

use std::{net::SocketAddr, path::Path, time::Duration};

use adit_auth::{ClientId, GroupId};
use adit_client::{HostPort, Limits, Settings, Timeouts};
use secrecy::SecretString;

use crate::{
    admin::admin,
    document::Node,
    entry,
    environment::Variables,
    error::{ConfigError, Kind, Origin},
    fields::{self, path},
    hostname,
    key_names::{self, NO_OTHER_KEYS},
    layers::{files, gather, side, within},
    loaded::Loaded,
    overrides::ClientOverrides,
    problems::read_all,
    proxy,
    ranges::{BUDGET, COUNT, LANES, RATE, SHARE, SHORTEST, TURN, WINDOW},
    read::{Item, Section},
    state::StateDir,
    telemetry, timeouts, token, tunnel,
    tunnel_tls::{self, ClientChoice},
};

/// The default port of a server for clients.
const DEFAULT_PORT: u16 = 7000;

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
        None => (hostname::client_id(variables), false),
    };
    let group_id = match client.item("group_id") {
        Some(item) => item.parse::<GroupId>("a name")?.as_str().to_owned(),
        None => client_id.clone(),
    };
    let server_host = client
        .item("server_addr")
        .map(|item| server_host(&item))
        .transpose()?;
    let server_port = match client.item("server_port") {
        Some(item) => Some(item.number::<u16>(1..=65_535)?),
        None => None,
    };
    let mut warnings = variables.misspelt();
    let tls = match client.item("tls") {
        Some(item) => tunnel_tls::client(&item, file, &mut warnings)?,
        None => ClientChoice::Auto,
    };
    let in_file = match client.item("auth_token") {
        Some(item) => Some(Given {
            token: token::good(item.secret("a token")?).map_err(|problem| item.error(problem))?,
            is_variable: is_variable(&item),
        }),
        None => None,
    };
    let of_environment = match variables.value("ADIT__TOKEN") {
        Some(text) => Some(token::good(text).map_err(|problem| {
            ConfigError::new(Origin::Variable("ADIT__TOKEN".to_owned()), "", problem)
        })?),
        None => None,
    };
    let beside_file = match client.item("auth_token_file") {
        Some(item) => {
            let path = path(&item, file)?;
            let is_variable = is_variable(&item);
            // A token file that is not used is not read: the flag may replace it because it does not exist.
            let is_used = overrides.token_file().is_none()
                && in_file.is_none()
                && (is_variable || of_environment.is_none());
            if is_used {
                let token = token::read_file(&path, &mut warnings);
                let token = token.map_err(|problem| item.error(problem))?;
                Some(Given { token, is_variable })
            } else {
                None
            }
        }
        None => None,
    };
    let proxy = proxy::read(&mut client)?;
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
    let names_server = server_host.is_some() || server_port.is_some();
    let has_work = !tunnels.is_empty() || !entries.is_empty();
    let (server_host, server_port) = match (server_host, server_port) {
        (Some(host), port) => (host, port.unwrap_or(DEFAULT_PORT)),
        (None, Some(port)) => (LOOPBACK.to_owned(), port),
        (None, None) => match state_dir.running_server()? {
            Some(server) => {
                let addr = server.dial_addr();
                (addr.ip().to_string(), addr.port())
            }
            None => (LOOPBACK.to_owned(), DEFAULT_PORT),
        },
    };
    let server = HostPort::new(&server_host, server_port);
    let local = match local_server(&state_dir, &server) {
        // The address is known without the file.
        Err(_) if names_server => LocalServer::Unknown,
        local => local?,
    };
    let is_local = server.is_loopback() || !matches!(local, LocalServer::Unknown);
    let mut files = files(root, file);
    let tls = match (tls, local) {
        (ClientChoice::Off, _) => None,
        (ClientChoice::On(tls), _) => Some(tls),
        (ClientChoice::Auto, LocalServer::OwnCa) => {
            let path = state_dir.ca_file();
            let tls = tunnel_tls::by_own_ca(&path)?;
            files.push(path);
            Some(tls)
        }
        (ClientChoice::Auto, _) if server.is_loopback() => None,
        (ClientChoice::Auto, _) => Some(tunnel_tls::by_system()?),
    };
    let proxy = match proxy {
        proxy::Choice::On(proxy) => Some(proxy),
        // In clear text, a proxy could read everything: only a setting chooses it.
        proxy::Choice::Auto if tls.is_some() && !is_local => {
            proxy::of_environment(variables, &server, &mut warnings)
        }
        proxy::Choice::Auto | proxy::Choice::Off => None,
    };
    let given = in_file.or(beside_file);
    let token = match (overrides.token_file(), given, of_environment) {
        (Some(path), ..) => {
            let flag = || Origin::Flag("--token-file".to_owned());
            token::read_file(path, &mut warnings)
                .map_err(|problem| ConfigError::new(flag(), "", problem))?
        }
        // Of two variables, the one that is named after the key takes precedence.
        (None, Some(given), None)
        | (
            None,
            Some(
                given @ Given {
                    is_variable: true, ..
                },
            ),
            _,
        ) => given.token,
        (None, _, Some(token)) => token,
        (None, None, None) => match state_dir.token(&mut warnings)? {
            Some(token) => token,
            None if !has_work => {
                let error = ConfigError::new(Origin::Default, "client.tunnels", NO_WORK);
                return Err(error.of_kind(Kind::Lacking));
            }
            None => return Err(no_token(&state_dir, names_server)),
        },
    };
    let settings = Settings {
        client_id,
        client_id_chosen,
        group_id,
        server_host,
        server_port,
        proxy,
        tls,
        token,
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

const LOOPBACK: &str = "127.0.0.1";

/// A name or an address, without brackets.
fn server_host(item: &Item<'_>) -> Result<String, ConfigError> {
    let host = fields::host(item, "server_port")?;
    if host == "0.0.0.0" || host == "::" {
        return Err(item.error(format!(
            "expected the name or address of a server, found {host:?}, which is every address"
        )));
    }
    Ok(host)
}

/// What the state directory says about a server.
enum LocalServer {
    /// It runs on this machine, and its certificate is of its own CA.
    OwnCa,
    /// It runs on this machine, without its own CA.
    Other,
    /// It is not the server of the state directory.
    Unknown,
}

fn local_server(state_dir: &StateDir, server: &HostPort) -> Result<LocalServer, ConfigError> {
    match state_dir.running_server()? {
        Some(running) if running.is_at(server) && running.own_ca => Ok(LocalServer::OwnCa),
        Some(running) if running.is_at(server) => Ok(LocalServer::Other),
        Some(_) => Ok(LocalServer::Unknown),
        // It starts later: a CA on the disk means that it uses TLS.
        None if server.is_loopback() && state_dir.ca_file().exists() => Ok(LocalServer::OwnCa),
        None => Ok(LocalServer::Unknown),
    }
}

/// A token from the file or from a variable, or the file that contains it.
struct Given {
    token: SecretString,
    is_variable: bool,
}

fn is_variable(item: &Item<'_>) -> bool {
    matches!(item.origin(), Origin::Variable(_))
}

/// The error of a client without tunnels and entries.
pub const NO_WORK: &str = "no tunnel and no entry is configured; add `tunnels` or `entries` to the file, or expose a service with `adit http PORT`";

fn no_token(state_dir: &StateDir, names_server: bool) -> ConfigError {
    let refused = |message: String| {
        ConfigError::new(Origin::Default, "client.auth_token", message).with_help(
            "set ADIT__TOKEN, --token-file, client.auth_token or client.auth_token_file to the token of the server",
        )
        .of_kind(Kind::Lacking)
    };
    let file = state_dir.token_file();
    if names_server {
        return refused(format!(
            "missing token for the server; {} has none either",
            file.display()
        ));
    }
    if state_dir.is_held() {
        return refused(
            "missing token: the adit-server on this machine accepts only the tokens of its own file"
                .to_owned(),
        );
    }
    refused(format!(
        "missing token: no server has written one to {}",
        file.display()
    ))
    .of_kind(Kind::NoServer)
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
