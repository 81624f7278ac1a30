//! Values of flags. Values that are checked with the settings remain text in this module, so that there is one check
//! for files and flags.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use adit_client::TunnelKind;
use adit_server::HostPort;

use crate::{
    document::{Entry, Node, Value},
    environment::place,
    error::{ConfigError, Origin},
};

/// Flags of `adit-server`, which take precedence over file and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerOverrides {
    /// `--bind-addr`
    pub bind_addr: Option<IpAddr>,
    /// `--bind-port`
    pub bind_port: Option<u16>,
    /// `--http-port`
    pub http_port: Option<u16>,
    /// `--https-port`
    pub https_port: Option<u16>,
    /// `--acme-email`
    pub acme_email: Option<String>,
    /// `--admin`: address with port, port, or `off`.
    pub admin: Option<String>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--threads`
    pub threads: Option<usize>,
    /// `--domain`
    pub domain: Option<String>,
}

/// Flags of `adit`, which take precedence over file and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOverrides {
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--server`: `HOST` or `HOST:PORT`.
    pub server: Option<String>,
    /// `--client-id`
    pub client_id: Option<String>,
    /// `--group`
    pub group_id: Option<String>,
    /// `--token-file`
    pub token_file: Option<PathBuf>,
    /// `--lanes`
    pub lanes: Option<u32>,
    /// The only tunnel to serve, instead of those of the file.
    pub tunnel: Option<TunnelOverrides>,
}

/// A tunnel from the command line: `adit http 8080`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelOverrides {
    /// The command: `http`, `tcp`.
    pub kind: TunnelKind,
    /// `PORT` or `HOST:PORT` of the service; with `https://` before it, over TLS.
    pub service: String,
    /// `--name`; by default the command and the port, such as `http-8080`.
    pub name: Option<String>,
    /// `--remote-port`
    pub remote_port: Option<u16>,
    /// `--domain`
    pub domains: Vec<String>,
    /// `--weight`
    pub weight: Option<u32>,
    /// `--load-balance`
    pub load_balance: Option<String>,
    /// `--ssl-cert`
    pub ssl_cert: Option<String>,
    /// `--host-rewrite`
    pub host_rewrite: Option<String>,
    /// `--local-protocol`
    pub local_protocol: Option<String>,
    /// `--tls-ca`
    pub tls_ca: Option<PathBuf>,
    /// `--tls-name`
    pub tls_name: Option<String>,
    /// `--tls-insecure`
    pub tls_insecure: bool,
    /// `--proxy-protocol`
    pub proxy_protocol: Option<String>,
    /// `--session-timeout`
    pub session_timeout: Option<String>,
}

fn flag(name: &str) -> Origin {
    Origin::Flag(name.to_owned())
}

/// Sets a key of the tree when the flag was given.
fn set(
    root: &mut Node,
    keys: &[&str],
    name: &str,
    value: Option<impl ToString>,
) -> Result<(), ConfigError> {
    let Some(value) = value else {
        return Ok(());
    };
    let node = Node::untyped(value.to_string(), flag(name));
    place(root, keys, node).map_err(|at| {
        ConfigError::new(
            flag(name),
            keys.join("."),
            format!("{at} is not a section in the file, so no key in it can be set"),
        )
    })
}

impl ServerOverrides {
    pub(crate) fn lay_over(&self, root: &mut Node) -> Result<(), ConfigError> {
        set(
            root,
            &["server", "bind_addr"],
            "--bind-addr",
            self.bind_addr,
        )?;
        set(
            root,
            &["server", "bind_port"],
            "--bind-port",
            self.bind_port,
        )?;
        let http = ["server", "http", "bind_port"];
        set(root, &http, "--http-port", self.http_port)?;
        let https = ["server", "https", "bind_port"];
        set(root, &https, "--https-port", self.https_port)?;
        let email = ["server", "https", "acme", "email"];
        set(root, &email, "--acme-email", self.acme_email.as_ref())?;
        let admin = ["server", "admin", "bind"];
        set(root, &admin, "--admin", self.admin.as_ref())?;
        set(root, &["server", "threads"], "--threads", self.threads)?;
        set(
            root,
            &["server", "domain"],
            "--domain",
            self.domain.as_ref(),
        )
    }
}

impl ClientOverrides {
    pub(crate) fn lay_over(&self, root: &mut Node) -> Result<(), ConfigError> {
        if let Some(server) = &self.server {
            let (host, port) = HostPort::split(server).map_err(|_| {
                ConfigError::new(
                    flag("--server"),
                    "",
                    format!("expected HOST or HOST:PORT, found {server:?}"),
                )
                .with_help("for example --server tunnel.example.com:7000")
            })?;
            set(root, &["client", "server_addr"], "--server", Some(host))?;
            set(root, &["client", "server_port"], "--server", port)?;
        }
        let client_id = ["client", "client_id"];
        set(root, &client_id, "--client-id", self.client_id.as_ref())?;
        set(
            root,
            &["client", "group_id"],
            "--group",
            self.group_id.as_ref(),
        )?;
        set(root, &["client", "lanes"], "--lanes", self.lanes)?;
        match &self.tunnel {
            Some(tunnel) => {
                let tunnels = Node {
                    value: Value::List(vec![tunnel.node()?]),
                    origin: flag(SERVICE),
                };
                place(root, &["client", "tunnels"], tunnels).map_err(|at| {
                    let message = format!("{at} is not a section in the file");
                    ConfigError::new(flag(SERVICE), "", message)
                })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }
}

/// Name of the argument in the help of `adit http` and the other commands.
const SERVICE: &str = "<PORT|HOST:PORT>";

impl TunnelOverrides {
    /// The tunnel as a node of a file.
    fn node(&self) -> Result<Node, ConfigError> {
        let refused = || {
            ConfigError::new(
                flag(SERVICE),
                "",
                format!("expected PORT or HOST:PORT, found {:?}", self.service),
            )
            .with_help("for example 8080 or 192.168.1.10:8080")
        };
        let secure = match self.kind {
            TunnelKind::Http | TunnelKind::Grpc | TunnelKind::WebSocket => {
                self.service.strip_prefix("https://")
            }
            _ => None,
        };
        let service = secure.unwrap_or(&self.service);
        let (host, port) = match service.parse::<u16>() {
            Ok(port) => (None, port),
            Err(_) => match HostPort::split(service).map_err(|_| refused())? {
                (host, Some(port)) => (Some(host.to_owned()), port),
                (_, None) => return Err(refused()),
            },
        };
        let name = (self.name.clone()).unwrap_or_else(|| format!("{}-{port}", self.kind.as_str()));
        let mut entries = Vec::new();
        let mut add = |key: &str, flag_name: &str, value: Option<String>| {
            if let Some(value) = value {
                entries.push(Entry {
                    key: key.to_owned(),
                    origin: flag(flag_name),
                    node: Node::untyped(value, flag(flag_name)),
                });
            }
        };
        add("name", "--name", Some(name));
        add("type", SERVICE, Some(self.kind.as_str().to_owned()));
        add("local_addr", SERVICE, host);
        add("local_port", SERVICE, Some(port.to_string()));
        add(
            "weight",
            "--weight",
            self.weight.map(|weight| weight.to_string()),
        );
        add("load_balance", "--load-balance", self.load_balance.clone());
        add("host_rewrite", "--host-rewrite", self.host_rewrite.clone());
        add("ssl_cert", "--ssl-cert", self.ssl_cert.clone());
        add(
            "local_protocol",
            "--local-protocol",
            self.local_protocol.clone(),
        );
        add(
            "remote_port",
            "--remote-port",
            self.remote_port.map(|port| port.to_string()),
        );
        add(
            "proxy_protocol",
            "--proxy-protocol",
            self.proxy_protocol.clone(),
        );
        add(
            "session_timeout",
            "--session-timeout",
            self.session_timeout.clone(),
        );
        entries.extend(self.tls(secure.is_some()));
        if !self.domains.is_empty() {
            let domain = |domain: &String| Node::untyped(domain, flag("--domain"));
            entries.push(Entry {
                key: "domains".to_owned(),
                origin: flag("--domain"),
                node: Node {
                    value: Value::List(self.domains.iter().map(domain).collect()),
                    origin: flag("--domain"),
                },
            });
        }
        Ok(Node {
            value: Value::Section(entries),
            origin: flag(SERVICE),
        })
    }
}

impl TunnelOverrides {
    /// `local_tls`, if the service's URL or a flag requires it.
    fn tls(&self, is_https: bool) -> Option<Entry> {
        let mut entries = Vec::new();
        let mut add = |key: &str, flag_name: &str, value: Option<String>| {
            if let Some(value) = value {
                entries.push(Entry {
                    key: key.to_owned(),
                    origin: flag(flag_name),
                    node: Node::untyped(value, flag(flag_name)),
                });
            }
        };
        let ca = self.tls_ca.as_ref();
        add(
            "ca_file",
            "--tls-ca",
            ca.map(|path| path.to_string_lossy().into_owned()),
        );
        add("server_name", "--tls-name", self.tls_name.clone());
        add(
            "insecure",
            "--tls-insecure",
            self.tls_insecure.then(|| "true".to_owned()),
        );
        let origin = entries.first().map(|first| first.origin.clone());
        let origin = origin.or_else(|| is_https.then(|| flag(SERVICE)))?;
        Some(Entry {
            key: "local_tls".to_owned(),
            origin: origin.clone(),
            node: Node {
                value: Value::Section(entries),
                origin,
            },
        })
    }
}
