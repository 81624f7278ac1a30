//! `adit udp`.

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{Args, builder::PossibleValuesParser};

use super::{link::Link, policies::POLICIES};

const EXAMPLES: &str = "\
Examples:
  adit udp 53 --remote-port 5353                     dig @tunnel.example.com -p 5353 example.com
  adit udp 53 --remote-port 5353 --session-timeout 30s
  adit udp 27015                                     the server picks a port, and says which";

/// `adit udp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Udp {
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
        env = "ADIT__UDP__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
    /// How long a visitor and the service may both be silent [default: 60s]
    #[arg(
        long,
        value_name = "TIME",
        env = "ADIT__UDP__SESSION_TIMEOUT",
        hide_env_values = true
    )]
    pub session_timeout: Option<String>,
    /// Name of the tunnel [default: udp-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__UDP__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__UDP__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How visitors are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__UDP__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
}

impl Udp {
    pub(super) fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Udp,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            session_timeout: self.session_timeout.clone(),
            ..TunnelOverrides::default()
        }
    }
}
