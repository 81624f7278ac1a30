//! `serve`: the services, on addresses that it prints.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Args;

use super::CliError;
use crate::services::{Ports, Services};

const EXAMPLES: &str = "Examples:
  adit-loadtest serve                                     # free ports on loopback
  adit-loadtest serve --bind 0.0.0.0 --http 8081 --websocket 8082 --grpc 8083 --tcp 8084 --udp 8085";

/// The addresses and ports to listen on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Port for HTTP and server-sent events; 0 means a free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    http: u16,
    /// Port for WebSocket.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    websocket: u16,
    /// Port for gRPC (HTTP/2 in clear text).
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    grpc: u16,
    /// Port for TCP.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    tcp: u16,
    /// Port for UDP.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    udp: u16,
    /// Print the addresses as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Serves until SIGTERM or Ctrl-C, which ends it with success.
///
/// # Errors
/// Returns an error when a port cannot be bound.
pub(super) async fn serve(options: &Options) -> Result<ExitCode, CliError> {
    let ports = Ports {
        ip: options.bind,
        http: options.http,
        tcp: options.tcp,
        udp: options.udp,
        websocket: options.websocket,
        grpc: options.grpc,
    };
    let services = Services::bind(&ports).await.map_err(CliError::Service)?;
    let addresses = services.addresses().map_err(CliError::Service)?;
    if options.json {
        anstream::println!("{}", serde_json::to_string(&addresses)?);
    } else {
        for (name, address) in [
            ("http", addresses.http),
            ("websocket", addresses.websocket),
            ("grpc", addresses.grpc),
            ("tcp", addresses.tcp),
            ("udp", addresses.udp),
        ] {
            anstream::println!("{name:<10} {address}");
        }
    }
    tokio::select! {
        () = services.serve() => {}
        () = crate::asked_to_stop() => {}
    }
    Ok(ExitCode::SUCCESS)
}
