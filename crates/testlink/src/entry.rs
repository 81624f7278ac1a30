//! Entries for visitors on loopback addresses.

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use adit_codec::HttpRequest;
use adit_flow::Gate;
use adit_ingress::{
    Admission, Http, HttpConfig, Tcp, TcpConfig, Udp, UdpConfig, UdpStats, layers::Permits,
};
use adit_link::Exchange;
use adit_net::{Stream, bind, bind_udp};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    Incoming, Link, Route, ScriptedDirector, http1,
    streams::in_memory,
    udp::Socket,
    until,
    websocket::{self, Visitor},
};

/// An entry for one protocol, with the counters of the protocol.
pub struct Entry<P> {
    protocol: Arc<P>,
    pub addr: SocketAddr,
    pub links: Vec<Link>,
    pub director: Arc<ScriptedDirector>,
    pub drain: watch::Sender<bool>,
    /// One task for each connection; UDP has one for the port.
    pub serving: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

pub type HttpEntry = Entry<Http>;
pub type TcpEntry = Entry<Tcp>;
pub type UdpEntry = Entry<Udp>;

impl<P> Deref for Entry<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.protocol
    }
}

/// Timeouts that no test reaches by accident.
pub fn http_config() -> HttpConfig {
    HttpConfig {
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        service_timeout: Duration::from_secs(10),
        ..HttpConfig::default()
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn drained(drain: watch::Sender<bool>) {
    let _ = drain.subscribe().wait_for(|drains| *drains).await;
}

impl<P: Send + Sync + 'static> Entry<P> {
    fn new(route: Route, addr: SocketAddr, new: impl FnOnce(Arc<Admission>) -> Arc<P>) -> Self {
        Self {
            addr,
            links: route.links.clone(),
            director: route.director.clone(),
            protocol: new(route.admission()),
            drain: watch::Sender::new(false),
            serving: Arc::default(),
        }
    }

    /// Serves each connection of a listener with `serve`.
    fn accept<R>(
        self,
        listener: TcpListener,
        serve: impl Fn(Arc<P>, TcpStream, SocketAddr) -> R + Send + 'static,
    ) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let (protocol, serving) = (self.protocol.clone(), self.serving.clone());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let task = tokio::spawn(serve(protocol.clone(), stream, peer));
                serving.lock().unwrap().push(task);
            }
        });
        self
    }

    /// A visitor's socket.
    pub async fn connect_tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

impl Route {
    pub fn http(self, config: HttpConfig) -> HttpEntry {
        let (listener, addr) = listen();
        let entry = Entry::new(self, addr, |admission| Http::new(config, admission));
        let drain = entry.drain.clone();
        entry.accept(listener, move |http, stream, peer| {
            http.serve(stream, peer, drained(drain.clone()))
        })
    }

    pub fn tcp(self, config: TcpConfig) -> TcpEntry {
        let (listener, addr) = listen();
        let entry = Entry::new(self, addr, |admission| Tcp::new(config, admission));
        entry.accept(listener, move |tcp, stream, peer| {
            tcp.serve(stream, peer, addr)
        })
    }

    pub fn udp(self, config: UdpConfig, session_timeout: Duration) -> UdpEntry {
        let socket = UdpSocket::from_std(bind_udp(loopback()).unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        // No permit is available: flows need none (P-11.2).
        let route = self.layer(Permits::new(Gate::new(0, 0), Duration::ZERO));
        let entry = Entry::new(route, addr, |admission| Udp::new(config, admission));
        let drained = drained(entry.drain.clone());
        let serving = entry
            .protocol
            .clone()
            .serve(socket, session_timeout, drained);
        entry.serving.lock().unwrap().push(tokio::spawn(serving));
        entry
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::from_std(bind(loopback()).unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

impl HttpEntry {
    /// An entry with one client, which serves requests with a function.
    pub fn serving<F, R>(config: HttpConfig, serve: F) -> Self
    where
        F: Fn(HttpRequest, Exchange) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Route::to(&Link::serving(serve)).http(config)
    }

    /// The requests that reached the service, if a function serves them.
    pub fn seen(&self) -> MutexGuard<'_, VecDeque<HttpRequest>> {
        self.links[0].seen.lock().unwrap()
    }

    /// Serves `stream` as the connection of a visitor.
    pub fn serve_stream(&self, stream: Stream) {
        let peer = stream.peer_addr().unwrap();
        let served = self.protocol.clone();
        let served = served.serve(stream, peer, drained(self.drain.clone()));
        self.serving.lock().unwrap().push(tokio::spawn(served));
    }

    /// A visitor's stream in memory, which takes part in paused time.
    pub async fn connect(&self) -> Stream {
        let (visitor, ours) = in_memory(self.addr);
        self.serve_stream(ours);
        visitor
    }

    /// An entry with one client, whose part the test takes.
    pub fn scripted(config: HttpConfig) -> (Self, Incoming) {
        let (link, incoming) = Link::scripted();
        (Route::to(&link).http(config), incoming)
    }

    /// A visitor's WebSocket, and its other end at the client whose part the test takes.
    pub async fn open_websocket(&self, incoming: &mut Incoming) -> (Visitor<Stream>, Exchange) {
        let mut stream = self.connect().await;
        http1::send(&mut stream, websocket::UPGRADE).await;
        let (_, exchange) = incoming.websocket().await;
        websocket::accept(&exchange, &[]);
        let head = http1::read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (Visitor(stream), exchange)
    }

    /// Sends bytes on a connection and reads to its end. `Err` is a reset, with the bytes before it.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Result<String, String> {
        let mut stream = self.connect().await;
        http1::send(&mut stream, bytes).await;
        http1::read_to_end(&mut stream).await
    }

    /// Waits until a client has received a request.
    pub async fn opened(&self) {
        let open = || self.links.iter().any(|link| link.far.open_requests() > 0);
        until("a request reaches the far end", open).await;
    }

    /// Waits until no request is open.
    pub async fn settled(&self) {
        let idle = || self.stats().requests_open == 0 && self.links.iter().all(Link::is_idle);
        until("no request is open", idle).await;
    }

    /// Waits until no connection is open.
    pub async fn closed(&self) {
        let closed = || self.stats().connections_open == 0;
        until("no connection is open", closed).await;
    }
}

impl TcpEntry {
    pub async fn connect(&self) -> TcpStream {
        self.connect_tcp().await
    }

    /// Waits until no connection is open.
    pub async fn settled(&self) {
        let idle = || self.stats().open == 0 && self.links.iter().all(Link::is_idle);
        until("no connection is open", idle).await;
    }
}

impl UdpEntry {
    pub async fn visitor(&self) -> Socket {
        Socket::connect(self.addr).await
    }

    pub async fn until(&self, holds: impl Fn(&UdpStats) -> bool) {
        until("the counters of the port", || holds(&self.stats())).await;
    }
}
