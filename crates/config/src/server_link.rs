//! How a client reaches its server: address, proxy, TLS and credential.

use std::{
    fs,
    path::{Path, PathBuf},
};

use adit_auth::ClientId;
use adit_client::{ClientTls, HostPort, Joined, JoinedError, Proxy};
use secrecy::SecretString;

use crate::{
    environment::Variables,
    error::{ConfigError, Kind, Origin},
    fields::{self, path},
    overrides::ClientOverrides,
    permissions::{check_secret, warn_of_inline_secret},
    proxy,
    read::{Item, Section},
    state::StateDir,
    token,
    tunnel_tls::{self, ClientChoice},
};

/// The default port of a server for clients.
const DEFAULT_PORT: u16 = 7000;

const LOOPBACK: &str = "127.0.0.1";

/// The keys of the file, the environment and the flags about the server.
pub(crate) struct ServerLink {
    host: Option<String>,
    port: Option<u16>,
    tls: ClientChoice,
    proxy: proxy::Choice,
    token: Option<SecretString>,
}

/// How the server is reached.
pub(crate) struct ServerEndpoint {
    pub(crate) server: HostPort,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) token: Option<SecretString>,
    /// The client id that was chosen when the client joined this server.
    pub(crate) client_id: Option<ClientId>,
    /// The file of the server that the client has joined, if it is this one.
    pub(crate) joined: Option<PathBuf>,
}

impl ServerLink {
    /// Reads the keys about the server. A token file that is not used is not read: a flag may replace it because it does
    /// not exist.
    pub(crate) fn read(
        client: &mut Section<'_>,
        file: Option<&Path>,
        variables: &Variables,
        overrides: &ClientOverrides,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let host = client
            .item("server_addr")
            .map(|item| server_host(&item))
            .transpose()?;
        let port = match client.item("server_port") {
            Some(item) => Some(item.number::<u16>(1..=65_535)?),
            None => None,
        };
        let tls = match client.item("tls") {
            Some(item) => tunnel_tls::client(&item, file, warnings)?,
            None => ClientChoice::Auto,
        };
        Ok(Self {
            host,
            port,
            tls,
            token: given_token(client, file, variables, overrides, warnings)?,
            proxy: proxy::read(client)?,
        })
    }

    /// Completes it from the state directory: from a server that the client has joined, or from one that runs on this
    /// machine. Adds the files that are read to `files`.
    pub(crate) fn resolve(
        self,
        state_dir: &StateDir,
        has_work: bool,
        variables: &Variables,
        files: &mut Vec<PathBuf>,
        warnings: &mut Vec<String>,
    ) -> Result<ServerEndpoint, ConfigError> {
        let names_server = self.host.is_some() || self.port.is_some();
        let joined = match joined(state_dir, warnings) {
            // Another server than the one in the file may be meant.
            Err(error) if names_server => {
                warnings.push(error.to_string());
                None
            }
            joined => joined?,
        };
        let server = match (&self.host, self.port, &joined) {
            (Some(host), port, _) => HostPort::new(host, port.unwrap_or(DEFAULT_PORT)),
            (None, Some(port), _) => HostPort::new(LOOPBACK, port),
            (None, None, Some((_, server))) => server.clone(),
            (None, None, None) => match state_dir.running_server()? {
                Some(running) => running.dial_addr().into(),
                None => HostPort::new(LOOPBACK, DEFAULT_PORT),
            },
        };
        let joined = joined.filter(|(_, known)| *known == server);
        let joined = joined.map(|(joined, _)| joined);
        if joined.is_some() {
            files.push(state_dir.joined_file());
        }
        let local = match local_server(state_dir, &server) {
            // The address is known without the file.
            Err(_) if names_server || joined.is_some() => LocalServer::Unknown,
            local => local?,
        };
        let is_local = server.is_loopback() || !matches!(local, LocalServer::Unknown);
        let is_auto = matches!(self.tls, ClientChoice::Auto);
        if let Some(joined) = joined.as_ref().filter(|_| !is_auto)
            && joined.key().is_none()
        {
            warnings.push(format!(
                "`client.tls` takes the place of the certificate in {}: remove it to connect as the client that has joined",
                state_dir.joined_file().display()
            ));
        }
        let tls = match (self.tls, &joined, local) {
            (ClientChoice::Off, ..) => None,
            (ClientChoice::On(tls), ..) => Some(tls),
            (ClientChoice::Auto, Some(joined), _) => {
                let tls = joined.tls();
                tls.map_err(|error| unusable(state_dir, &error))?
            }
            (ClientChoice::Auto, None, LocalServer::OwnCa) => {
                let path = state_dir.ca_file();
                let tls = tunnel_tls::by_own_ca(&path)?;
                files.push(path);
                Some(tls)
            }
            (ClientChoice::Auto, None, _) if server.is_loopback() => None,
            (ClientChoice::Auto, None, _) => Some(tunnel_tls::by_system()?),
        };
        let proxy = match self.proxy {
            proxy::Choice::On(proxy) => Some(proxy),
            // In clear text, a proxy could read everything: only a setting chooses it.
            proxy::Choice::Auto if tls.is_some() && !is_local => {
                proxy::of_environment(variables, &server, warnings)
            }
            proxy::Choice::Auto | proxy::Choice::Off => None,
        };
        let token = match (self.token, &joined) {
            (Some(token), _) => Some(token),
            (None, Some(joined)) if joined.key().is_some() => joined.key().cloned(),
            // The certificate is part of the joined server's TLS.
            (None, Some(_)) if is_auto => None,
            (None, _) if tls.as_ref().is_some_and(ClientTls::has_certificate) => None,
            (None, _) => match state_dir.token(warnings)? {
                Some(token) => Some(token),
                None if !has_work => {
                    let error = ConfigError::new(Origin::Default, "client.tunnels", NO_WORK);
                    return Err(error.of_kind(Kind::Lacking));
                }
                None if joined.is_some() => {
                    let message = "missing token: `client.tls` takes the place of the certificate of the server that was joined";
                    let error = ConfigError::new(Origin::Default, "client.auth_token", message);
                    let error = error.with_help(
                        "remove `client.tls` to connect as the client that has joined, or set a token of the server",
                    );
                    return Err(error.of_kind(Kind::Lacking));
                }
                None => return Err(no_token(state_dir, names_server)),
            },
        };
        let client_id = joined
            .as_ref()
            .and_then(|joined| joined.client_id.as_deref());
        Ok(ServerEndpoint {
            client_id: client_id.and_then(|id| ClientId::parse(id).ok()),
            server,
            proxy,
            tls,
            token,
            // Over another connection than that of the file, nothing proves that the peer is the server of the file.
            joined: { joined.filter(|_| is_auto) }.map(|_| state_dir.joined_file()),
        })
    }
}

/// The server that the client has joined, with its address.
fn joined(
    state_dir: &StateDir,
    warnings: &mut Vec<String>,
) -> Result<Option<(Joined, HostPort)>, ConfigError> {
    let failed = |error: JoinedError| unusable(state_dir, &error);
    let file = state_dir.joined_file();
    let Some(joined) = Joined::read(&file).map_err(failed)? else {
        return Ok(None);
    };
    let server = joined.server().map_err(failed)?;
    // What others can write was refused above.
    if let Ok(metadata) = fs::metadata(&file)
        && let Ok(Some(warning)) = check_secret(&file, &metadata)
    {
        warnings.push(warning);
    }
    Ok(Some((joined, server)))
}

fn unusable(state_dir: &StateDir, error: &JoinedError) -> ConfigError {
    ConfigError::new(
        Origin::place(0, 0),
        "",
        format!("the server that was joined: {error}"),
    )
    .in_file(&state_dir.joined_file())
    .with_help("join again with `adit join`, or remove this file")
}

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

/// The token of the flag, the file or the environment.
fn given_token(
    client: &mut Section<'_>,
    file: Option<&Path>,
    variables: &Variables,
    overrides: &ClientOverrides,
    warnings: &mut Vec<String>,
) -> Result<Option<SecretString>, ConfigError> {
    let in_file = match client.item("auth_token") {
        Some(item) => {
            let token =
                token::presented(item.secret("a token")?).map_err(|problem| item.error(problem))?;
            warn_of_inline_secret(&item, file, warnings);
            Some(Given {
                token,
                is_variable: is_variable(&item),
            })
        }
        None => None,
    };
    let of_environment = match variables.value("ADIT__TOKEN") {
        Some(text) => Some(token::presented(text).map_err(|problem| {
            ConfigError::new(Origin::Variable("ADIT__TOKEN".to_owned()), "", problem)
        })?),
        None => None,
    };
    let beside_file = match client.item("auth_token_file") {
        Some(item) => {
            let path = path(&item, file)?;
            let is_variable = is_variable(&item);
            let is_used = overrides.token_file().is_none()
                && in_file.is_none()
                && (is_variable || of_environment.is_none());
            if is_used {
                let token = token::read_presented(&path, warnings);
                let token = token.map_err(|problem| item.error(problem))?;
                Some(Given { token, is_variable })
            } else {
                None
            }
        }
        None => None,
    };
    let given = in_file.or(beside_file);
    Ok(match (overrides.token_file(), given, of_environment) {
        (Some(path), ..) => {
            let flag = || Origin::Flag("--token-file".to_owned());
            let token = token::read_presented(path, warnings);
            Some(token.map_err(|problem| ConfigError::new(flag(), "", problem))?)
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
        ) => Some(given.token),
        (None, _, token) => token,
    })
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
            "run `adit-server join` on the server's machine and `adit join` here, or set ADIT__TOKEN, --token-file, \
             client.auth_token or client.auth_token_file to the token of the server",
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
