//! The command line of `adit udp`.

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::Args;

use super::tunnel::TunnelArgs;

const EXAMPLES: &str = "\
Examples:
  adit udp 53 --remote-port 5353                     dig @tunnel.example.com -p 5353 example.com
  adit udp 53 --remote-port 5353 --session-timeout 30s
  adit udp 27015                                     on a free public port, which the first line of output names";

/// `adit udp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Udp {
    /// Service, server and tunnel.
    #[command(flatten)]
    pub tunnel: TunnelArgs,
    /// A flow ends after this long without a datagram [default: 60s]
    #[arg(
        long,
        value_name = "TIME",
        env = "ADIT__TUNNEL__SESSION_TIMEOUT",
        hide_env_values = true
    )]
    pub session_timeout: Option<String>,
}

impl Udp {
    pub(super) fn overrides(&self) -> TunnelOverrides {
        TunnelOverrides {
            session_timeout: self.session_timeout.clone(),
            ..self.tunnel.overrides(TunnelKind::Udp)
        }
    }
}
