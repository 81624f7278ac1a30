//! A server, services behind its upstreams, and a client that opens arbitrary requests on its lane.

#![allow(dead_code, reason = "each file uses its part")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_auth::TunnelName;
use adit_balance::Policy;
use adit_codec::{EncodedHead, Side};
use adit_link::{
    Exchange, Failure, Lane,
    control::{Channel as _, LaneRequest, Transport as _},
    drive,
    grpc::{GrpcChannel, GrpcTransport},
};
use adit_proto::{Credential, PROTOCOL_VERSION, RegisterRequest, credential};
use adit_server::{
    Limits, NamedToken, PublicUrl, Server, Settings, Timeouts, TrustedProxies, UpstreamProtocol,
    UpstreamServer, UpstreamSettings,
};
use adit_testlink::{TunnelRequest, http1, lane_of, read, tcp};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, task::JoinSet};

pub(crate) use adit_testlink::until;

pub(crate) const TOKEN: &str = "a-token-of-some-length-0123456789";

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn settings(upstreams: Vec<UpstreamSettings>) -> Settings {
    Settings {
        tunnel_addr: any(),
        http_addr: any(),
        admin_addr: None,
        max_clients: 10,
        threads: 2,
        domain: None,
        tokens: vec![NamedToken {
            user: "ann".into(),
            token: TOKEN.into(),
        }],
        shared_groups: Vec::new(),
        state_dir: PathBuf::new(),
        trusted_proxies: TrustedProxies::default(),
        layers: Vec::new(),
        public_url: PublicUrl::default(),
        limits: Limits::default(),
        timeouts: Timeouts {
            startup_grace: Duration::ZERO,
            ..Timeouts::default()
        },
        rules: Vec::new(),
        upstreams,
    }
}

pub(crate) fn start(settings: &Settings) -> Server {
    Server::start(settings).unwrap()
}

pub(crate) fn server(upstreams: Vec<UpstreamSettings>) -> Server {
    start(&settings(upstreams))
}

pub(crate) fn upstream(name: &str, sites: &[&Site]) -> UpstreamSettings {
    UpstreamSettings {
        name: TunnelName::parse(name).unwrap(),
        policy: Policy::RoundRobin,
        hash_on: "host".into(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        host_rewrite: None,
        compression: None,
        servers: sites
            .iter()
            .map(|site| server_at(site.addr.port()))
            .collect(),
    }
}

pub(crate) fn server_at(port: u16) -> UpstreamServer {
    UpstreamServer {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port,
        weight: 1,
    }
}

/// A service that responds to each request with its name; to `/held` only after the test has released it.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    seen: Arc<Seen>,
    release: watch::Sender<bool>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    held: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

impl Site {
    pub(crate) async fn start(name: &'static str) -> Self {
        let seen = Arc::new(Seen::default());
        let release = watch::Sender::new(false);
        let (counted, held) = (seen.clone(), release.subscribe());
        let port = tcp::serve(move |stream, _| {
            let (seen, held) = (counted.clone(), held.clone());
            async move {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                serve(stream, name, &seen, held).await;
                seen.open.fetch_sub(1, Ordering::SeqCst);
            }
        });
        Self {
            addr: (Ipv4Addr::LOCALHOST, port.await).into(),
            seen,
            release,
        }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Requests that wait until the test releases them.
    pub(crate) fn held(&self) -> usize {
        self.seen.held.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.heads.lock().unwrap().len()
    }

    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }

    pub(crate) fn last_head(&self) -> String {
        self.seen.heads.lock().unwrap().last().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, name: &str, seen: &Seen, mut held: watch::Receiver<bool>) {
    while let Some(head) = http1::read_head(&mut stream).await {
        let holds = head.starts_with("GET /held ");
        seen.heads.lock().unwrap().push(head);
        if holds {
            seen.held.fetch_add(1, Ordering::SeqCst);
            let released = tokio::select! {
                released = held.wait_for(|released| *released) => released.is_ok(),
                _ = stream.read_u8() => false,
            };
            seen.held.fetch_sub(1, Ordering::SeqCst);
            if !released {
                return;
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", name.len());
        http1::send(&mut stream, head + name).await;
    }
}

/// `GET /who` of an upstream.
pub(crate) fn who(upstream: &str) -> TunnelRequest<'_> {
    TunnelRequest::get("/who").tunnel(upstream)
}

/// A client that serves nothing and opens arbitrary requests.
#[derive(Clone)]
pub(crate) struct TestClient {
    lane: Arc<Lane>,
    channel: GrpcChannel,
    session: String,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl TestClient {
    pub(crate) async fn connect(server: &Server, client: &str) -> Self {
        let transport = GrpcTransport {
            host: server.tunnel_addr().ip().to_string(),
            port: server.tunnel_addr().port(),
        };
        let (channel, driver) = transport.connect().await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        let request = RegisterRequest {
            protocol_version: PROTOCOL_VERSION,
            client_id: client.to_owned(),
            instance_secret: vec![7; 32].into(),
            credential: Some(Credential {
                kind: Some(credential::Kind::Token(TOKEN.to_owned())),
            }),
            lanes: 1,
            ..RegisterRequest::default()
        };
        let session = channel.register(request).await.unwrap().session;
        let lane = lane_of(Side::Client);
        let request = LaneRequest {
            session: &session,
            lane: 0,
        };
        let reader = channel.open_lane(&lane, request).await.unwrap();
        let driven = lane.clone();
        tasks.spawn(async move { drop(drive(&driven, reader).await) });
        Self {
            lane,
            channel,
            session,
            tasks: Arc::new(Mutex::new(tasks)),
        }
    }

    pub(crate) const fn channel(&self) -> &GrpcChannel {
        &self.channel
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// Closes the connection.
    pub(crate) fn cut(&self) {
        self.tasks.lock().unwrap().abort_all();
    }

    /// Sends `GET /who`; returns the body.
    pub(crate) async fn get(&self, upstream: &str) -> Result<String, Failure> {
        self.request(&who(upstream)).await
    }

    /// Sends a request and returns the body of the response.
    pub(crate) async fn request(&self, request: &TunnelRequest<'_>) -> Result<String, Failure> {
        self.open(request.http(b"")).await
    }

    /// `GET /held`; cancelled when dropped.
    pub(crate) fn hold(&self, upstream: &str) -> Exchange {
        let held = TunnelRequest::get("/held").tunnel(upstream);
        self.lane.open(held.http(b""), true, None).unwrap()
    }

    pub(crate) async fn open(&self, head: EncodedHead) -> Result<String, Failure> {
        let mut exchange = self.lane.open(head, true, None)?;
        Ok(read(&mut exchange.recv).await?.text().to_owned())
    }

    /// Opens one request of each protocol, which must fail.
    pub(crate) async fn failures(&self, upstream: &str) -> [Failure; 5] {
        let request = who(upstream);
        [
            self.open(request.http(b"")).await.unwrap_err(),
            self.open(request.tcp(b"")).await.unwrap_err(),
            self.open(request.udp()).await.unwrap_err(),
            self.open(request.grpc(None, b"")).await.unwrap_err(),
            self.open(request.websocket()).await.unwrap_err(),
        ]
    }
}
