//! `adit grpc`.

use std::path::PathBuf;

use adit_client::TunnelKind;
use adit_config::TunnelOverrides;
use clap::{
    ArgAction, Args,
    builder::{FalseyValueParser, PossibleValuesParser},
};

use super::{link::Link, policies::POLICIES};

const EXAMPLES: &str = "\
Examples:
  adit grpc 50051                                    h2c://127.0.0.1:50051, as http://grpc-50051.localhost:7080
  adit grpc 50051 --domain api.example.com           grpcurl -plaintext api.example.com:80 list
  adit grpc https://127.0.0.1:50051 --tls-ca ca.pem  a service over TLS, with a CA of its own
  adit grpc 50051 --remote-port 50051                on a port of its own, whatever host is asked for";

/// `adit grpc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Grpc {
    /// The service: a port of this machine, or a host and its port; with https:// before it, over TLS
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Name of the tunnel [default: grpc-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__GRPC__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Host that leads here, or *.HOST; may be repeated [default: NAME.localhost]
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__GRPC__DOMAIN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub domain: Vec<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__GRPC__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How calls are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__GRPC__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
    /// Host that the service is asked for, instead of the visitor's
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__GRPC__HOST_REWRITE",
        hide_env_values = true
    )]
    pub host_rewrite: Option<String>,
    /// CA that the service's certificate is checked with, instead of those of the system
    #[arg(
        long,
        value_name = "FILE",
        env = "ADIT__GRPC__TLS_CA",
        hide_env_values = true,
        conflicts_with = "tls_insecure"
    )]
    pub tls_ca: Option<PathBuf>,
    /// Name that the service's certificate is for [default: the service's host]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__GRPC__TLS_NAME",
        hide_env_values = true
    )]
    pub tls_name: Option<String>,
    /// Believe any certificate of the service
    #[arg(
        long,
        action = ArgAction::SetTrue,
        env = "ADIT__GRPC__TLS_INSECURE",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub tls_insecure: bool,
    /// Port of the server that leads here alone, whatever host is asked for
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__GRPC__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
}

impl Grpc {
    pub(super) fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Grpc,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            domains: self.domain.clone(),
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            host_rewrite: self.host_rewrite.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_name: self.tls_name.clone(),
            tls_insecure: self.tls_insecure,
            ..TunnelOverrides::default()
        }
    }
}
