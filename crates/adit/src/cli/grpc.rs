//! The command line of `adit grpc`.

use std::path::PathBuf;

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{ArgAction, Args, builder::FalseyValueParser};

use super::tunnel::{HostArgs, TunnelArgs};

const EXAMPLES: &str = "\
Examples:
  adit grpc 50051                                    HTTP/2 without TLS, as http://grpc-50051.localhost:7080
  adit grpc 50051 --domain api.example.com           grpcurl -plaintext api.example.com:80 list
  adit grpc https://127.0.0.1:50051 --tls-ca ca.pem  a service over TLS, with a CA of its own
  adit grpc 50051 --remote-port 50051                on a public port of its own, for any host";

/// `adit grpc`. With `https://` before the service, it is reached over TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Grpc {
    /// Service, server and tunnel.
    #[command(flatten)]
    pub tunnel: TunnelArgs,
    /// Hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// CA that verifies the service's certificate, instead of those of the system
    #[arg(
        long,
        value_name = "FILE",
        env = "ADIT__TUNNEL__TLS_CA",
        hide_env_values = true,
        conflicts_with = "tls_insecure"
    )]
    pub tls_ca: Option<PathBuf>,
    /// Name in the service's certificate [default: the service's host]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__TUNNEL__TLS_NAME",
        hide_env_values = true
    )]
    pub tls_name: Option<String>,
    /// Do not verify the service's certificate
    #[arg(
        long,
        action = ArgAction::SetTrue,
        env = "ADIT__TUNNEL__TLS_INSECURE",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub tls_insecure: bool,
}

impl Grpc {
    pub(super) fn overrides(&self) -> TunnelOverrides {
        TunnelOverrides {
            domains: self.hosts.domain.clone(),
            ssl_cert: self.hosts.ssl_cert.clone(),
            host_rewrite: self.hosts.host_rewrite.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_name: self.tls_name.clone(),
            tls_insecure: self.tls_insecure,
            ..self.tunnel.overrides(TunnelKind::Grpc)
        }
    }
}
