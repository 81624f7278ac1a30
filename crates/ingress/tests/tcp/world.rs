//! Visitors on real sockets, both ends of a lane in memory, and real services behind an egress.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use adit_auth::{ClientClaim, Grant};
use adit_codec::{Side, TcpOpen};
use adit_egress::{Config, Egress, Protocol, ServiceConfig};
use adit_flow::Budget;
use adit_ingress::{
    Admission, Destination, Direction, Director, Layer, Session, Tcp, TcpConfig, Visit,
};
use adit_link::{
    Dispatch, Exchange, Failure, IncomingRequest, Lane, LaneConfig, Reason, RequestHead,
    TransportError, TransportReader, TransportWriter, drive,
};
use adit_trace::{NoObserver, Observer};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

pub(crate) const TUNNEL: &str = "ssh";

/// What one lane has to send is what the other one reads.
struct Pipe(TransportWriter, VecDeque<Bytes>);

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            if let Some(bytes) = self.1.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match std::task::ready!(self.0.poll_batch(cx)) {
                Some(batch) => self.1.extend(batch.into_segments()),
                None => return Poll::Ready(None),
            }
        }
    }
}

struct Nobody;

impl Dispatch for Nobody {
    fn dispatch(&self, opened: IncomingRequest) {
        drop(opened);
    }
}

/// Hands what is opened to a test that plays the client.
struct Scripted(mpsc::UnboundedSender<(TcpOpen, Exchange)>);

impl Dispatch for Scripted {
    fn dispatch(&self, opened: IncomingRequest) {
        let RequestHead::Tcp(head) = opened.head else {
            panic!("no TCP connection");
        };
        let _ = self.0.send((*head, opened.exchange));
    }
}

/// A lane with both its ends.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) near: Arc<Lane>,
    pub(crate) far: Arc<Lane>,
}

fn lane_config(side: Side) -> LaneConfig {
    LaneConfig {
        mux: adit_mux::Config::new(side),
        max_entries: 1000,
        // What time does is done every 10 ms.
        heartbeat: Duration::from_millis(30),
        dead_after: Duration::from_secs(60),
        stall: Duration::from_secs(60),
        turn_bytes: adit_link::turn::TURN_BYTES,
    }
}

impl Link {
    fn new(dispatch: Arc<dyn Dispatch>, initial_window: Option<u32>) -> Self {
        let lane = |side, dispatch| {
            let mut config = lane_config(side);
            config.mux.initial_window = initial_window.unwrap_or(config.mux.initial_window);
            Lane::new(config, Budget::new(64 << 20), dispatch)
        };
        let near = lane(Side::Server, Arc::new(Nobody) as Arc<dyn Dispatch>);
        let far = lane(Side::Client, dispatch);
        let there = Pipe(near.outbound(), VecDeque::new());
        let back = Pipe(far.outbound(), VecDeque::new());
        for (lane, source) in [(near.clone(), back), (far.clone(), there)] {
            tokio::spawn(async move { drive(&lane, source).await });
        }
        Self { near, far }
    }

    /// To a service on this machine.
    pub(crate) fn to(port: u16) -> (Self, Arc<Egress>) {
        Self::with(Config::default(), port)
    }

    pub(crate) fn with(config: Config, port: u16) -> (Self, Arc<Egress>) {
        let egress = Egress::new(config);
        let service = ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
        egress.set_services(HashMap::from([(TUNNEL.into(), service)]));
        (Self::new(egress.clone(), None), egress)
    }

    /// To a test that plays the client.
    pub(crate) fn scripted() -> (Self, mpsc::UnboundedReceiver<(TcpOpen, Exchange)>) {
        Self::scripted_with(None)
    }

    pub(crate) fn scripted_with(
        initial_window: Option<u32>,
    ) -> (Self, mpsc::UnboundedReceiver<(TcpOpen, Exchange)>) {
        let (tell, told) = mpsc::unbounded_channel();
        (Self::new(Arc::new(Scripted(tell)), initial_window), told)
    }

    pub(crate) fn destination(&self, number: u64) -> Destination {
        Destination {
            lane: self.near.clone(),
            grant: grant(),
            tunnel: TUNNEL.into(),
            revision: 7,
            link: number,
            compression: None,
            permit: None,
            hold: Box::new(()),
        }
    }

    /// Neither end knows any request.
    pub(crate) fn is_idle(&self) -> bool {
        [&self.near, &self.far]
            .iter()
            .all(|lane| lane.open_requests() == 0 && lane.mux().stats().open == 0)
    }
}

fn grant() -> Grant {
    let claim = ClientClaim {
        client_id: "office".parse().unwrap(),
        group_id: "office".parse().unwrap(),
    };
    Grant::for_link("alice".parse().unwrap(), claim).for_tunnel(TUNNEL.parse().unwrap(), 7)
}

type Direct = dyn Fn(&Session, &[u64]) -> Direction + Send + Sync;

pub(crate) struct TestDirector {
    direct: Box<Direct>,
    pub(crate) retries_left: AtomicUsize,
    /// What was to be avoided, each time that was asked.
    pub(crate) asked: Mutex<Vec<Vec<u64>>>,
}

impl Director for TestDirector {
    fn direct(&self, _: &Visit, _: &[u64]) -> Direction {
        Direction::Fail(Failure::new(Reason::NoTunnel, "no HTTP here"))
    }

    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction {
        self.asked.lock().unwrap().push(avoid.to_vec());
        (self.direct)(session, avoid)
    }

    fn may_retry(&self) -> bool {
        self.retries_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

pub(crate) fn director(
    direct: impl Fn(&Session, &[u64]) -> Direction + Send + Sync + 'static,
) -> Arc<TestDirector> {
    Arc::new(TestDirector {
        direct: Box::new(direct),
        retries_left: AtomicUsize::new(100),
        asked: Mutex::default(),
    })
}

/// A public port.
pub(crate) struct World {
    pub(crate) tcp: Arc<Tcp>,
    pub(crate) addr: SocketAddr,
    pub(crate) links: Vec<Link>,
    pub(crate) director: Arc<TestDirector>,
    /// One for each connection.
    pub(crate) serving: Arc<Mutex<Vec<JoinHandle<()>>>>,
    pub(crate) egress: Option<Arc<Egress>>,
}

impl World {
    /// One client with one service.
    pub(crate) async fn to(port: u16) -> Self {
        Self::with(TcpConfig::default(), port).await
    }

    pub(crate) async fn with(config: TcpConfig, port: u16) -> Self {
        let (link, egress) = Link::to(port);
        let mut world = Self::through(config, &link).await;
        world.egress = Some(egress);
        world
    }

    /// One client.
    pub(crate) async fn through(config: TcpConfig, link: &Link) -> Self {
        let there = link.clone();
        let director = director(move |_, _| Direction::Go(there.destination(1)));
        Self::assemble(config, Vec::new(), director, vec![link.clone()]).await
    }

    pub(crate) async fn assemble(
        config: TcpConfig,
        layers: Vec<Box<dyn Layer>>,
        director: Arc<TestDirector>,
        links: Vec<Link>,
    ) -> Self {
        Self::observed(config, layers, director, links, Arc::new(NoObserver)).await
    }

    pub(crate) async fn observed(
        config: TcpConfig,
        layers: Vec<Box<dyn Layer>>,
        director: Arc<TestDirector>,
        links: Vec<Link>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let admission = Admission::observed(layers, director.clone(), observer);
        let tcp = Tcp::new(config, admission);
        let listener = adit_ingress::listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let addr = listener.local_addr().unwrap();
        let serving: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (entry, tasks) = (tcp.clone(), serving.clone());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let task = tokio::spawn(entry.clone().serve(stream, peer, addr));
                tasks.lock().unwrap().push(task);
            }
        });
        Self {
            tcp,
            addr,
            links,
            director,
            serving,
            egress: None,
        }
    }

    pub(crate) async fn visit(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Waits until so many bytes have been written to the service.
    pub(crate) async fn service_has(&self, bytes: u64) {
        until("the service to have it", || {
            let stats = self.egress.as_ref().map(|egress| egress.stats().tcp);
            stats.is_some_and(|stats| stats.sent_bytes == bytes)
        })
        .await;
    }

    /// Waits until nothing is open any more, anywhere.
    pub(crate) async fn settled(&self) {
        let egress_open = || self.egress.as_ref().map_or(0, |e| e.stats().tcp.open);
        until("everything to be over", || {
            self.tcp.stats().open == 0 && self.links.iter().all(Link::is_idle) && egress_open() == 0
        })
        .await;
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// A bound for what must not hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let bounded = tokio::time::timeout(Duration::from_secs(60), future);
    bounded.await.expect("it hangs")
}

/// A service that handles each connection with `script`, and the results in the order in which they come.
pub(crate) async fn service<F, S, T>(script: S) -> (u16, mpsc::UnboundedReceiver<T>)
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let (work, tell) = (script(stream), tell.clone());
            tokio::spawn(async move {
                let _ = tell.send(work.await);
            });
        }
    });
    (port, told)
}

/// Sends back what it gets, as it comes.
pub(crate) async fn echo() -> u16 {
    let (port, _) = service(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await;
    port
}

/// Reads to the end, or to what came instead of it.
pub(crate) async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut all = Vec::new();
    match within(stream.read_to_end(&mut all)).await {
        Ok(_) => (all, None),
        Err(error) => (all, Some(error.kind())),
    }
}

pub(crate) async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    within(stream.read_exact(&mut read)).await.unwrap();
    read
}

pub(crate) const RESET: Option<io::ErrorKind> = Some(io::ErrorKind::ConnectionReset);

/// Resets a connection.
pub(crate) fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

/// Bytes of which each place can be told from its neighbours.
#[derive(Clone)]
pub(crate) struct Pattern {
    block: Bytes,
    at: usize,
}

impl Pattern {
    /// Those of different seeds differ from each other in almost every place.
    pub(crate) fn new(seed: u64) -> Self {
        static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            // A prime, so that no piece of the tunnel's own sizes meets the same bytes twice.
            (0..1_000_003)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3]
                })
                .collect()
        });
        let block = BLOCK.clone();
        let at = usize::try_from(seed).unwrap().wrapping_mul(65_537) % block.len();
        Self { block, at }
    }

    /// The next bytes, at most so many.
    pub(crate) fn next(&mut self, bytes: usize) -> Bytes {
        let piece = self
            .block
            .slice(self.at..(self.at + bytes).min(self.block.len()));
        self.at = (self.at + piece.len()) % self.block.len();
        piece
    }

    /// Whether these are the next ones.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = self.next(bytes.len());
            assert!(bytes[..piece.len()] == piece, "other bytes than were sent");
            bytes = &bytes[piece.len()..];
        }
    }
}

/// Writes so many bytes of a pattern.
pub(crate) async fn write_pattern(
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    pattern: &mut Pattern,
    mut bytes: usize,
) -> io::Result<()> {
    while bytes > 0 {
        let piece = pattern.next(bytes.min(256 * 1024));
        bytes -= piece.len();
        to.write_all(&piece).await?;
    }
    Ok(())
}

/// Reads a pattern to its end; how long it was.
pub(crate) async fn read_pattern(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    mut pattern: Pattern,
) -> io::Result<usize> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(total),
            count => {
                pattern.check(&buffer[..count]);
                total += count;
            }
        }
    }
}
