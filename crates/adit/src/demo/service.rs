//! The service behind the demonstration: a small server with a thread of its own, as another process would have. It serves
//! HTTP/1.1, HTTP/2 in clear text, WebSocket and gRPC on one port, and echoes TCP and UDP on two others.

mod pages;
mod rpc;
mod socket;
mod sockets;

pub(super) use pages::{DOWN, DOWN_VALUE, PROMISED, STEPS, UP};
pub(super) use rpc::{METADATA, METHOD};
pub(super) use sockets::GREETING;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use self::sockets::Sockets;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::{mpsc, watch},
};

/// The pause after `accept` failed, usually because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The running service.
#[derive(Debug)]
pub(super) struct Service {
    addr: SocketAddr,
    tcp: SocketAddr,
    udp: SocketAddr,
    events: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Service {
    /// Starts the service on a free port of the loopback interface.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let sockets = Sockets::bind(&runtime)?;
        let (tcp, udp) = sockets.addrs()?;
        let events = watch::Sender::new(true);
        let stop = watch::Sender::new(false);
        let shared = Arc::new(Responses {
            steps: Mutex::default(),
            events: events.subscribe(),
        });
        let mut stopped = stop.subscribe();
        let thread = thread::Builder::new()
            .name("demo-service".into())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        () = accept(&listener, &shared) => {}
                        () = sockets.serve() => {}
                        // The wait also ends when the sender is dropped.
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            })?;
        Ok(Self {
            addr,
            tcp,
            udp,
            events,
            stop,
            thread,
        })
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the TCP echo.
    pub(super) const fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// The address of the UDP echo.
    pub(super) const fn udp(&self) -> SocketAddr {
        self.udp
    }

    /// Ends the endless responses.
    pub(super) fn end_events(&self) {
        self.events.send_replace(false);
    }

    /// Ends all connections at once and waits for the thread.
    pub(super) fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the demo service panicked");
        }
    }
}

/// Responses that other requests control.
#[derive(Debug)]
struct Responses {
    /// The senders by name; each message releases the next step of a response.
    steps: Mutex<HashMap<String, mpsc::UnboundedSender<()>>>,
    /// Whether endless responses continue.
    events: watch::Receiver<bool>,
}

/// The steps of one response.
struct Steps {
    shared: Arc<Responses>,
    name: String,
    released: mpsc::UnboundedReceiver<()>,
}

impl Responses {
    fn steps(&self) -> MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<()>>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the next step of a response; `false` when the name is unknown.
    fn release(&self, name: &str) -> bool {
        self.steps()
            .get(name)
            .is_some_and(|steps| steps.send(()).is_ok())
    }
}

impl Steps {
    fn new(shared: Arc<Responses>, name: &str) -> Self {
        let (sender, released) = mpsc::unbounded_channel();
        shared.steps().insert(name.to_owned(), sender);
        Self {
            shared,
            name: name.to_owned(),
            released,
        }
    }

    /// Waits for the next step; `false` when there are no more.
    async fn next(&mut self) -> bool {
        self.released.recv().await.is_some()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.shared.steps().remove(&self.name);
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Responses>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, shared.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the demo service cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(stream: TcpStream, shared: Arc<Responses>) -> impl Future<Output = ()> + Send {
    let pages = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(pages::response(request, shared).await) }
    });
    async move {
        // Without this option, a small response waits for the acknowledgement of the previous one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "demo service: no TCP_NODELAY");
        }
        let http = auto::Builder::new(TokioExecutor::new());
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), pages);
        if let Err(error) = connection.await {
            // One page aborts on purpose, and visitors disconnect.
            tracing::debug!(%error, "demo service: a connection ended");
        }
    }
}
