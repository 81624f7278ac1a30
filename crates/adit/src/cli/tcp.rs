//! `adit tcp`.

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{Args, builder::PossibleValuesParser};

use super::{link::Link, policies::POLICIES};

const EXAMPLES: &str = "\
Examples:
  adit tcp 22                                        the server picks a port, and says which
  adit tcp 22 --remote-port 2222                     ssh -p 2222 tunnel.example.com
  adit tcp db.internal:5432 --remote-port 5432       a service on another machine
  adit tcp 8443 --proxy-protocol v2                  the service is told who the visitor is";

/// `adit tcp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Tcp {
    /// The service: a port of this machine, or a host and its port
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Port of the server that leads here [default: the server picks one]
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__TCP__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
    /// Name of the tunnel [default: tcp-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__TCP__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__TCP__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How connections are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__TCP__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
    /// Tell the service who the visitor is, before anything else [default: do not]
    #[arg(
        long,
        value_name = "VERSION",
        env = "ADIT__TCP__PROXY_PROTOCOL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["v1", "v2"])
    )]
    pub proxy_protocol: Option<String>,
}

impl Tcp {
    pub(super) fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Tcp,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            ..TunnelOverrides::default()
        }
    }
}
