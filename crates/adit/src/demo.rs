//! `adit demo`: server, client and a service in one process, over real loopback sockets.
//!
//! It leaves nothing behind: ports are free ones, the token is new, and the state directory is a temporary one. Other
//! servers and clients of this machine are not affected. With `--once` it sends real requests through the tunnel, prints
//! the result of each, and ends.

mod body;
mod checks;
mod pattern;
mod scratch;
mod service;
mod table;
mod tunnels;
mod visitor;

use std::{net::SocketAddr, time::Duration};

use adit_auth::TunnelName;
use adit_client::{
    Client, EntryKind, EntrySettings, TrustedProxies, TunnelKind, TunnelOutcome, TunnelSettings,
};
use adit_server::{Server, StaticToken, UpstreamServer, UpstreamSettings};
use serde_json::json;
use tokio::time::timeout;

use self::{
    scratch::Scratch,
    service::Service,
    tunnels::{TUNNEL, TUNNEL_H2C, TUNNEL_TCP, TUNNEL_UDP},
};
use crate::{cli, outln, output, report::Failed, runtime::background, signals::Signals};

/// The time limit of a registration. All parts are on this machine, so a longer one hangs.
const REGISTERED_WITHIN: Duration = Duration::from_secs(10);

/// The time for requests that run at the end of the demonstration.
const DRAIN: Duration = Duration::from_secs(5);

/// The upstream of the client's entry, for the checks.
const UPSTREAM: &str = "demo-upstream";

/// The user of the token.
const USER: &str = "demo";

/// Runs the demonstration: until a signal ends it, or with `--once` until every check has run.
///
/// # Errors
/// The demonstration cannot start, or with `--once` a check failed.
pub fn run(command: &cli::Adit, options: &cli::Demo) -> Result<(), Failed> {
    let _logging =
        adit_telemetry::init(command.log_format, log_filter(command)).map_err(Failed::config)?;
    background()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut demo = Demo::start(options.once)?;
        let ended = tokio::select! {
            ended = demo.show(command.json, options.once) => ended,
            () = signals.end() => Ok(Shown::Ended),
        };
        match ended {
            Ok(Shown::Ended) if !options.once => {
                tokio::select! {
                    () = demo.drain() => {}
                    () = signals.end() => {}
                }
                demo.stop().await;
                Ok(())
            }
            Ok(Shown::Ended) => {
                demo.stop().await;
                Err(Failed::other("interrupted before every check had run"))
            }
            Ok(Shown::Checked { failed: 0, .. }) => {
                demo.stop().await;
                output::check_written()
            }
            Ok(Shown::Checked { failed, of }) => {
                demo.stop().await;
                Err(Failed::other(format!(
                    "{failed} of {of} checks failed; -v shows the logs of server and client"
                )))
            }
            Err(failed) => {
                demo.stop().await;
                Err(failed)
            }
        }
    })
}

/// The filter for warnings and errors, unless another one is given: log lines about the registration of the
/// demonstration's client are not useful.
fn log_filter(command: &cli::Adit) -> Option<&'static str> {
    let is_given =
        std::env::var_os(adit_telemetry::FILTER_VARIABLE).is_some_and(|value| !value.is_empty());
    command.log_filter().or((!is_given).then_some("warn"))
}

/// How the demonstration ended.
enum Shown {
    /// The demonstration was ended by a signal.
    Ended,
    /// The demonstration ended after every check had run.
    Checked { failed: usize, of: usize },
}

/// The parts of the demonstration, in the order in which they end.
struct Demo {
    client: Client,
    server: Server,
    service: Service,
    _scratch: Scratch,
}

impl Demo {
    fn start(once: bool) -> Result<Self, Failed> {
        let scratch = Scratch::new().map_err(Failed::other)?;
        let service = Service::start()
            .map_err(|error| Failed::other(format!("cannot start the demo service: {error}")))?;
        let token = adit_auth::generate_token(rand::random());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(&adit_server::Settings {
            max_clients: 1,
            tokens: vec![StaticToken {
                user: USER.parse().map_err(Failed::other)?,
                token: token.clone(),
                scopes: adit_auth::Scopes::default(),
            }],
            timeouts: adit_server::Timeouts {
                // No client can be reconnecting to this new server.
                startup_grace: Duration::ZERO,
                drain: DRAIN,
                ..adit_server::Timeouts::default()
            },
            upstreams: vec![upstream(&service)?],
            // There is one user: the owners of names need not be kept.
            ..adit_server::Settings::new(loopback, loopback)
        })
        .map_err(Failed::other)?;
        let mut tunnels = vec![tunnel(TUNNEL, TunnelKind::Http, service.addr())];
        if once {
            tunnels.extend([
                tunnel(TUNNEL_H2C, TunnelKind::Grpc, service.addr()),
                tunnel(TUNNEL_TCP, TunnelKind::Tcp, service.tcp()),
                tunnel(TUNNEL_UDP, TunnelKind::Udp, service.udp()),
            ]);
        }
        let client = Client::start(adit_client::Settings {
            client_id: "demo".into(),
            client_id_chosen: false,
            group_id: "demo".into(),
            server_host: server.tunnel_addr().ip().to_string(),
            server_port: server.tunnel_addr().port(),
            proxy: None,
            tls: None,
            token: Some(token),
            joined: None,
            reconnect: Default::default(),
            lanes: 1,
            state_dir: scratch.path().to_owned(),
            admin_addr: None,
            tunnels,
            entries: if once { vec![entry()?] } else { Vec::new() },
            limits: adit_client::Limits::default(),
            timeouts: adit_client::Timeouts {
                drain: DRAIN,
                ..adit_client::Timeouts::default()
            },
        })
        .map_err(Failed::other)?;
        Ok(Self {
            client,
            server,
            service,
            _scratch: scratch,
        })
    }

    /// Waits for the registration, then prints the public URL, or runs every check.
    async fn show(&mut self, json: bool, once: bool) -> Result<Shown, Failed> {
        let tunnels = timeout(REGISTERED_WITHIN, self.registered())
            .await
            .unwrap_or_else(|_| {
                Err(Failed::other(
                    "the client did not reach the server on this machine; -v shows the log",
                ))
            })?;
        let public_url = tunnels
            .iter()
            .find(|tunnel| tunnel.name == TUNNEL)
            .map(|tunnel| tunnel.public_url.clone())
            .ok_or_else(|| Failed::other("the server sent no result for the tunnel"))?;
        let site = visitor::Site::new(self.server.http_addr());
        if !once {
            show_way(&public_url, self.server.http_addr(), json);
            let ended = self.client.ended().await;
            return Err(Failed::other(
                ended.error.unwrap_or_else(|| ended.reason.to_string()),
            ));
        }
        let status = self.client.handle().status();
        let entry = status.entries.first();
        let entry = entry.and_then(|entry| entry.listen.parse().ok());
        let entry = entry.ok_or_else(|| Failed::other("the client's entry does not listen"))?;
        let ports = checks::Ports {
            entry,
            tcp: public_addr(&tunnels, TUNNEL_TCP)?,
            udp: public_addr(&tunnels, TUNNEL_UDP)?,
        };
        let rows = checks::run_all(&site, ports, !json).await;
        if json {
            outln!("{}", table::as_json(&public_url, &rows));
        } else {
            outln!("{}", table::as_text(&rows));
        }
        Ok(Shown::Checked {
            failed: rows.iter().filter(|row| row.outcome.is_err()).count(),
            of: rows.len(),
        })
    }

    /// The tunnels, once the client is registered.
    async fn registered(&self) -> Result<Vec<TunnelOutcome>, Failed> {
        let mut registrations = self.client.registrations();
        let registration = tokio::select! {
            registration = registrations.wait_for(Option::is_some) => registration.ok().and_then(|found| found.clone()),
            ended = self.client.ended() => {
                return Err(Failed::other(ended.error.unwrap_or_else(|| ended.reason.to_string())));
            }
        };
        let tunnels = registration.map(|registration| registration.tunnels);
        let tunnels = tunnels.unwrap_or_default();
        for tunnel in &tunnels {
            if let Some(error) = &tunnel.error {
                return Err(Failed::other(format!(
                    "the server refused {}: {error}",
                    tunnel.name
                )));
            }
        }
        Ok(tunnels)
    }

    /// Lets running requests finish. The service ends the endless ones.
    async fn drain(&self) {
        self.service.end_events();
        self.server.drain().await;
    }

    async fn stop(self) {
        self.client.stop();
        self.server.stop().await;
        self.service.stop();
    }
}

fn tunnel(name: &str, kind: TunnelKind, service: SocketAddr) -> TunnelSettings {
    TunnelSettings::new(name, kind, service.ip().to_string(), service.port())
}

/// A service as an upstream of client entries.
fn upstream(service: &Service) -> Result<UpstreamSettings, Failed> {
    Ok(UpstreamSettings {
        name: TunnelName::parse(UPSTREAM).map_err(Failed::other)?,
        policy: Default::default(),
        hash_on: "host".into(),
        protocol: Default::default(),
        tls: None,
        host_rewrite: None,
        compression: None,
        servers: vec![UpstreamServer {
            host: service.addr().ip().to_string(),
            port: service.addr().port(),
            weight: 1,
        }],
    })
}

/// A listener beside the client, for the upstream.
fn entry() -> Result<EntrySettings, Failed> {
    Ok(EntrySettings {
        trusted_proxies: TrustedProxies::default(),
        layers: Vec::new(),
        name: UPSTREAM.into(),
        kind: EntryKind::Http,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        upstream: TunnelName::parse(UPSTREAM).map_err(Failed::other)?,
        compression: Default::default(),
    })
}

/// The address in `tcp://ADDRESS` or `udp://ADDRESS`.
fn public_addr(tunnels: &[TunnelOutcome], name: &str) -> Result<SocketAddr, Failed> {
    let tunnel = tunnels.iter().find(|tunnel| tunnel.name == name);
    let addr = tunnel
        .and_then(|tunnel| tunnel.public_url.split_once("://"))
        .and_then(|(_, addr)| addr.parse().ok());
    addr.ok_or_else(|| Failed::other(format!("the server named no port for {name}")))
}

/// Prints the public URL on a line of its own, then examples of its use.
fn show_way(public_url: &str, http_addr: SocketAddr, json: bool) {
    if json {
        let value = json!({ "public_url": public_url, "http_addr": http_addr.to_string() });
        outln!("{value}");
        return;
    }
    let url = public_url.trim_end_matches('/');
    outln!("{url}");
    outln!("try: curl {url}/");
    outln!("     curl -N {url}/events                       an event every second");
    outln!("     curl {url}/bytes/1000000 | wc -c           as many bytes as requested");
    outln!("     curl --data-binary @FILE {url}/upload      length and BLAKE3 checksum");
    outln!("     curl --raw -H 'TE: trailers' {url}/trailers");
    outln!("     curl --http2-prior-knowledge {url}/hello");
    outln!("if {TUNNEL}.localhost does not resolve to this machine:");
    outln!("     curl -H 'Host: {TUNNEL}.localhost' http://{http_addr}/");
    outln!("`adit demo --once` checks all of it; Ctrl-C ends this");
}
