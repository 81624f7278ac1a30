//! The command line of `adit http`.

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{Args, builder::PossibleValuesParser};

use super::tunnel::{HostArgs, TunnelArgs};

const EXAMPLES: &str = "\
Examples:
  adit http 8080                                     http://127.0.0.1:8080, as http://http-8080.localhost:7080
  adit http 8080 --name web                          as http://web.localhost:7080
  adit http 192.168.1.10:80 --domain app.example.com --domain www.example.com
  adit http 50051 --local-protocol h2c               an HTTP/2 service without TLS (h2c)
  adit http 8080 --remote-port 8081                  on a public port of its own, for any host
  adit http 8080 --group shop --client-id shop-2     a second client that shares the load of a group";

/// `adit http`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Http {
    /// Service, server and tunnel.
    #[command(flatten)]
    pub tunnel: TunnelArgs,
    /// Hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// Protocol of the service [default: http1]
    #[arg(
        long,
        value_name = "PROTOCOL",
        env = "ADIT__TUNNEL__LOCAL_PROTOCOL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["http1", "h2c", "h2"])
    )]
    pub local_protocol: Option<String>,
}

impl Http {
    pub(super) fn overrides(&self) -> TunnelOverrides {
        TunnelOverrides {
            domains: self.hosts.domain.clone(),
            ssl_cert: self.hosts.ssl_cert.clone(),
            host_rewrite: self.hosts.host_rewrite.clone(),
            local_protocol: self.local_protocol.clone(),
            ..self.tunnel.overrides(TunnelKind::Http)
        }
    }
}
