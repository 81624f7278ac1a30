//! `run` and `list`: scenarios.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{CliError, beside, scratch, seconds, write};
use crate::commit;
use crate::kernel::Counters;
use crate::procfs::Machine;
use crate::report::{self, Report, Setup};
use crate::runner::{self, Tick};
use crate::scenario::{self, Change};
use crate::targets::{
    Commands, Entries, GRPC_HOST, HTTP_HOST, Target, WEBSOCKET_HOST, Wanted, Web,
};

const EXAMPLES: &str = "Examples:
  adit-loadtest run small-http                            # server, client and services in this process
  adit-loadtest run small-http --target binaries --out loadtest/out
  adit-loadtest run mixed-sizes --rate 2000 --duration 60 --target binaries
  adit-loadtest run soak --target compose
  adit-loadtest run rolling-restart --target compose \\
      --restart-client 'docker compose restart client-$((ADIT_EVENT_CLIENT + 1))'
  adit-loadtest run tcp-bulk --target address --tcp 203.0.113.7:7001
  adit-loadtest run my.yaml --target address --http 127.0.0.1:9000 --host app.example.com

The service behind a target that this program did not start must be `adit-loadtest serve`, which sends the bytes that a
request specifies.
The exit code is 1 when anything went wrong that the scenario does not allow.";

/// What to run, and against which target.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Name of a scenario (`adit-loadtest list`), or a file that ends in .yaml, .yml or .json.
    scenario: String,
    /// The target of the load.
    #[arg(long, value_enum, default_value_t = Kind::InProcess)]
    target: Kind,
    /// Entry for HTTP, WebSocket and gRPC [compose: 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// `Host` that leads to the HTTP service [compose: web.localhost].
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Entry for WebSocket, where it is another one.
    #[arg(long, value_name = "HOST:PORT")]
    websocket: Option<String>,
    /// `Host` that leads to the WebSocket service [compose: ws.localhost; address: that of HTTP].
    #[arg(long, value_name = "NAME")]
    websocket_host: Option<String>,
    /// Entry for gRPC, where it is another one.
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<String>,
    /// `:authority` that leads to the gRPC service [compose: grpc.localhost; address: that of HTTP].
    #[arg(long, value_name = "NAME")]
    grpc_host: Option<String>,
    /// Entry for TCP [compose: 127.0.0.1:7001].
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// Entry for UDP [compose: 127.0.0.1:7002].
    #[arg(long, value_name = "HOST:PORT")]
    udp: Option<String>,
    /// Command that restarts a client of a target that this program did not start; its environment contains
    /// ADIT_EVENT_CLIENT (from 0), ADIT_EVENT_HOW (kill, drain) and ADIT_EVENT_DOWN_S.
    #[arg(long, value_name = "COMMAND")]
    restart_client: Option<String>,
    /// Command that restarts the server of a target that this program did not start; its environment contains
    /// ADIT_EVENT_HOW and ADIT_EVENT_DOWN_S.
    #[arg(long, value_name = "COMMAND")]
    restart_server: Option<String>,
    /// Run without the scenario's restarts.
    #[arg(long)]
    without_events: bool,
    /// Exchanges per second of all loads together, instead of the scenario's rate.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Seconds to measure, instead of the scenario's duration; its steps and events keep their relative places.
    #[arg(long, value_parser = some_seconds)]
    duration: Option<Duration>,
    /// Multiply rates and connections by this factor.
    #[arg(long, value_parser = positive)]
    scale: Option<f64>,
    /// Where to write SCENARIO.json and SCENARIO.html.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Print nothing while it runs.
    #[arg(long)]
    quiet: bool,
    /// Where adit-server and adit are (binaries); without it, beside this program.
    #[arg(long, value_name = "DIRECTORY")]
    adit_dir: Option<PathBuf>,
}

/// A target by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Server, client and services as threads of this process
    InProcess,
    /// adit-server and adit as programs on this machine
    Binaries,
    /// The docker-compose stack, by its published ports
    Compose,
    /// Any tunnel, by its public addresses
    Address,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        none if none.is_zero() => Err("a number of seconds above 0 is needed".to_owned()),
        some => Ok(some),
    }
}

/// Lists the scenarios that ship.
pub(super) fn list() -> Result<ExitCode, CliError> {
    for scenario in scenario::list()? {
        let seconds = scenario.duration().as_secs_f64();
        anstream::println!("{:<16} {seconds:>5} s  {}", scenario.name, scenario.about);
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a scenario and reports on it.
pub(super) async fn run(options: Options) -> Result<ExitCode, CliError> {
    let mut scenario = scenario::read(&options.scenario)?.changed(Change {
        rate: options.rate,
        duration: options.duration,
        scale: options.scale,
    });
    if options.without_events {
        scenario.events.clear();
    }
    let wanted = options.wanted().await?;
    let setup = Setup {
        date: jiff::Timestamp::now()
            .strftime("%Y-%m-%d %H:%M UTC")
            .to_string(),
        commit: commit_of(&wanted),
        machine: Machine::here(),
        target: describe(&wanted),
        command: command(),
    };
    let dir = scratch()?;
    let mut target = Target::start(&wanted, &scenario, dir.path()).await?;
    let length = scenario.duration().as_secs_f64();
    let on_tick = |second: u64, ticks: &[Tick<'_>]| {
        if !options.quiet {
            anstream::eprintln!("{}", progress(second, length, ticks));
        }
    };
    let before = Counters::now();
    let outcome = runner::run(&scenario, &mut target, on_tick).await?;
    let kernel = Counters::now().since(&before);
    target.stop().await;

    let report = Report::new(&scenario, setup, &outcome, kernel);
    if let Some(out) = &options.out {
        let path = |ending: &str| out.join(format!("{}.{ending}", scenario.name));
        write(
            &path("json"),
            &(serde_json::to_string_pretty(&report)? + "\n"),
        )?;
        write(&path("html"), &report::page(&report)?)?;
    }
    anstream::print!("{}", report::terminal(&report));
    if let Some(out) = &options.out {
        let name = &scenario.name;
        anstream::println!("report: {}", out.join(format!("{name}.html")).display());
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The commit of the measured programs. It is unknown for a target that this program did not start.
fn commit_of(wanted: &Wanted) -> String {
    match wanted {
        Wanted::InProcess => commit::own(),
        Wanted::Binaries { dir } => commit::of(&[&dir.join("adit-server"), &dir.join("adit")]),
        Wanted::Address { .. } => commit::UNKNOWN.to_owned(),
    }
}

/// The command line of this program, without the path to the program.
fn command() -> String {
    let quoted = std::env::args().skip(1).map(|argument| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    });
    let words: Vec<String> = std::iter::once("adit-loadtest".to_owned())
        .chain(quoted)
        .collect();
    words.join(" ")
}

/// Formats one line for one second.
fn progress(second: u64, length: f64, ticks: &[Tick<'_>]) -> String {
    let loads = ticks.iter().map(|tick| {
        let second = &tick.second;
        let rate = if tick.load.kind.is_bulk() {
            format!("{:.0} MB/s", second.bytes as f64 / 1e6)
        } else {
            let p99 = second.p99_us as f64 / 1e3;
            format!("{}/s p99 {p99:.1} ms", second.completed)
        };
        let mut text = format!("{} {rate}", tick.load.name);
        if tick.failed > 0 {
            text += &format!(" {} errors", tick.failed);
        }
        if tick.lost > 0 {
            text += &format!(" {} lost", tick.lost);
        }
        text
    });
    let loads: Vec<String> = loads.collect();
    format!("{second:>4} of {length:.0} s  {}", loads.join(" | "))
}

fn describe(wanted: &Wanted) -> String {
    match wanted {
        Wanted::InProcess => "in-process".to_owned(),
        Wanted::Binaries { .. } => "binaries".to_owned(),
        Wanted::Address { name, entries, .. } => {
            let web = |name: &str, web: &Option<Web>| {
                web.as_ref()
                    .map(|web| format!("{name} {} as {}", web.addr, web.host))
            };
            let plain =
                |name: &str, addr: Option<SocketAddr>| addr.map(|it| format!("{name} {it}"));
            let all = [
                web("http", &entries.http),
                web("websocket", &entries.websocket),
                web("grpc", &entries.grpc),
                plain("tcp", entries.tcp),
                plain("udp", entries.udp),
            ];
            let all: Vec<String> = all.into_iter().flatten().collect();
            format!("{name} ({})", all.join(", "))
        }
    }
}

impl Options {
    async fn wanted(&self) -> Result<Wanted, CliError> {
        let ours = matches!(self.target, Kind::InProcess | Kind::Binaries);
        let given = [
            ("--http", self.http.is_some()),
            ("--host", self.host.is_some()),
            ("--websocket", self.websocket.is_some()),
            ("--websocket-host", self.websocket_host.is_some()),
            ("--grpc", self.grpc.is_some()),
            ("--grpc-host", self.grpc_host.is_some()),
            ("--tcp", self.tcp.is_some()),
            ("--udp", self.udp.is_some()),
            ("--restart-client", self.restart_client.is_some()),
            ("--restart-server", self.restart_server.is_some()),
        ];
        if ours && let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(CliError::Flag {
                flag,
                problem: "is for --target compose and address".to_owned(),
            });
        }
        Ok(match self.target {
            Kind::InProcess => Wanted::InProcess,
            Kind::Binaries => Wanted::Binaries {
                dir: self.adit_dir.clone().or_else(beside).unwrap_or_default(),
            },
            Kind::Compose => Wanted::Address {
                name: "compose",
                entries: self
                    .entries(Defaults {
                        http: Some("127.0.0.1:8080"),
                        host: Some(HTTP_HOST),
                        websocket_host: Some(WEBSOCKET_HOST),
                        grpc_host: Some(GRPC_HOST),
                        tcp: Some("127.0.0.1:7001"),
                        udp: Some("127.0.0.1:7002"),
                    })
                    .await?,
                commands: self.commands(),
            },
            Kind::Address => Wanted::Address {
                name: "address",
                entries: self.entries(Defaults::default()).await?,
                commands: self.commands(),
            },
        })
    }

    fn commands(&self) -> Commands {
        Commands {
            client: self.restart_client.clone(),
            server: self.restart_server.clone(),
        }
    }

    async fn entries(&self, or: Defaults) -> Result<Entries, CliError> {
        let http = self.http.as_deref().or(or.http);
        let host = self.host.as_deref().or(or.host);
        let web = async |flag, own: &Option<String>, host: Option<&str>| {
            let Some(address) = own.as_deref().or(http) else {
                return Ok(None);
            };
            let addr = resolve(flag, address).await?;
            // Without a name, the address is the host.
            let host = host.unwrap_or(address).to_owned();
            Ok::<_, CliError>(Some(Web { addr, host }))
        };
        let plain = async |flag, own: &Option<String>, or: Option<&str>| match own.as_deref().or(or)
        {
            Some(address) => resolve(flag, address).await.map(Some),
            None => Ok(None),
        };
        let websocket_host = self.websocket_host.as_deref().or(or.websocket_host);
        let grpc_host = self.grpc_host.as_deref().or(or.grpc_host);
        Ok(Entries {
            http: web("--http", &None, host).await?,
            websocket: web("--websocket", &self.websocket, websocket_host.or(host)).await?,
            grpc: web("--grpc", &self.grpc, grpc_host.or(host)).await?,
            tcp: plain("--tcp", &self.tcp, or.tcp).await?,
            udp: plain("--udp", &self.udp, or.udp).await?,
        })
    }
}

/// The values that are used when a flag is not given.
#[derive(Debug, Default)]
struct Defaults {
    http: Option<&'static str>,
    host: Option<&'static str>,
    websocket_host: Option<&'static str>,
    grpc_host: Option<&'static str>,
    tcp: Option<&'static str>,
    udp: Option<&'static str>,
}

async fn resolve(flag: &'static str, address: &str) -> Result<SocketAddr, CliError> {
    let fail = |problem: String| CliError::Flag {
        flag,
        problem: format!("{address}: {problem}; HOST:PORT is needed, such as 127.0.0.1:8080"),
    };
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| fail(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| fail("the name has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        let all = ["adit-loadtest", "run", "small-http"]
            .iter()
            .chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Run(options) => *options,
            _ => panic!("run"),
        }
    }

    #[tokio::test]
    async fn the_compose_stack_has_defaults_that_flags_change() {
        let options = options(&["--target", "compose", "--tcp", "127.0.0.1:9"]);
        let Ok(Wanted::Address { entries, .. }) = options.wanted().await else {
            panic!("addresses");
        };
        let web = |host: &str| {
            Some(Web {
                addr: ([127, 0, 0, 1], 8080).into(),
                host: host.into(),
            })
        };
        let expected = Entries {
            http: web("web.localhost"),
            websocket: web("ws.localhost"),
            grpc: web("grpc.localhost"),
            tcp: Some(([127, 0, 0, 1], 9).into()),
            udp: Some(([127, 0, 0, 1], 7002).into()),
        };
        assert_eq!(entries, expected);
    }

    #[tokio::test]
    async fn any_tunnel_is_reached_by_what_was_given() {
        let arguments = [
            "--target",
            "address",
            "--http",
            "127.0.0.1:1",
            "--grpc",
            "127.0.0.1:2",
        ];
        let Ok(Wanted::Address { entries, .. }) = options(&arguments).wanted().await else {
            panic!("addresses");
        };
        let web = |port: u16| {
            Some(Web {
                addr: ([127, 0, 0, 1], port).into(),
                host: format!("127.0.0.1:{port}"),
            })
        };
        assert_eq!(
            (entries.http, entries.websocket, entries.grpc),
            (web(1), web(1), web(2))
        );
        assert_eq!((entries.tcp, entries.udp), (None, None));
    }

    #[tokio::test]
    async fn flags_that_cannot_be_followed_are_refused() {
        let error_of = async |arguments: &[&str]| match options(arguments).wanted().await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{arguments:?}"),
        };
        let text = error_of(&["--target", "binaries", "--udp", "127.0.0.1:1"]).await;
        assert_eq!(text, "--udp: is for --target compose and address");
        let text = error_of(&["--target", "address", "--tcp", "nowhere"]).await;
        assert!(
            text.starts_with("--tcp: nowhere: ") && text.contains("HOST:PORT"),
            "{text}"
        );
        assert!(positive("0").is_err() && positive("inf").is_err() && positive("2").is_ok());
        assert!(some_seconds("0").is_err());
    }
}
