//! Both ends of a lane in one process: an entry with a real socket before it, a scripted service behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use adit_auth::{ClientClaim, Grant};
use adit_codec::RequestHead;
use adit_codec::{HttpRequest, HttpResponseHead, Side};
use adit_flow::Budget;
use adit_ingress::{
    Admission, Destination, Direction, Director, Http, HttpConfig, Layer, Session, Visit, layers,
};
use adit_link::{
    Dispatch, Exchange, Failure, IncomingRequest, Lane, LaneConfig, Part, Reason, TransportError,
    TransportReader, TransportWriter, drive,
};
use adit_trace::{NoObserver, Observer};
use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub type Service = Arc<dyn Fn(HttpRequest, Exchange) -> Boxed<()> + Send + Sync>;

/// What one lane has to send is what the other one reads.
struct Pipe(TransportWriter);

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.0.poll_batch(cx).map(|batch| {
            batch.map(|mut batch| {
                let length = batch.remaining();
                Ok(batch.copy_to_bytes(length))
            })
        })
    }
}

struct Serve(Service);

impl Dispatch for Serve {
    fn dispatch(&self, opened: IncomingRequest) {
        let RequestHead::Http(head) = opened.head else {
            panic!("not an HTTP request");
        };
        tokio::spawn((self.0)(*head, opened.exchange));
    }
}

struct Nothing;

impl Dispatch for Nothing {
    fn dispatch(&self, _: IncomingRequest) {
        panic!("nothing is opened from over there");
    }
}

/// A link: the server's end of a lane, whose other end is `service`.
#[derive(Clone)]
pub struct Link {
    pub lane: Arc<Lane>,
    pub far: Arc<Lane>,
}

pub fn lane_config(side: Side) -> LaneConfig {
    LaneConfig {
        mux: adit_mux::Config::new(side),
        max_entries: 1000,
        heartbeat: Duration::from_secs(5),
        dead_after: Duration::from_secs(20),
        stall: Duration::from_secs(20),
        turn_bytes: adit_link::turn::TURN_BYTES,
    }
}

impl Link {
    pub fn new(service: Service) -> Self {
        Self::to(Arc::new(Serve(service)))
    }

    /// To whatever takes the requests.
    pub fn to(dispatch: Arc<dyn Dispatch>) -> Self {
        let link = Self::between(Side::Server, Side::Client, dispatch);
        link.lane.allow_upgrades();
        link
    }

    /// With the entry on the one side, and what takes the requests on the other.
    pub fn between(entry: Side, other: Side, dispatch: Arc<dyn Dispatch>) -> Self {
        let budget = || Budget::new(16 << 20);
        let lane = Lane::new(lane_config(entry), budget(), Arc::new(Nothing));
        let far = Lane::new(lane_config(other), budget(), dispatch);
        let (there, back) = (Pipe(lane.outbound()), Pipe(far.outbound()));
        let (near, other) = (lane.clone(), far.clone());
        tokio::spawn(async move { drive(&near, back).await });
        tokio::spawn(async move { drive(&other, there).await });
        Self { lane, far }
    }
}

pub fn grant() -> Grant {
    let claim = ClientClaim {
        client_id: "office".parse().unwrap(),
        group_id: "office".parse().unwrap(),
    };
    Grant::for_link("alice".parse().unwrap(), claim).for_tunnel("web".parse().unwrap(), 7)
}

pub fn destination(link: &Link, number: u64) -> Destination {
    Destination {
        lane: link.lane.clone(),
        grant: grant(),
        tunnel: "web".into(),
        revision: 7,
        link: number,
        compression: None,
        permit: None,
        hold: Box::new(()),
    }
}

type Direct = dyn Fn(&Visit, &[u64]) -> Direction + Send + Sync;

pub struct TestDirector {
    pub direct: Box<Direct>,
    pub retries_left: AtomicUsize,
    pub asked: Mutex<Vec<Vec<u64>>>,
    pub needs_host: AtomicBool,
}

impl Director for TestDirector {
    fn direct(&self, visit: &Visit, avoid: &[u64]) -> Direction {
        self.asked.lock().unwrap().push(avoid.to_vec());
        (self.direct)(visit, avoid)
    }

    fn direct_session(&self, _: &Session, _: &[u64]) -> Direction {
        Direction::Fail(Failure::new(Reason::NoTunnel, "no tunnel holds this port"))
    }

    fn needs_host(&self, _: u16) -> bool {
        self.needs_host.load(Ordering::Relaxed)
    }

    fn may_retry(&self) -> bool {
        self.retries_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

pub fn director(
    direct: impl Fn(&Visit, &[u64]) -> Direction + Send + Sync + 'static,
) -> Arc<TestDirector> {
    Arc::new(TestDirector {
        direct: Box::new(direct),
        retries_left: AtomicUsize::new(100),
        asked: Mutex::default(),
        needs_host: AtomicBool::new(true),
    })
}

pub fn standard_layers() -> Vec<Box<dyn Layer>> {
    vec![
        Box::new(layers::HopByHop),
        Box::new(layers::Forwarded::default()),
    ]
}

/// An entry that listens.
pub struct World {
    pub http: Arc<Http>,
    pub addr: SocketAddr,
    pub links: Vec<Link>,
    pub director: Arc<TestDirector>,
    pub drain: watch::Sender<bool>,
    /// What was read of each request that reached the service, for tests that look.
    pub seen: Arc<Mutex<VecDeque<HttpRequest>>>,
}

pub fn service<F, R>(serve: F) -> Service
where
    F: Fn(HttpRequest, Exchange) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |head, exchange| Box::pin(serve(head, exchange)))
}

impl World {
    /// One client, default settings but shorter times.
    pub async fn new<F, R>(serve: F) -> Self
    where
        F: Fn(HttpRequest, Exchange) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::with(config(), serve).await
    }

    pub async fn with<F, R>(config: HttpConfig, serve: F) -> Self
    where
        F: Fn(HttpRequest, Exchange) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::layered(config, standard_layers(), serve).await
    }

    pub async fn layered<F, R>(config: HttpConfig, layers: Vec<Box<dyn Layer>>, serve: F) -> Self
    where
        F: Fn(HttpRequest, Exchange) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let seen: Arc<Mutex<VecDeque<HttpRequest>>> = Arc::default();
        let notes = seen.clone();
        let link = Link::new(service(move |head: HttpRequest, exchange| {
            notes.lock().unwrap().push_back(head.clone());
            serve(head, exchange)
        }));
        let there = link.clone();
        let director = director(move |_, _| Direction::Go(destination(&there, 1)));
        let mut world = Self::assemble(config, layers, director).await;
        world.links = vec![link];
        world.seen = seen;
        world
    }

    pub async fn assemble(
        config: HttpConfig,
        layers: Vec<Box<dyn Layer>>,
        director: Arc<TestDirector>,
    ) -> Self {
        Self::observed(config, layers, director, Arc::new(NoObserver)).await
    }

    pub async fn observed(
        config: HttpConfig,
        layers: Vec<Box<dyn Layer>>,
        director: Arc<TestDirector>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let admission = Admission::observed(layers, director.clone(), observer);
        let http = Http::new(config, admission);
        let listener = adit_ingress::listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let addr = listener.local_addr().unwrap();
        let (drain, drained) = watch::channel(false);
        let entry = http.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let mut drained = drained.clone();
                tokio::spawn(entry.clone().serve(stream, peer, async move {
                    let _ = drained.wait_for(|drained| *drained).await;
                }));
            }
        });
        Self {
            http,
            addr,
            links: Vec::new(),
            director,
            drain,
            seen: Arc::default(),
        }
    }

    pub async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends raw bytes and reads to the end of the connection. `Err` is a reset, with what came before it.
    pub async fn raw(&self, bytes: &[u8]) -> Result<String, String> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// Waits until nothing is open any more on either side.
    pub async fn settle(&self) {
        within(async {
            while self.http.stats().requests_open > 0
                || self
                    .links
                    .iter()
                    .any(|l| l.lane.open_requests() + l.far.open_requests() > 0)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

pub async fn read_to_end(stream: &mut TcpStream) -> Result<String, String> {
    let mut all = Vec::new();
    let result = within(async {
        let mut buffer = [0; 16 * 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) => return Err(error),
            }
        }
    })
    .await;
    let all = String::from_utf8_lossy(&all).into_owned();
    match result {
        Ok(()) => Ok(all),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            Err(all)
        }
    }
}

/// Reads until `end` has come.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    within(async {
        while !all.ends_with(end.as_bytes()) {
            let byte = stream.read_u8().await.unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&all));
            });
            all.push(byte);
        }
    })
    .await;
    String::from_utf8(all).unwrap()
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("it hangs")
}

pub fn config() -> HttpConfig {
    HttpConfig {
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        service_timeout: Duration::from_secs(10),
        ..HttpConfig::default()
    }
}

pub fn head(status: u16, headers: &[(&str, &str)], body: &[u8]) -> adit_codec::EncodedHead {
    let lines = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    HttpResponseHead { status }.encode(lines, body).unwrap()
}

/// Answers with all of it in one message.
pub fn answer(exchange: &Exchange, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    exchange
        .send
        .respond(head(status, headers, body), true)
        .unwrap();
}

/// Reads the request's body, with the trailers as `name=value;`.
pub async fn body_of(exchange: &mut Exchange) -> Result<(Vec<u8>, String), Failure> {
    let (mut body, mut trailers) = (Vec::new(), String::new());
    while let Some(part) = exchange.recv.part().await {
        match part? {
            Part::Data(payload) => body.extend_from_slice(payload.bytes()),
            Part::Trailers(block) => {
                for (name, value) in block.lines() {
                    trailers += &String::from_utf8_lossy(name);
                    trailers += "=";
                    trailers += &String::from_utf8_lossy(value);
                    trailers += ";";
                }
            }
            other => panic!("no part of a request's body: {other:?}"),
        }
    }
    Ok((body, trailers))
}

/// Sends the request's body back.
pub async fn echo(_: HttpRequest, mut exchange: Exchange) {
    let Ok((body, trailers)) = body_of(&mut exchange).await else {
        return;
    };
    let length = body.len().to_string();
    exchange
        .send
        .respond(
            head(
                200,
                &[("content-length", &length), ("x-trailers", &trailers)],
                b"",
            ),
            false,
        )
        .unwrap();
    exchange.send.send_all(body.into(), true).await.unwrap();
}

pub async fn hello(_: HttpRequest, exchange: Exchange) {
    answer(&exchange, 200, &[("content-type", "text/plain")], b"hello");
}

/// Pieces of `x`, each in a chunk of its own.
pub fn pieces(count: usize, bytes: usize) -> impl Iterator<Item = Bytes> {
    (0..count).map(move |_| Bytes::from(vec![b'x'; bytes]))
}
