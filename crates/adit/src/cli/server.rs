//! The command line of `adit-server`.

use std::{net::IpAddr, path::PathBuf};

use adit_config::ServerOverrides;
use adit_server::names::KINDS;
use adit_telemetry::Format;
use clap::{
    ArgAction, Args, Parser, Subcommand,
    builder::{FalseyValueParser, PossibleValuesParser},
};

use super::{
    credentials::Credentials,
    join::{CA_EXAMPLES, Ca, INVITE_EXAMPLES, Invite},
};

const EXAMPLES: &str = "\
Examples:
  adit-server                                  on loopback, with a generated token for clients of this machine
  adit-server --config server.yaml             everything from a file
  adit-server --config server.yaml --check     only check the file
  adit-server --bind-addr 0.0.0.0 --http-port 80 --domain tunnel.example.com
  adit-server --bind-addr 0.0.0.0 --http-port 80 --https-port 443 --acme-email you@example.com --domain tunnel.example.com
  adit-server join --public-addr tunnel.example.com    the line for `adit join` on another machine
  adit-server user add alice --group office    a user, and what it may use
  adit-server key add alice                    a key for one of its clients
  adit-server release host shop.example.com    the first user to register it next owns it
  adit-server ban list                         the addresses of visitors that are banned

Every key of the file is a variable too: server.limits.max_requests is ADIT__SERVER__LIMITS__MAX_REQUESTS.
ADIT__TOKEN is the token of the clients, ADIT__LOG the filter of the log (info, or info,adit_link=debug).
SIGTERM lets running requests finish, a second one ends at once.";

/// The public side of adit: accepts visitors and forwards them to clients
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "adit-server", version, long_version = crate::version::long(), after_help = EXAMPLES)]
pub struct Server {
    /// The command, if it is not to run a server
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
    /// File in YAML, TOML or JSON
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ADIT__CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// Address for clients and visitors [default: 127.0.0.1] [env: ADIT__SERVER__BIND_ADDR]
    #[arg(long, value_name = "IP")]
    pub bind_addr: Option<IpAddr>,
    /// Port for clients; 0 is any free one [default: 7000] [env: ADIT__SERVER__BIND_PORT]
    #[arg(long, value_name = "PORT")]
    pub bind_port: Option<u16>,
    /// Port for HTTP visitors [default: 7080] [env: ADIT__SERVER__HTTP__BIND_PORT]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Port for HTTPS visitors; their certificates come over ACME, or from files [default: none] [env:
    /// ADIT__SERVER__HTTPS__BIND_PORT]
    #[arg(long, value_name = "PORT")]
    pub https_port: Option<u16>,
    /// Orders a certificate for each host of a tunnel over ACME, with this address for the CA [env:
    /// ADIT__SERVER__HTTPS__ACME__EMAIL]
    #[arg(long, value_name = "ADDRESS")]
    pub acme_email: Option<String>,
    /// Address of health and status, or off [default: 127.0.0.1:7500] [env: ADIT__SERVER__ADMIN__BIND]
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// Directory of the token and the addresses [default: ~/.local/state/adit] [env: ADIT__STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Data threads [default: 1 on up to 2 cores, otherwise one less than cores] [env: ADIT__SERVER__THREADS]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Tunnels without a domain have the host NAME.HOST, besides NAME.localhost [env: ADIT__SERVER__DOMAIN]
    #[arg(long, value_name = "HOST")]
    pub domain: Option<String>,
    /// Format of the log
    #[arg(
        long,
        value_name = "FORMAT",
        env = "ADIT__LOG_FORMAT",
        hide_env_values = true,
        default_value = "text",
        value_parser = super::log::format()
    )]
    pub log_format: Format,
    /// Only check the configuration, and exit with 2 if it is invalid
    #[arg(
        long,
        action = ArgAction::SetTrue,
        env = "ADIT__CHECK",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub check: bool,
    /// Print lists as JSON, for scripts
    #[arg(
        long,
        global = true,
        action = ArgAction::SetTrue,
        env = "ADIT__JSON",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub json: bool,
    /// Log more; twice for everything
    #[arg(short, long, action = ArgAction::Count, env = "ADIT__VERBOSE", hide_env_values = true)]
    pub verbose: u8,
}

/// The commands of `adit-server` besides running a server.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ServerCommand {
    /// Take a name from the user that owns it, in the running server or in its state directory
    Release(Release),
    /// Print the line with which a client elsewhere joins this server
    #[command(after_help = INVITE_EXAMPLES)]
    Join(Invite),
    /// Certificates of clients by the server's own CA
    #[command(subcommand, after_help = CA_EXAMPLES)]
    Ca(Ca),
    /// Show or end the bans of visitors' addresses, in the running server
    #[command(subcommand)]
    Ban(Ban),
    /// Users and credentials.
    #[command(flatten)]
    Credentials(Credentials),
}

/// `adit-server ban`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Ban {
    /// Show the banned addresses; the status has them as JSON
    List,
    /// End the bans of an address, or all
    Clear {
        /// The address, or the /64 of an IPv6 address; all bans if it is missing
        address: Option<String>,
    },
}

/// `adit-server release KIND NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Release {
    /// Kind of name; a group is released with all names that it holds
    #[arg(value_parser = PossibleValuesParser::new(KINDS))]
    pub kind: String,
    /// The name; a port as tcp:2222 or udp:53
    pub name: String,
}

impl Server {
    /// The values of the flags, for the configuration.
    #[must_use]
    pub fn overrides(&self) -> ServerOverrides {
        ServerOverrides {
            bind_addr: self.bind_addr,
            bind_port: self.bind_port,
            http_port: self.http_port,
            https_port: self.https_port,
            acme_email: self.acme_email.clone(),
            admin: self.admin.clone(),
            state_dir: self.state_dir.clone(),
            threads: self.threads,
            domain: self.domain.clone(),
        }
    }

    /// The log filter of `-v`.
    #[must_use]
    pub fn log_filter(&self) -> Option<&'static str> {
        super::log::filter(self.verbose)
    }
}
