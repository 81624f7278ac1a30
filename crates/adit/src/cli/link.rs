//! Flags of every command that dials a server.

use std::path::PathBuf;

use clap::Args;

/// How the server is reached, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Link {
    /// The server [default: the one on this machine] [env: ADIT__CLIENT__SERVER_ADDR, ADIT__CLIENT__SERVER_PORT]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: Option<String>,
    /// File that holds the token [default: that of the server on this machine] [env: ADIT__CLIENT__AUTH_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Name of this client [default: the host name] [env: ADIT__CLIENT__CLIENT_ID]
    #[arg(long, value_name = "NAME")]
    pub client_id: Option<String>,
    /// Group whose load it shares [default: the client id] [env: ADIT__CLIENT__GROUP_ID]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Data streams to the server [default: 1] [env: ADIT__CLIENT__LANES]
    #[arg(long, value_name = "N")]
    pub lanes: Option<u32>,
}
