//! A server, services behind its upstreams, and a client that opens arbitrary requests on its lane.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
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
    Server, Settings, StaticToken, Timeouts, UpstreamProtocol, UpstreamServer, UpstreamSettings,
};
use adit_testlink::{TunnelRequest, http1, lane_of, read, tcp};
use adit_tls::Connector;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, task::JoinSet};

pub(crate) use adit_testlink::until;

pub(crate) const TOKEN: &str = "a-token-of-some-length-0123456789";

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn settings(upstreams: Vec<UpstreamSettings>) -> Settings {
    Settings {
        threads: 2,
        tokens: vec![StaticToken {
            user: "ann".parse().unwrap(),
            token: TOKEN.into(),
            scopes: adit_auth::Scopes::default(),
        }],
        timeouts: Timeouts {
            startup_grace: Duration::ZERO,
            ..Timeouts::default()
        },
        upstreams,
        ..Settings::new(any(), any())
    }
}

pub(crate) fn server(upstreams: Vec<UpstreamSettings>) -> Server {
    Server::start(&settings(upstreams)).unwrap()
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
    seen: Arc<Mutex<Seen>>,
    release: watch::Sender<bool>,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// Connections so far, and those that are open.
    pub(crate) connections: usize,
    pub(crate) open: usize,
    /// The requests that have come.
    pub(crate) heads: Vec<String>,
}

impl Site {
    pub(crate) async fn start(name: &'static str) -> Self {
        let (seen, release) = (Arc::<Mutex<Seen>>::default(), watch::Sender::new(false));
        let (noted, released) = (seen.clone(), release.subscribe());
        let serve = move |stream, _| serve(stream, name, noted.clone(), released.clone());
        Self {
            addr: (Ipv4Addr::LOCALHOST, tcp::serve(serve).await).into(),
            seen,
            release,
        }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn last_head(&self) -> String {
        self.seen().heads.last().unwrap().clone()
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.seen().heads.len()
    }

    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }
}

async fn serve(
    mut stream: TcpStream,
    name: &str,
    seen: Arc<Mutex<Seen>>,
    mut released: watch::Receiver<bool>,
) {
    let note = |note: fn(&mut Seen)| note(&mut seen.lock().unwrap());
    note(|seen| seen.connections += 1);
    note(|seen| seen.open += 1);
    while let Some(head) = http1::read_head(&mut stream).await {
        let is_held = head.starts_with("GET /held ");
        seen.lock().unwrap().heads.push(head);
        if is_held {
            tokio::select! {
                _ = released.wait_for(|released| *released) => {}
                _ = stream.read_u8() => break,
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", name.len());
        http1::send(&mut stream, head + name).await;
    }
    note(|seen| seen.open -= 1);
}

/// `GET /who` of an upstream.
pub(crate) fn who(upstream: &str) -> TunnelRequest<'_> {
    TunnelRequest::get("/who").tunnel(upstream)
}

/// The registration of a client with one lane.
pub(crate) fn registration(token: &str, client: &str) -> RegisterRequest {
    RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        client_id: client.to_owned(),
        instance_secret: vec![7; 32].into(),
        credential: Some(Credential {
            kind: Some(credential::Kind::Token(token.to_owned())),
        }),
        lanes: 1,
        ..RegisterRequest::default()
    }
}

/// How clients connect to a server.
pub(crate) fn transport(server: &Server, tls: &Connector) -> GrpcTransport {
    GrpcTransport {
        host: server.tunnel_addr().ip().to_string(),
        port: server.tunnel_addr().port(),
        proxy: None,
        tls: tls.clone(),
    }
}

/// A client that serves nothing and opens arbitrary requests. Its connection lives as long as its last clone.
#[derive(Clone)]
pub(crate) struct TestClient {
    lane: Arc<Lane>,
    pub(crate) channel: GrpcChannel,
    pub(crate) session: String,
    _driven: Arc<JoinSet<()>>,
}

impl TestClient {
    pub(crate) async fn connect(server: &Server, client: &str) -> Self {
        Self::connect_over(&Connector::off(), server, client).await
    }

    pub(crate) async fn connect_over(tls: &Connector, server: &Server, client: &str) -> Self {
        let (channel, driver) = transport(server, tls).connect().await.unwrap();
        let mut driven = JoinSet::new();
        driven.spawn(driver);
        let registered = channel.register(registration(TOKEN, client)).await;
        let session = registered.unwrap().session;
        let (lane, far) = (
            lane_of(Side::Client),
            LaneRequest {
                session: &session,
                lane: 0,
            },
        );
        let reader = channel.open_lane(&lane, far).await.unwrap();
        let near = lane.clone();
        driven.spawn(async move { drop(drive(&near, reader).await) });
        Self {
            lane,
            channel,
            session,
            _driven: Arc::new(driven),
        }
    }

    /// Sends `GET /who`; returns the body.
    pub(crate) async fn get(&self, upstream: &str) -> Result<String, Failure> {
        self.open(who(upstream).http(b"")).await
    }

    /// Sends a request and returns the body of the response.
    pub(crate) async fn open(&self, head: EncodedHead) -> Result<String, Failure> {
        let mut exchange = self.lane.open(head, true, None)?;
        Ok(read(&mut exchange.recv).await?.text().to_owned())
    }

    /// `GET /held`; cancelled when dropped.
    pub(crate) fn hold(&self, upstream: &str) -> Exchange {
        let held = TunnelRequest::get("/held").tunnel(upstream);
        self.lane.open(held.http(b""), true, None).unwrap()
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
