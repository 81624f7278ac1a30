//! The command line of `adit`.

use std::path::PathBuf;

use adit_config::ClientOverrides;
use adit_telemetry::Format;
use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand, builder::FalseyValueParser,
    error::ErrorKind,
};
use clap_complete::Shell;

use super::{
    credentials::Credentials, grpc::Grpc, http::Http, join::Join, route::Route, tcp::Tcp,
    tunnel::Link, udp::Udp,
};

const EXAMPLES: &str = "\
Examples:
  adit http 8080                                     expose http://127.0.0.1:8080
  adit http 8080 --server tunnel.example.com:7000 --token-file token --domain app.example.com
  adit grpc 50051                                    expose a gRPC service
  adit tcp 22 --remote-port 2222                     forward server port 2222 to local port 22
  adit udp 53 --remote-port 5353                     the same for datagrams
  adit start --config client.yaml                    expose every tunnel of the file
  adit start --config client.yaml --check            only check the file
  adit join                                          join a server elsewhere, by the line of `adit-server join`
  adit status                                        show servers and clients on this machine
  adit demo                                          server, client and service in one process

Without --server and token, adit connects to the server that was joined, or else to an adit-server on this machine.
The variable of a key of the file is its path: client.group_id is ADIT__CLIENT__GROUP_ID.
The variable of a tunnel's flag is ADIT__TUNNEL__FLAG: --load-balance is ADIT__TUNNEL__LOAD_BALANCE.
The token may be in ADIT__TOKEN or in a file, never in a flag. ADIT__LOG is the filter of the log.";

const START_EXAMPLES: &str = "\
Examples:
  adit start --config client.yaml
  adit start --config client.yaml --client-id office-2     the same tunnels from another machine
  kill -HUP PID                                            apply a changed file: tunnels and entries";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  adit completion bash > /etc/bash_completion.d/adit
  adit completion fish > ~/.config/fish/completions/adit.fish";

/// Help heading of the flags that every command has.
const COMMON: &str = "Common options";

/// The private side of adit: forwards visitors of a public server to services on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "adit", version, long_version = crate::version::long(), after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Adit {
    /// The command; with `--check` and no command, `start` is checked.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// File in YAML, TOML or JSON
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        value_name = "FILE",
        env = "ADIT__CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// Directory of the token and the addresses [default: ~/.local/state/adit] [env: ADIT__STATE_DIR]
    #[arg(long, global = true, help_heading = COMMON, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        action = ArgAction::SetTrue,
        env = "ADIT__JSON",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub json: bool,
    /// Only check the configuration, and exit with 2 if it is invalid
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        action = ArgAction::SetTrue,
        env = "ADIT__CHECK",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub check: bool,
    /// Format of the log
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        value_name = "FORMAT",
        env = "ADIT__LOG_FORMAT",
        hide_env_values = true,
        default_value = "text",
        value_parser = super::log::format()
    )]
    pub log_format: Format,
    /// Log more; twice for everything
    #[arg(
        short,
        long,
        global = true,
        help_heading = COMMON,
        action = ArgAction::Count,
        env = "ADIT__VERBOSE",
        hide_env_values = true
    )]
    pub verbose: u8,
}

/// The commands of `adit`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Expose one HTTP service
    Http(Http),
    /// Expose one gRPC service, with or without TLS
    Grpc(Grpc),
    /// Forward a port of the server to one TCP service
    Tcp(Tcp),
    /// Forward a port of the server to one UDP service
    Udp(Udp),
    /// Expose every tunnel of the file
    Start(Start),
    /// Join a server elsewhere, by the line that `adit-server join` prints there
    Join(Join),
    /// Show the servers and clients on this machine and their state
    Status,
    /// Run server, client and service in one process, over real loopback sockets
    Demo(Demo),
    /// Query the routing of a server
    #[command(subcommand)]
    Route(Route),
    /// Users and credentials of a server on this machine.
    #[command(flatten)]
    Credentials(Credentials),
    /// Print the completion of a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// `adit start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = START_EXAMPLES)]
pub struct Start {
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
}

/// `adit demo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Demo {
    /// Check every protocol, and exit with 1 if a check fails
    #[arg(
        long,
        action = ArgAction::SetTrue,
        env = "ADIT__DEMO__ONCE",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub once: bool,
}

impl Adit {
    /// Reads the command line; prints an error and exits when it is invalid.
    #[must_use]
    pub fn read() -> Self {
        let adit = Self::parse();
        if adit.command.is_none() && !adit.check {
            let text = "no command; for example `adit http 8080` or `adit status`";
            Self::command()
                .error(ErrorKind::MissingSubcommand, text)
                .exit();
        }
        adit
    }

    /// The values of the flags, for the configuration.
    #[must_use]
    pub fn overrides(&self) -> ClientOverrides {
        let none = Link::default();
        let (link, tunnel) = match self.command.as_ref() {
            Some(Command::Http(http)) => (&http.tunnel.link, Some(http.overrides())),
            Some(Command::Grpc(grpc)) => (&grpc.tunnel.link, Some(grpc.overrides())),
            Some(Command::Tcp(tcp)) => (&tcp.tunnel.link, Some(tcp.overrides())),
            Some(Command::Udp(udp)) => (&udp.tunnel.link, Some(udp.overrides())),
            Some(Command::Start(start)) => (&start.link, None),
            _ => (&none, None),
        };
        ClientOverrides {
            state_dir: self.state_dir.clone(),
            server: link.server.clone(),
            client_id: link.client_id.clone(),
            group_id: link.group.clone(),
            token_file: link.token_file.clone(),
            lanes: link.lanes,
            tunnel,
        }
    }

    /// The log filter of `-v`.
    #[must_use]
    pub fn log_filter(&self) -> Option<&'static str> {
        super::log::filter(self.verbose)
    }
}

/// The completion script of `adit` for a shell.
#[must_use]
pub fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Adit::command(), "adit", &mut script);
    script
}
