//! Flags that the commands for one tunnel share.

use std::path::PathBuf;

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{Args, builder::PossibleValuesParser};

const POLICIES: [&str; 6] = [
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "consistent_hash",
    "ip_hash",
    "power_of_two",
];

/// Flags of every command that connects to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Link {
    /// The server [default: the one on this machine] [env: ADIT__CLIENT__SERVER_ADDR, ADIT__CLIENT__SERVER_PORT]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: Option<String>,
    /// File that holds the token [default: that of the server on this machine] [env: ADIT__CLIENT__AUTH_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Name of this client [default: the host name] [env: ADIT__CLIENT__CLIENT_ID]
    #[arg(long, value_name = "NAME")]
    pub client_id: Option<String>,
    /// Group whose load it shares [default: the client id] [env: ADIT__CLIENT__GROUP_ID]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Data streams to the server [default: 1] [env: ADIT__CLIENT__LANES]
    #[arg(long, value_name = "N")]
    pub lanes: Option<u32>,
}

/// Flags of a tunnel of any type. The variable of a flag is `ADIT__TUNNEL__` and its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TunnelArgs {
    /// The service: a port of this machine, or a host and its port
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Name of the tunnel [default: the command and the port, such as http-8080]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__TUNNEL__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Public port of its own [default: http and grpc share the port for HTTP, tcp and udp get any free one]
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__TUNNEL__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__TUNNEL__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How visitors are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__TUNNEL__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
}

/// Flags of a tunnel that is routed by host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct HostArgs {
    /// Host of the tunnel, or *.HOST; may be repeated [default: NAME.localhost]
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__TUNNEL__DOMAIN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub domain: Vec<String>,
    /// auto: the server obtains a certificate for the host from its CA [default: as the server is set]
    #[arg(
        long,
        value_name = "auto",
        env = "ADIT__TUNNEL__SSL_CERT",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["auto"])
    )]
    pub ssl_cert: Option<String>,
    /// Host header that the service receives, instead of the visitor's
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__TUNNEL__HOST_REWRITE",
        hide_env_values = true
    )]
    pub host_rewrite: Option<String>,
}

impl TunnelArgs {
    /// The overrides of a tunnel that these flags set.
    pub(super) fn overrides(&self, kind: TunnelKind) -> TunnelOverrides {
        TunnelOverrides {
            kind,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            ..TunnelOverrides::default()
        }
    }
}
