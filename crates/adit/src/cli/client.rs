//! `adit`.

use std::path::PathBuf;

use adit_client::TunnelKind;
use adit_config::{ClientOverrides, TunnelOverrides};
use adit_telemetry::Format;
use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand,
    builder::{FalseyValueParser, PossibleValuesParser},
    error::ErrorKind,
};
use clap_complete::Shell;

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

const HTTP_EXAMPLES: &str = "\
Examples:
  adit http 8080                                     http://127.0.0.1:8080, as http://http-8080.localhost:7080
  adit http 8080 --name web                          as http://web.localhost:7080
  adit http 192.168.1.10:80 --domain app.example.com --domain www.example.com
  adit http 50051 --local-protocol h2c               a service that speaks HTTP/2 without TLS
  adit http 8080 --remote-port 8081                  on a port of its own, whatever host is asked for
  adit http 8080 --group shop --client-id shop-2     a second client that shares the load of a group";

const GRPC_EXAMPLES: &str = "\
Examples:
  adit grpc 50051                                    h2c://127.0.0.1:50051, as http://grpc-50051.localhost:7080
  adit grpc 50051 --domain api.example.com           grpcurl -plaintext api.example.com:80 list
  adit grpc https://127.0.0.1:50051 --tls-ca ca.pem  a service over TLS, with a CA of its own
  adit grpc 50051 --remote-port 50051                on a port of its own, whatever host is asked for";

const TCP_EXAMPLES: &str = "\
Examples:
  adit tcp 22                                        the server picks a port, and says which
  adit tcp 22 --remote-port 2222                     ssh -p 2222 tunnel.example.com
  adit tcp db.internal:5432 --remote-port 5432       a service on another machine
  adit tcp 8443 --proxy-protocol v2                  the service is told who the visitor is";

const UDP_EXAMPLES: &str = "\
Examples:
  adit udp 53 --remote-port 5353                     dig @tunnel.example.com -p 5353 example.com
  adit udp 53 --remote-port 5353 --session-timeout 30s
  adit udp 27015                                     the server picks a port, and says which";

const POLICIES: [&str; 6] = [
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "consistent_hash",
    "ip_hash",
    "power_of_two",
];

const START_EXAMPLES: &str = "\
Examples:
  adit start --config client.yaml
  adit start --config client.yaml --client-id office-2     the same tunnels from another machine";

const ROUTE_EXAMPLES: &str = "\
Examples:
  adit route test http://app.example.com/api/users
  adit route test http://app.example.com/ --admin 127.0.0.1:7500 --json";

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

/// `adit http`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = HTTP_EXAMPLES)]
pub struct Http {
    /// The service: a port of this machine, or a host and its port
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Name of the tunnel [default: http-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__HTTP__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Host that leads here, or *.HOST; may be repeated [default: NAME.localhost]
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__HTTP__DOMAIN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub domain: Vec<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__HTTP__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How visitors are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__HTTP__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
    /// Host that the service is asked for, instead of the visitor's
    #[arg(
        long,
        value_name = "HOST",
        env = "ADIT__HTTP__HOST_REWRITE",
        hide_env_values = true
    )]
    pub host_rewrite: Option<String>,
    /// What the service speaks [default: http1]
    #[arg(
        long,
        value_name = "PROTOCOL",
        env = "ADIT__HTTP__LOCAL_PROTOCOL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["http1", "h2c", "h2"])
    )]
    pub local_protocol: Option<String>,
    /// Port of the server that leads here alone, whatever host is asked for
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__HTTP__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
}

/// `adit grpc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = GRPC_EXAMPLES)]
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

/// `adit tcp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = TCP_EXAMPLES)]
pub struct Tcp {
    /// The service: a port of this machine, or a host and its port
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Port of the server that leads here [default: the server picks one]
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__TCP__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
    /// Name of the tunnel [default: tcp-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__TCP__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__TCP__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How connections are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__TCP__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
    /// Tell the service who the visitor is, before anything else [default: do not]
    #[arg(
        long,
        value_name = "VERSION",
        env = "ADIT__TCP__PROXY_PROTOCOL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["v1", "v2"])
    )]
    pub proxy_protocol: Option<String>,
}

/// `adit udp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = UDP_EXAMPLES)]
pub struct Udp {
    /// The service: a port of this machine, or a host and its port
    #[arg(value_name = "PORT|HOST:PORT")]
    pub service: String,
    /// How the server is reached.
    #[command(flatten)]
    pub link: Link,
    /// Port of the server that leads here [default: the server picks one]
    #[arg(
        long,
        value_name = "PORT",
        env = "ADIT__UDP__REMOTE_PORT",
        hide_env_values = true
    )]
    pub remote_port: Option<u16>,
    /// How long a visitor and the service may both be silent [default: 60s]
    #[arg(
        long,
        value_name = "TIME",
        env = "ADIT__UDP__SESSION_TIMEOUT",
        hide_env_values = true
    )]
    pub session_timeout: Option<String>,
    /// Name of the tunnel [default: udp-PORT]
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT__UDP__NAME",
        hide_env_values = true
    )]
    pub name: Option<String>,
    /// Share of this client in the load of its group [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "ADIT__UDP__WEIGHT",
        hide_env_values = true
    )]
    pub weight: Option<u32>,
    /// How visitors are shared among the clients of the group [default: round_robin]
    #[arg(
        long,
        value_name = "POLICY",
        env = "ADIT__UDP__LOAD_BALANCE",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(POLICIES)
    )]
    pub load_balance: Option<String>,
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

impl Http {
    fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Http,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            domains: self.domain.clone(),
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            host_rewrite: self.host_rewrite.clone(),
            local_protocol: self.local_protocol.clone(),
            ..TunnelOverrides::default()
        }
    }
}

impl Grpc {
    fn tunnel(&self) -> TunnelOverrides {
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

impl Tcp {
    fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Tcp,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            ..TunnelOverrides::default()
        }
    }
}

impl Udp {
    fn tunnel(&self) -> TunnelOverrides {
        TunnelOverrides {
            kind: TunnelKind::Udp,
            service: self.service.clone(),
            name: self.name.clone(),
            remote_port: self.remote_port,
            weight: self.weight,
            load_balance: self.load_balance.clone(),
            session_timeout: self.session_timeout.clone(),
            ..TunnelOverrides::default()
        }
    }
}

/// The completion of `adit` for a shell.
#[must_use]
pub fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Adit::command(), "adit", &mut script);
    script
}
