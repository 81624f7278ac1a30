//! Accepts connections, and serves each by the port that accepted it.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
};

use adit_link::{BoxFuture, signalled};
use adit_net::{Listener, Stream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{https::Https, visitors::Visitors};
use crate::{
    client_port::ClientPort,
    directory::Directory,
    port::Port,
    proxy_header::ProxyHeaders,
    threads::{Acceptor, Serve},
};

/// The parts that serve connections.
pub(super) struct Serving {
    pub(super) client_port: ClientPort,
    pub(super) entries: Arc<Visitors>,
    pub(super) https: Option<Arc<Https>>,
    pub(super) directory: Arc<Directory>,
    pub(super) visitors: TaskTracker,
    pub(super) clients: TaskTracker,
    pub(super) drain: watch::Receiver<bool>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Serving {
    /// The function that serves each connection.
    pub(super) fn into_serve(self) -> Arc<Serve> {
        let Self {
            client_port,
            entries,
            https,
            directory,
            visitors,
            clients,
            drain,
            stop,
        } = self;
        Arc::new(move |stream: Stream, peer, port| {
            let serve: ServeVisitor = match port {
                Port::Clients => {
                    let stopped = signalled(stop.clone());
                    let served = client_port.clone().serve(stream, peer, stopped);
                    return Box::pin(clients.track_future(served)) as _;
                }
                Port::Tunnel(number) if !directory.is_http_port(number) => {
                    let tcp = entries.tcp();
                    match (directory.terminating(number), https.clone()) {
                        (Some(tunnel), Some(https)) => {
                            let drained = signalled(drain.clone());
                            Box::new(move |stream, peer| {
                                Box::pin(async move {
                                    https.serve_tunnel(stream, peer, tunnel, tcp, drained).await;
                                })
                            })
                        }
                        _ => Box::new(move |stream, peer| match stream.local_addr() {
                            Ok(local) => tcp.serve(stream, peer, local),
                            Err(error) => {
                                tracing::debug!(%peer, %error, "the visitor has left");
                                Box::pin(async {})
                            }
                        }),
                    }
                }
                Port::Visitors | Port::Tunnel(_) => {
                    let (http, drained) = (entries.http(), signalled(drain.clone()));
                    Box::new(move |stream, peer| http.serve(stream, peer, drained))
                }
                Port::Https => {
                    let (https, entries) = (https.clone(), entries.clone());
                    let (directory, drained) = (directory.clone(), signalled(drain.clone()));
                    Box::new(move |stream, peer| {
                        Box::pin(async move {
                            if let Some(https) = https {
                                https
                                    .serve(stream, peer, &entries, directory, drained)
                                    .await;
                            }
                        })
                    })
                }
            };
            let (entries, headers) = (entries.clone(), entries.proxy_headers());
            let mut stream = stream;
            let served = async move {
                if let Some(peer) = visitor_of(&entries, &headers, &mut stream, peer).await {
                    serve(stream, peer).await;
                }
            };
            Box::pin(visitors.track_future(served)) as _
        })
    }
}

/// Serves the connection of a visitor, behind the header of a proxy.
type ServeVisitor = Box<dyn FnOnce(Stream, SocketAddr) -> BoxFuture<'static, ()> + Send>;

/// The address of the visitor whose connection this is; `None` if a proxy has sent no valid header.
async fn visitor_of(
    entries: &Visitors,
    headers: &ProxyHeaders,
    stream: &mut Stream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    match headers.visitor_of(stream, peer).await {
        Ok(visitor) => Some(visitor),
        Err(error) => {
            entries.count_refused_header();
            tracing::debug!(%peer, "connection of a proxy closed: {error}");
            None
        }
    }
}

/// The listening sockets of a server, besides those of tunnels.
pub(super) struct Sockets {
    pub(super) clients: StdListener,
    pub(super) visitors: StdListener,
    pub(super) https: Option<StdListener>,
}

impl Sockets {
    /// Accepts clients until the server stops, and visitors until it drains.
    pub(super) async fn accept(
        self,
        acceptor: &Acceptor,
        drain: watch::Receiver<bool>,
        stop: watch::Receiver<bool>,
    ) {
        // Clients may connect while visitors are being served; new visitors may not.
        tokio::join!(
            accept_on(self.clients, Port::Clients, acceptor, stop),
            accept_on(self.visitors, Port::Visitors, acceptor, drain.clone()),
            async {
                if let Some(https) = self.https {
                    accept_on(https, Port::Https, acceptor, drain).await;
                }
            },
        );
    }
}

async fn accept_on(
    socket: StdListener,
    port: Port,
    acceptor: &Acceptor,
    until: watch::Receiver<bool>,
) {
    let listener = match Listener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%port, %error, "the listening socket cannot be used");
            return;
        }
    };
    let accepting = acceptor.accept_on(listener, port);
    let assign = |accepted| acceptor.assign(accepted, port);
    accepting.run(signalled(until), assign).await;
}
