//! Serves the connections on the clients' port.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_link::{
    control::{Allowance, ChannelId, ClientConnection},
    grpc::{Endpoint, Methods, serve_connection},
};
use adit_net::Stream;
use adit_registry::{Fence, Registry};
use adit_tls::{Acceptor, Cause};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    channels::Channels,
    configuration::InForce,
    floods::Floods,
    lanes::Lanes,
    newcomers::{Newcomer, Newcomers},
};

/// The time in which a connection whose session was fenced sends the statuses of its streams, before it is closed.
const FLUSH: Duration = Duration::from_secs(1);

/// Serves the connections of clients.
#[derive(Clone)]
pub(crate) struct ClientPort {
    pub(crate) methods: Methods,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) tls: Acceptor,
    pub(crate) newcomers: Arc<Newcomers>,
    pub(crate) floods: Arc<Floods>,
    pub(crate) config: Arc<InForce>,
}

impl ClientPort {
    /// Serves one connection to its end, beginning with the TLS handshake. The handshake is bounded as the rest of a
    /// connection without a session: in number by the newcomers, in time by `timeouts.setup`.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn serve(
        self,
        stream: Stream,
        peer: SocketAddr,
        stopped: impl Future<Output = ()> + Send,
    ) {
        let newcomer = match self.newcomers.enter(peer.ip(), Instant::now()) {
            Ok(newcomer) => newcomer,
            Err(crowded) => {
                self.floods.unregistered(peer, crowded.to_string());
                return;
            }
        };
        let channel = ChannelId::next();
        let link = self.channels.connections.open(channel);
        let fenced = Notify::new();
        let stopped = async {
            tokio::select! {
                () = stopped => {}
                () = fenced.notified() => {}
            }
        };
        let mut connection = ClientConnection::new(channel, peer);
        let allowance = connection.allowance.clone();
        tracing::debug!(%peer, channel = channel.value(), "client connected");
        let within = self.config.load().settings.timeouts.handshake;
        let served = async {
            match self.tls.accept(stream, within).await {
                Ok((stream, certificate)) => {
                    connection.certificate = certificate.map(Into::into);
                    let methods = self.methods.clone();
                    let endpoint = Endpoint::new(methods, self.lanes.clone(), connection);
                    serve_connection(stream, endpoint, stopped).await
                }
                Err(error) => {
                    if !matches!(error.cause(), Cause::Closed(_)) {
                        self.floods.unregistered(peer, error.to_string());
                    }
                    Err(io::Error::other(error))
                }
            }
        };
        tokio::select! {
            served = served => {
                if let Err(error) = served {
                    tracing::debug!(%peer, channel = channel.value(), %error, "client connection ended");
                }
            }
            () = self.unused(peer, channel, newcomer, &allowance, (link, &fenced)) => {}
        }
        self.channels.connections.close(channel);
        self.registry.channel_closed(channel);
    }

    /// Completes when the connection is to be closed: it did not register in time, is displaced by newer connections,
    /// or has lost its session.
    async fn unused(
        &self,
        peer: SocketAddr,
        channel: ChannelId,
        newcomer: Newcomer,
        allowance: &Allowance,
        (link, fenced): (watch::Receiver<Option<Fence>>, &Notify),
    ) {
        // This is the time within which the connection must register.
        let setup = self.config.load().settings.timeouts.setup;
        let registering = async {
            tokio::select! {
                () = allowance.lifted() => Ok(()),
                () = newcomer.displaced() => Err("replaced by newer connections"),
            }
        };
        let registered = timeout(setup, registering).await;
        drop(newcomer);
        let reason = match registered {
            Ok(Ok(())) => {
                tokio::select! {
                    () = self.channels.wait_until_unused(channel, setup) => {}
                    () = self.channels.fenced(channel, link) => {
                        fenced.notify_one();
                        tokio::time::sleep(FLUSH).await;
                    }
                }
                tracing::debug!(%peer, "client connection closed: its session has ended");
                return;
            }
            Ok(Err(reason)) => reason.to_owned(),
            Err(_) if allowance.is_used_up() => {
                format!(
                    "no session within {setup:?}, and the bytes that are allowed before a session are used up"
                )
            }
            Err(_) => format!("no session within {setup:?}"),
        };
        self.floods.unregistered(peer, reason);
    }
}
