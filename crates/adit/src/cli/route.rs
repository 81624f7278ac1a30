//! The command line of `adit route`.

use clap::{Args, Subcommand};

const ROUTE_EXAMPLES: &str = "\
Examples:
  adit route test http://app.example.com/api/users
  adit route test http://app.example.com/ --admin 127.0.0.1:7500 --json";

/// `adit route`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Route {
    /// Explain which rule a URL matches, and why the others do not
    #[command(after_help = ROUTE_EXAMPLES)]
    Test(RouteTest),
}

/// `adit route test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RouteTest {
    /// The URL of a visitor
    #[arg(value_name = "URL")]
    pub url: String,
    /// Admin address of the server [default: that of the server on this machine]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "ADIT__ROUTE__ADMIN",
        hide_env_values = true
    )]
    pub admin: Option<std::net::SocketAddr>,
}
