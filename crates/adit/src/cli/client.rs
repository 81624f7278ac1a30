//! `adit`.

use std::path::PathBuf;

use adit_config::ClientOverrides;
use adit_telemetry::Format;
use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand, builder::FalseyValueParser,
    error::ErrorKind,
};
use clap_complete::Shell;

use super::{grpc::Grpc, http::Http, link::Link, route::Route, tcp::Tcp, udp::Udp};

const EXAMPLES: &str = "\
Examples:
  adit http 8080                                     expose http://127.0.0.1:8080
  adit http 8080 --server tunnel.example.com:7000 --token-file token --domain app.example.com
  adit grpc 50051                                    expose a gRPC service
  adit tcp 22 --remote-port 2222                     lead port 2222 of the server to port 22 here
  adit udp 53 --remote-port 5353                     the same for datagrams
  adit start --config client.yaml                    every tunnel of the file
  adit start --config client.yaml --check            only say whether the file is good
  adit status                                        what runs here, and how it stands
  adit demo                                          server, client and service in one process

Without --server and token, adit looks for an adit-server on this machine.
Every key of the file is a variable too: client.group_id is ADIT__CLIENT__GROUP_ID.
The token may stand in ADIT__TOKEN or in a file, never in a flag. ADIT__LOG is what is logged.";

const START_EXAMPLES: &str = "\
Examples:
  adit start --config client.yaml
  adit start --config client.yaml --client-id office-2     the same tunnels from another machine";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  adit completion bash > /etc/bash_completion.d/adit
  adit completion fish > ~/.config/fish/completions/adit.fish";

/// Under which the flags stand that every command has.
const COMMON: &str = "Common options";

/// The private side of adit: leads visitors of a public server to services on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "adit", version, long_version = crate::version::long(), after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Adit {
    /// What to do; with `--check` and nothing else, to start every tunnel of the file.
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
    /// Where the token and the addresses are kept [default: ~/.local/state/adit] [env: ADIT__STATE_DIR]
    #[arg(long, global = true, help_heading = COMMON, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Answer in JSON, for scripts
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
    /// Only check the configuration, and exit with 2 if it is bad
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
    /// How the log looks
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

/// What `adit` does.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Expose one HTTP service
    Http(Http),
    /// Expose one gRPC service, with or without TLS
    Grpc(Grpc),
    /// Lead a port of the server to one TCP service
    Tcp(Tcp),
    /// Lead a port of the server to one UDP service
    Udp(Udp),
    /// Expose every tunnel of the file
    Start(Start),
    /// Show what runs on this machine and how it stands
    Status,
    /// Run server, client and service in one process, over real loopback sockets
    Demo(Demo),
    /// Ask a server how it routes
    #[command(subcommand)]
    Route(Route),
    /// Print the completion of a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// Which shell
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
    /// Check everything that this version carries, and exit with 1 if something fails
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
    /// Reads the command line, or ends the program with what is wrong with it.
    #[must_use]
    pub fn read() -> Self {
        let adit = Self::parse();
        if adit.command.is_none() && !adit.check {
            let text =
                "what is to be done? name a command, such as `adit http 8080` or `adit status`";
            Self::command()
                .error(ErrorKind::MissingSubcommand, text)
                .exit();
        }
        adit
    }

    /// What the flags say to the configuration.
    #[must_use]
    pub fn overrides(&self) -> ClientOverrides {
        let none = Link::default();
        let (link, tunnel) = match self.command.as_ref() {
            Some(Command::Http(http)) => (&http.link, Some(http.tunnel())),
            Some(Command::Grpc(grpc)) => (&grpc.link, Some(grpc.tunnel())),
            Some(Command::Tcp(tcp)) => (&tcp.link, Some(tcp.tunnel())),
            Some(Command::Udp(udp)) => (&udp.link, Some(udp.tunnel())),
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

    /// What `-v` asks to be logged.
    #[must_use]
    pub fn log_filter(&self) -> Option<&'static str> {
        super::log::filter(self.verbose)
    }
}

/// The completion of `adit` for a shell.
#[must_use]
pub fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Adit::command(), "adit", &mut script);
    script
}
