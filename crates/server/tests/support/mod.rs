//! A server, services behind its upstreams, and a client that says whatever it likes on its lane.

#![allow(dead_code)]

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
use adit_codec::{
    EncodedHead, GrpcRequestHead, HttpRequestHead, Open, Side, TcpOpenHead, UdpOpenHead,
    WebSocketRequestHead,
};
use adit_flow::Budget;
use adit_link::{
    Dispatch, Exchange, Failure, IncomingRequest, Lane, LaneConfig, Part, Reason,
    control::{Channel, LaneRequest, Transport},
    drive,
    grpc::{GrpcChannel, GrpcTransport},
};
use adit_proto::{Credential, PROTOCOL_VERSION, RegisterRequest, credential};
use adit_server::{
    Limits, NamedToken, PublicUrl, Server, Settings, Timeouts, TrustedProxies, UpstreamProtocol,
    UpstreamServer, UpstreamSettings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub(crate) const TOKEN: &str = "a-token-of-some-length-0123456789";

pub(crate) fn any() -> SocketAddr {
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

/// An upstream that cannot be yet: it has no servers.
pub(crate) fn bare(name: &str) -> UpstreamSettings {
    UpstreamSettings {
        name: TunnelName::parse(name).unwrap(),
        policy: Policy::RoundRobin,
        hash_on: "host".into(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        host_rewrite: None,
        compression: None,
        servers: Vec::new(),
    }
}

pub(crate) fn upstream(name: &str, sites: &[&Site]) -> UpstreamSettings {
    let server = |site: &&Site| UpstreamServer {
        host: site.addr.ip().to_string(),
        port: site.addr.port(),
        weight: 1,
    };
    UpstreamSettings {
        servers: sites.iter().map(server).collect(),
        ..bare(name)
    }
}

/// An address on which nobody listens.
pub(crate) fn nobody() -> UpstreamServer {
    let listener = std::net::TcpListener::bind(any()).unwrap();
    UpstreamServer {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port: listener.local_addr().unwrap().port(),
        weight: 1,
    }
}

pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to be");
}

/// A service that answers each request with its name; `/held` only when released.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    seen: Arc<Seen>,
    release: watch::Sender<bool>,
    accepting: JoinHandle<()>,
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
        let listener = TcpListener::bind(any()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let release = watch::Sender::new(false);
        let (counted, held) = (seen.clone(), release.subscribe());
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, held) = (counted.clone(), held.clone());
                connections.spawn(async move {
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    seen.open.fetch_add(1, Ordering::SeqCst);
                    serve(stream, name, &seen, held).await;
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            addr,
            seen,
            release,
            accepting,
        }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Requests that wait to be released.
    pub(crate) fn held(&self) -> usize {
        self.seen.held.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.heads.lock().unwrap().len()
    }

    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }

    /// The head of the last request, as it came.
    pub(crate) fn last_head(&self) -> String {
        self.seen.heads.lock().unwrap().last().unwrap().clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, name: &str, seen: &Seen, mut held: watch::Receiver<bool>) {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&piece[..length]),
            }
        };
        let head: Vec<_> = read.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let holds = head.starts_with("GET /held ");
        seen.heads.lock().unwrap().push(head);
        if holds {
            seen.held.fetch_add(1, Ordering::SeqCst);
            let released = async { held.wait_for(|released| *released).await.is_ok() };
            let released = tokio::select! {
                released = released => released,
                _ = stream.read(&mut piece) => false,
            };
            seen.held.fetch_sub(1, Ordering::SeqCst);
            if !released {
                return;
            }
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
            name.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What is asked.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) visitor: &'a str,
    pub(crate) authority: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) headers: &'a [(&'a [u8], &'a [u8])],
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            method: "GET",
            visitor: "192.0.2.1:4000",
            authority: b"visitor.example",
            path: b"/who",
            headers: &[],
        }
    }
}

/// Resets what the server opens: this client serves nothing.
struct Nothing;

impl Dispatch for Nothing {
    fn dispatch(&self, opened: IncomingRequest) {
        drop(opened);
    }
}

/// A client that opens what it likes.
#[derive(Clone)]
pub(crate) struct Rogue {
    lane: Arc<Lane>,
    channel: GrpcChannel,
    session: String,
    tasks: Arc<Tasks>,
}

struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Rogue {
    pub(crate) async fn connect(server: &Server, client: &str) -> Self {
        let transport = GrpcTransport {
            host: server.tunnel_addr().ip().to_string(),
            port: server.tunnel_addr().port(),
        };
        let (channel, driver) = transport.connect().await.unwrap();
        let connection = tokio::spawn(driver);
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
        let registered = channel.register(request).await.unwrap();
        let config = LaneConfig {
            mux: adit_mux::Config::new(Side::Client),
            max_entries: 10_000,
            heartbeat: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            turn_bytes: adit_link::turn::TURN_BYTES,
        };
        let lane = Lane::new(config, Budget::new(1 << 20), Arc::new(Nothing));
        let request = LaneRequest {
            session: &registered.session,
            lane: 0,
        };
        let source = channel.open_lane(&lane, request).await;
        let (source, driven) = (source.unwrap(), lane.clone());
        let driving = tokio::spawn(async move {
            drive(&driven, source).await;
        });
        Self {
            lane,
            channel,
            session: registered.session,
            tasks: Arc::new(Tasks(vec![connection, driving])),
        }
    }

    pub(crate) const fn channel(&self) -> &GrpcChannel {
        &self.channel
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// Breaks the connection off.
    pub(crate) fn cut(&self) {
        self.tasks.0.iter().for_each(JoinHandle::abort);
    }

    /// `GET /who`.
    pub(crate) async fn get(&self, upstream: &str) -> Result<String, Failure> {
        self.ask(upstream, &Asked::default()).await
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn ask(&self, upstream: &str, asked: &Asked<'_>) -> Result<String, Failure> {
        answer(self.open(upstream, asked)).await
    }

    /// `GET /held`; cancelled when dropped.
    pub(crate) fn hold(&self, upstream: &str) -> Exchange {
        let path = b"/held";
        self.open(
            upstream,
            &Asked {
                path,
                ..Asked::default()
            },
        )
    }

    fn open(&self, upstream: &str, asked: &Asked<'_>) -> Exchange {
        let head = HttpRequestHead {
            open: &open(upstream, asked.visitor),
            method: asked.method,
            scheme: "http",
            authority: asked.authority,
            path: asked.path,
        };
        let head = head.encode(asked.headers.iter().copied(), b"").unwrap();
        self.lane.open(head, true, None).unwrap()
    }

    pub(crate) async fn open_tcp(&self, upstream: &str) -> Result<String, Failure> {
        let head = TcpOpenHead {
            open: &open(upstream, "192.0.2.1:4000"),
            local: "127.0.0.1:22",
        };
        self.open_head(head.encode(b"").unwrap()).await
    }

    pub(crate) async fn open_udp(&self, upstream: &str) -> Result<String, Failure> {
        let head = UdpOpenHead {
            open: &open(upstream, "192.0.2.1:4000"),
            local: "127.0.0.1:53",
        };
        self.open_head(head.encode().unwrap()).await
    }

    pub(crate) async fn open_grpc(&self, upstream: &str) -> Result<String, Failure> {
        let head = GrpcRequestHead {
            open: &open(upstream, "192.0.2.1:4000"),
            authority: b"visitor.example",
            path: b"/shop.Cart/Add",
            timeout: None,
        };
        self.open_head(head.encode(std::iter::empty(), b"").unwrap())
            .await
    }

    pub(crate) async fn open_websocket(&self, upstream: &str) -> Result<String, Failure> {
        let head = WebSocketRequestHead {
            open: &open(upstream, "192.0.2.1:4000"),
            authority: b"visitor.example",
            path: b"/chat",
        };
        self.open_head(head.encode(std::iter::empty()).unwrap())
            .await
    }

    async fn open_head(&self, head: EncodedHead) -> Result<String, Failure> {
        answer(self.lane.open(head, true, None)?).await
    }
}

fn open<'a>(upstream: &'a str, visitor: &'a str) -> Open<&'a str> {
    Open {
        request_uuid: [7; 16],
        tunnel: upstream,
        visitor,
        ..Open::default()
    }
}

/// The whole body of an answer.
async fn answer(exchange: Exchange) -> Result<String, Failure> {
    let Exchange { send, mut recv } = exchange;
    let mut body = Vec::new();
    while let Some(part) = recv.part().await {
        match part? {
            Part::Response(_) | Part::Trailers(_) => {}
            Part::Data(payload) => body.extend_from_slice(payload.bytes()),
            other => {
                let text = format!("no part of an answer: {other:?}");
                return Err(Failure::new(Reason::Internal, text));
            }
        }
    }
    drop(send);
    Ok(String::from_utf8(body).unwrap())
}
