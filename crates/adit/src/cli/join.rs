//! The command lines of `adit-server join`, `adit-server ca` and `adit join`.

use std::{fmt, path::PathBuf, time::Duration};

use adit_auth::{CredentialId, UserName};
use clap::{Args, Subcommand, value_parser};
use ipnet::IpNet;

use super::credentials::{ScopeFlags, lifetime, network};

pub(super) const INVITE_EXAMPLES: &str = "\
Examples:
  adit-server join --public-addr tunnel.example.com        one client, within 15 minutes
  adit-server join --public-addr 192.0.2.1:7000 --user alice --uses 10 --expires 7d --approve
The line that it prints is for `adit join` on the client's machine. It contains a secret until it is used up.";

pub(super) const JOIN_EXAMPLES: &str = "\
Examples:
  adit join                      asks for the line
  adit join < line
  adit join --file line
  adit join --proxy http://proxy.example.com:3128
  ADIT__JOIN=$(cat line) adit join
Afterwards `adit http 8080` and all other commands use the server that was joined.";

pub(super) const CA_EXAMPLES: &str = "\
Examples:
  adit-server ca issue alice --client-id office-1 --public-addr tunnel.example.com --out office-1.json
  adit-server ca list
  adit-server ca revoke 4f6c2a9b13d0";

/// `adit-server join`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Invite {
    /// Address of this server for the client: HOST or HOST:PORT [default: asked for]
    #[arg(long, value_name = "HOST:PORT")]
    pub public_addr: Option<String>,
    /// User of the client; any but the default one is added before with `user add`
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub user: UserName,
    /// Clients that may join with the line
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    pub uses: u32,
    /// The line is valid for this time
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = lifetime)]
    pub expires: Duration,
    /// Networks from which clients may join, such as 192.0.2.0/24 [default: all]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub from: Vec<IpNet>,
    /// Clients that joined wait until `key approve` accepts them
    #[arg(long)]
    pub approve: bool,
    /// What the clients may use at most
    #[command(flatten)]
    pub scopes: ScopeFlags,
}

/// `adit join`.
#[derive(Clone, PartialEq, Eq, Args)]
#[command(after_help = JOIN_EXAMPLES)]
pub struct Join {
    /// The line of `adit-server join`; better not here, where every user of this machine can read it
    #[arg(value_name = "LINE", hide = true)]
    pub line: Option<String>,
    /// File with the line
    #[arg(
        long,
        value_name = "FILE",
        env = "ADIT__JOIN__FILE",
        hide_env_values = true
    )]
    pub file: Option<PathBuf>,
    /// Name of this client in the lists of the server [default: host name] [env: ADIT__CLIENT__CLIENT_ID]
    #[arg(long, value_name = "NAME")]
    pub client_id: Option<String>,
    /// URL of the proxy on the way to the server, as in `client.proxy`, or `off` [default: that of HTTPS_PROXY or ALL_PROXY] [env: ADIT__CLIENT__PROXY]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
}

impl fmt::Debug for Join {
    /// Without the line, which contains a secret, and the proxy, whose URL may contain one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("file", &self.file)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// `adit-server ca`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[allow(clippy::large_enum_variant)] // made once
pub enum Ca {
    /// Make a key and a certificate for a client, as `adit join` would, and write them to a file for its state directory
    Issue(CaIssue),
    /// Show the certificates of clients
    List,
    /// Revoke the certificate of a client; its link ends within a second
    Revoke {
        /// The id, as `list` shows it
        id: CredentialId,
    },
}

/// `adit-server ca issue`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CaIssue {
    /// The user, added before with `user add`
    pub user: UserName,
    /// Name of the client in lists
    #[arg(long, value_name = "NAME")]
    pub client_id: String,
    /// Address of this server for the client: HOST or HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub public_addr: String,
    /// File that is written, for joined.json in the client's state directory
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What the client may use at most
    #[command(flatten)]
    pub scopes: ScopeFlags,
}
