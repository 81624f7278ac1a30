//! `adit http`.

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{Args, builder::PossibleValuesParser};

use super::{link::Link, policies::POLICIES};

const EXAMPLES: &str = "\
Examples:
  adit http 8080                                     http://127.0.0.1:8080, as http://http-8080.localhost:7080
  adit http 8080 --name web                          as http://web.localhost:7080
  adit http 192.168.1.10:80 --domain app.example.com --domain www.example.com
  adit http 50051 --local-protocol h2c               a service that speaks HTTP/2 without TLS
  adit http 8080 --remote-port 8081                  on a port of its own, whatever host is asked for
  adit http 8080 --group shop --client-id shop-2     a second client that shares the load of a group";

/// `adit http`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Http {
    /// The service: a port of this machine, or a host and its port
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Name of the tunnel [default: http-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__HTTP__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Host that leads here, or *.HOST; may be repeated [default: NAME.localhost]
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__HTTP__DOMAIN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub domain: Vec<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__HTTP__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How visitors are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__HTTP__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
    /// Host that the service is asked for, instead of the visitor's
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__HTTP__HOST_REWRITE",
        hide_env_values = true
    )]
    pub host_rewrite: Option<String>,
    /// What the service speaks [default: http1]
    #[arg(
        long,
        value_name = "PROTOCOL",
        env = "ADIT__HTTP__LOCAL_PROTOCOL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["http1", "h2c", "h2"])
    )]
    pub local_protocol: Option<String>,
    /// Port of the server that leads here alone, whatever host is asked for
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__HTTP__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
}

impl Http {
    pub(super) fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Http,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            domains: self.domain.clone(),
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            host_rewrite: self.host_rewrite.clone(),
            local_protocol: self.local_protocol.clone(),
            ..TunnelOverrides::default()
        }
    }
}
