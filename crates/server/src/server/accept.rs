//! Accepts connections, and serves each by the port that accepted it.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
};

use adit_link::signalled;
use adit_net::{Listener, Stream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::visitors::Visitors;
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
            directory,
            visitors,
            clients,
            drain,
            stop,
        } = self;
        Arc::new(move |stream: Stream, peer, port| match port {
            Port::Tunnel(number) if !directory.is_http_port(number) => {
                let (tcp, headers) = (entries.tcp(), entries.proxy_headers());
                let entries = entries.clone();
                let mut stream = stream;
                let served = async move {
                    let Some(peer) = visitor_of(&entries, &headers, &mut stream, peer).await else {
                        return;
                    };
                    match stream.local_addr() {
                        Ok(local) => tcp.serve(stream, peer, local).await,
                        Err(error) => tracing::debug!(%peer, %error, "the visitor has left"),
                    }
                };
                Box::pin(visitors.track_future(served)) as _
            }
            Port::Visitors | Port::Tunnel(_) => {
                let (http, headers) = (entries.http(), entries.proxy_headers());
                let entries = entries.clone();
                let drained = signalled(drain.clone());
                let mut stream = stream;
                let served = async move {
                    if let Some(peer) = visitor_of(&entries, &headers, &mut stream, peer).await {
                        http.serve(stream, peer, drained).await;
                    }
                };
                Box::pin(visitors.track_future(served)) as _
            }
            Port::Clients => {
                let stopped = signalled(stop.clone());
                let served = client_port.clone().serve(stream, peer, stopped);
                Box::pin(clients.track_future(served)) as _
            }
        })
    }
}

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

/// Accepts clients until the server stops, and visitors until it drains.
pub(super) async fn accept_both(
    clients: StdListener,
    visitors: StdListener,
    acceptor: &Acceptor,
    drain: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) {
    let listeners = Listener::from_std(clients)
        .and_then(|clients| Listener::from_std(visitors).map(|visitors| (clients, visitors)));
    let (clients, visitors) = match listeners {
        Ok(listeners) => listeners,
        Err(error) => {
            tracing::error!(%error, "the listening sockets cannot be used");
            return;
        }
    };
    let clients = acceptor.accept_on(clients, Port::Clients);
    let visitors = acceptor.accept_on(visitors, Port::Visitors);
    // Clients may connect while visitors are being served; new visitors may not.
    tokio::join!(
        clients.run(signalled(stop), |client| acceptor
            .assign(client, Port::Clients)),
        async {
            let assign = |visitor| acceptor.assign(visitor, Port::Visitors);
            visitors.run(signalled(drain), assign).await;
            drop(visitors);
        },
    );
}
