//! `adit route`.

use clap::{Args, Subcommand};

const ROUTE_EXAMPLES: &str = "\
Examples:
  adit route test http://app.example.com/api/users
  adit route test http://app.example.com/ --admin 127.0.0.1:7500 --json";

/// `adit route`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Route {
    /// Explain which rule a URL matches, and why not another
    #[command(after_help = ROUTE_EXAMPLES)]
    Test(RouteTest),
}

/// `adit route test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RouteTest {
    /// What a visitor would ask for
    #[arg(value_name = "URL")]
    pub url: String,
    /// Where the server serves its status [default: that of the server on this machine]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "ADIT__ROUTE__ADMIN",
        hide_env_values = true
    )]
    pub admin: Option<std::net::SocketAddr>,
}
