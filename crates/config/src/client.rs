//! The settings of the client.

use std::{net::SocketAddr, path::Path, time::Duration};

use adit_auth::{ClientId, GroupId, MAX_TOKEN_BYTES};
use adit_client::{Limits, Settings, Timeouts};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    document::Node,
    entry,
    environment::Variables,
    error::{ConfigError, Origin},
    hostname,
    layers::{Loaded, gather, path, side, within},
    overrides::ClientOverrides,
    read::{Item, Section},
    server::{BUDGET, COUNT, LANES, PROGRESS, SHORTEST, WINDOW, admin},
    state::StateDir,
    telemetry, token, tunnel,
    vocabulary::{self, NOTHING},
};

/// Where a server listens when nobody says otherwise.
const DEFAULT_PORT: u16 = 7000;

/// Reads the settings of the client from `file`, if there is one, and what `environment` and `overrides` lay over it.
///
/// Without the address of a server, the one that runs on this machine is taken; without a token, the one that it left in
/// the state directory. There may be no tunnels: whether that makes sense is the caller's to say.
///
/// # Errors
/// [`ConfigError`] with the first thing that is wrong.
pub fn load_client(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &ClientOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let variables = Variables::new(environment);
    let mut root = gather(file, &variables, "client")?;
    overrides
        .lay_over(&mut root)
        .and_then(|()| read(&root, file, &variables, overrides))
        .map_err(|error| within(error, file))
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
    let in_file = match client.item("auth_token") {
        Some(item) => Some(good_token(item.secret("a token")?, |m| item.error(m))?),
        None => None,
    };
    let beside_file = match client.item("auth_token_file") {
        // Not read when it is not used: the flag may be there because the file is not.
        Some(item) if in_file.is_none() && overrides.token_file().is_none() => {
            let token = token::read(&item, &path(&item, file)?)?;
            Some(good_token(token, |m| item.error(m))?)
        }
        Some(item) => {
            path(&item, file)?;
            None
        }
        None => None,
    };
    let reconnect = reconnect(&mut client.section("reconnect")?)?;
    let mut lanes = 1_u32;
    client.set_number("lanes", LANES, &mut lanes)?;
    // Any free port: what is found there, the state directory tells.
    let admin_addr = admin(&mut client, SocketAddr::from(([127, 0, 0, 1], 0)))?;
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
    let timeouts = timeouts(&mut client.section("timeouts")?)?;
    let tunnels = match client.item("tunnels") {
        Some(item) => tunnel::read_all(&item, file)?,
        None => Vec::new(),
    };
    let entries = match client.item("entries") {
        Some(item) => entry::read_all(&item)?,
        None => Vec::new(),
    };
    let state_dir = match client.item("state_dir") {
        Some(item) => Some(path(&item, file)?),
        None => None,
    };
    let telemetry = telemetry::read(&mut client, file, "adit-client")?;
    client.finish(&vocabulary::CLIENT)?;

    let state_dir = StateDir::choose(overrides.state_dir.as_deref(), state_dir, variables);
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
    let token = match overrides.token_file() {
        Some(path) => {
            let refused =
                |message| ConfigError::new(Origin::Flag("--token-file".into()), "", message);
            good_token(token::read_path(path).map_err(refused)?, refused)?
        }
        None => match in_file.or(beside_file) {
            Some(token) => token,
            None => found_token(variables, &state_dir)?,
        },
    };
    let settings = Settings {
        client_id,
        client_id_chosen,
        group_id,
        server_host,
        server_port,
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
    })
}

const LOOPBACK: &str = "127.0.0.1";

/// A name or an address, without brackets.
fn server_host(item: &Item<'_>) -> Result<String, ConfigError> {
    let host = tunnel::host(item, "server_port")?;
    if host == "0.0.0.0" || host == "::" {
        return Err(item.error(format!(
            "expected the name or address of a server, found {host:?}, which is every address"
        )));
    }
    Ok(host)
}

/// The token that nobody wrote into the file.
fn found_token(variables: &Variables, state_dir: &StateDir) -> Result<SecretString, ConfigError> {
    if let Some(token) = variables.value("ADIT__TOKEN") {
        let refused =
            |message| ConfigError::new(Origin::Variable("ADIT__TOKEN".to_owned()), "", message);
        return good_token(token.trim().to_owned().into(), refused);
    }
    let file = state_dir.token_file();
    let refused = |message| ConfigError::new(Origin::place(0, 0), "", message).in_file(&file);
    match state_dir.token()? {
        Some(token) => good_token(token, refused),
        None => Err(ConfigError::new(
            Origin::Default,
            "client.auth_token",
            format!(
                "there is no token, and no server has left one in {}",
                file.display()
            ),
        )
        .with_help(
            "start adit-server on this machine, or set ADIT__TOKEN, --token-file, \
             client.auth_token or client.auth_token_file to the token of the server",
        )),
    }
}

/// Refuses what no server accepts, without showing it.
fn good_token(
    token: SecretString,
    refused: impl Fn(String) -> ConfigError,
) -> Result<SecretString, ConfigError> {
    let text = token.expose_secret();
    let problem = if text.is_empty() {
        "the token is empty".to_owned()
    } else if text.len() > MAX_TOKEN_BYTES {
        format!("the token is longer than {MAX_TOKEN_BYTES} bytes")
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "the token contains white space or characters that are not ASCII".to_owned()
    } else {
        return Ok(token);
    };
    Err(refused(problem))
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
    section.finish(&vocabulary::RECONNECT)?;
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
    section.set_number(
        "max_entry_connections",
        COUNT,
        &mut limits.max_entry_connections,
    )?;
    section.set_size("max_window", WINDOW, &mut limits.max_window_bytes)?;
    section.set_size("budget", BUDGET, &mut limits.budget_bytes)?;
    section.finish(&NOTHING)?;
    Ok(limits)
}

fn timeouts(section: &mut Section<'_>) -> Result<Timeouts, ConfigError> {
    let mut times = Timeouts::default();
    section.set_wait("connect", SHORTEST, &mut times.connect)?;
    section.set_wait("link_wait", Duration::ZERO, &mut times.link_wait)?;
    section.set_wait("permit_wait", Duration::ZERO, &mut times.permit_wait)?;
    section.set_wait("dial", SHORTEST, &mut times.dial)?;
    section.set_wait("service", SHORTEST, &mut times.service)?;
    section.set_wait("head", SHORTEST, &mut times.head)?;
    section.set_wait("idle", SHORTEST, &mut times.idle)?;
    section.set_wait("stall", SHORTEST, &mut times.stall)?;
    section.set_wait("session_stall", SHORTEST, &mut times.session_stall)?;
    section.set_wait("session_setup", SHORTEST, &mut times.session_setup)?;
    section.set_wait(
        "session_keepalive",
        Duration::ZERO,
        &mut times.session_keepalive,
    )?;
    section.set_wait("session_close", SHORTEST, &mut times.session_close)?;
    section.set_wait("early_answer", PROGRESS, &mut times.early_answer)?;
    section.set_wait("continue_wait", Duration::ZERO, &mut times.continue_wait)?;
    section.set_wait("half_close", SHORTEST, &mut times.half_close)?;
    section.set_wait("release", SHORTEST, &mut times.release)?;
    section.set_wait("drain", Duration::ZERO, &mut times.drain)?;
    section.finish(&NOTHING)?;
    Ok(times)
}
