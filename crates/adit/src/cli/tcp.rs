//! The command line of `adit tcp`.

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{Args, builder::PossibleValuesParser};

use super::tunnel::TunnelArgs;

const EXAMPLES: &str = "\
Examples:
  adit tcp 22                                        on a free public port, which the first line of output names
  adit tcp 22 --remote-port 2222                     ssh -p 2222 tunnel.example.com
  adit tcp db.internal:5432 --remote-port 5432       a service on another machine
  adit tcp 8443 --proxy-protocol v2                  the service receives the visitor's address";

/// `adit tcp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Tcp {
    /// Service, server and tunnel.
    #[command(flatten)]
    pub tunnel: TunnelArgs,
    /// Send the visitor's address to the service, in a header before anything else [default: do not]
    #[arg(
        long,
        value_name = "VERSION",
        env = "ADIT__TUNNEL__PROXY_PROTOCOL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["v1", "v2"])
    )]
    pub proxy_protocol: Option<String>,
}

impl Tcp {
    pub(super) fn overrides(&self) -> TunnelOverrides {
        TunnelOverrides {
            proxy_protocol: self.proxy_protocol.clone(),
            ..self.tunnel.overrides(TunnelKind::Tcp)
        }
    }
}
