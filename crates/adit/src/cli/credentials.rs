//! The commands about users and their credentials: the same in both programs.

use std::{str::FromStr, time::Duration};

use adit_auth::{CredentialId, HostScope, NamePattern, PortScope, Protocol, Scopes, UserName};
use adit_config::parse_lifetime;
use clap::{Args, Subcommand};

const USER_EXAMPLES: &str = "\
Examples:
  adit-server user add alice --group office --host '*.tunnel.example.com' --port 2200-2299
  adit-server user set alice --group office    only this group from now on, and every host and port
  adit-server user list
  adit-server user revoke alice                the user and all of its credentials";

const KEY_EXAMPLES: &str = "\
Examples:
  adit-server key add alice --label laptop --expires 90d      prints the key, once
  adit-server key list
  adit-server key revoke 4f6c2a9b13d0                         links that use it end within a second
  adit-server key approve 4f6c2a9b13d0                        a client that joined and waits";

const TOKEN_EXAMPLES: &str = "\
Examples:
  adit-server token add alice --label ci                      prints a generated token, once
  adit-server token add alice --from-stdin < token            a token of your own
  adit-server token list
  adit-server token revoke 4f6c2a9b13d0";

/// Commands that change the credentials in the state directory of a server on this machine, whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Credentials {
    /// Users, and what they may use
    #[command(subcommand, after_help = USER_EXAMPLES)]
    User(User),
    /// Static tokens of users
    #[command(subcommand, after_help = TOKEN_EXAMPLES)]
    Token(Token),
    /// Keys and certificates of users
    #[command(subcommand, after_help = KEY_EXAMPLES)]
    Key(Key),
}

/// `adit-server user`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[allow(clippy::large_enum_variant)] // made once
pub enum User {
    /// Add a user
    Add {
        /// The name
        name: UserName,
        /// What all credentials of the user may use at most
        #[command(flatten)]
        scopes: ScopeFlags,
    },
    /// Replace what a user may use; its clients register again
    Set {
        /// The name
        name: UserName,
        /// What all credentials of the user may use at most
        #[command(flatten)]
        scopes: ScopeFlags,
    },
    /// Show the users
    List,
    /// Remove a user, and revoke its credentials
    Revoke {
        /// The name
        name: UserName,
    },
}

/// `adit-server token`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[allow(clippy::large_enum_variant)] // made once
pub enum Token {
    /// Add a token of a user; a generated one is printed once
    Add {
        /// How the credential is made.
        #[command(flatten)]
        new: NewFlags,
        /// Read the token from standard input instead of generating one
        #[arg(long)]
        from_stdin: bool,
    },
    /// Show the tokens, without their secrets
    List,
    /// Revoke a token; links that use it end within a second
    Revoke {
        /// The id, as `list` shows it
        id: CredentialId,
    },
}

/// `adit-server key`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[allow(clippy::large_enum_variant)] // made once
pub enum Key {
    /// Add a key of a user; it is printed once
    Add {
        /// How the credential is made.
        #[command(flatten)]
        new: NewFlags,
    },
    /// Replace what a key, a token or a certificate may use; its client registers again
    Set {
        /// The id, as `list` shows it
        id: CredentialId,
        /// What the credential may use at most
        #[command(flatten)]
        scopes: ScopeFlags,
    },
    /// Show the keys, the certificates of clients that joined, and the keys for joining
    List,
    /// Accept a client that joined and awaits approval
    Approve {
        /// The id, as `list` shows it
        id: CredentialId,
    },
    /// Revoke a key or a certificate; links that use it end within a second
    Revoke {
        /// The id, as `list` shows it
        id: CredentialId,
    },
}

/// A new credential.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NewFlags {
    /// The user, added before with `user add`
    pub user: UserName,
    /// A text for lists
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub label: String,
    /// The credential expires after this time, such as 90d or 12h [default: never]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub expires: Option<Duration>,
    /// What the credential may use at most
    #[command(flatten)]
    pub scopes: ScopeFlags,
}

/// Restrictions. Each may be repeated; without one of a kind, everything of this kind is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Restrictions (each may be repeated)")]
pub struct ScopeFlags {
    /// Client ids: NAME, or NAME* for every name with this prefix
    #[arg(long = "client", value_name = "NAME", value_delimiter = ',')]
    clients: Vec<NamePattern>,
    /// Groups: NAME or NAME*
    #[arg(long = "group", value_name = "NAME", value_delimiter = ',')]
    groups: Vec<NamePattern>,
    /// Names of tunnels: NAME or NAME*
    #[arg(long = "tunnel", value_name = "NAME", value_delimiter = ',')]
    tunnels: Vec<NamePattern>,
    /// Public hosts: HOST, or *.HOST for one label below it
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<HostScope>,
    /// Public ports: N or N-M
    #[arg(long = "port", value_name = "PORTS", value_delimiter = ',')]
    ports: Vec<PortScope>,
    /// Protocols of tunnels: http, grpc, websocket, tcp, udp, tls
    #[arg(long = "protocol", value_name = "NAME", value_delimiter = ',')]
    protocols: Vec<Protocol>,
    /// Upstreams of the server: NAME or NAME*
    #[arg(long = "upstream", value_name = "NAME", value_delimiter = ',')]
    upstreams: Vec<NamePattern>,
    /// Networks from which clients may connect, such as 192.0.2.0/24
    #[arg(long = "address", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    addresses: Vec<ipnet::IpNet>,
    /// Clients of the user at a time
    #[arg(long, value_name = "N")]
    max_clients: Option<u32>,
    /// Tunnels of one client
    #[arg(long, value_name = "N")]
    max_tunnels: Option<u32>,
}

impl ScopeFlags {
    /// The scopes that the flags state.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        fn list<T: Clone>(flags: &[T]) -> Option<Vec<T>> {
            (!flags.is_empty()).then(|| flags.to_vec())
        }
        Scopes {
            clients: list(&self.clients),
            groups: list(&self.groups),
            tunnels: list(&self.tunnels),
            hosts: list(&self.hosts),
            ports: list(&self.ports),
            protocols: list(&self.protocols),
            upstreams: list(&self.upstreams),
            addresses: list(&self.addresses),
            max_clients: self.max_clients,
            max_tunnels: self.max_tunnels,
        }
    }
}

/// A time of the command line.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    parse_lifetime(text)
        .ok_or_else(|| format!("expected a time such as 90d or 12h, found {text:?}"))
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let net = ipnet::IpNet::from_str(text).ok();
    let net = net.or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    net.ok_or_else(|| {
        format!("expected a network such as 192.0.2.0/24 or an address, found {text:?}")
    })
}
