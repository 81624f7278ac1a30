//! Events that peers can cause at will: counted, and logged at most once a second.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_auth::{ClientId, DenialReason};
use adit_link::{Failure, LogLimit};

use crate::port::Port;

/// Counters and lines of all kinds.
pub(crate) struct Floods {
    denied: Kind<(ClientId, SocketAddr, DenialReason)>,
    refused: Kind<(ClientId, SocketAddr, String)>,
    unregistered: Kind<(SocketAddr, String)>,
    handshake: Kind<(SocketAddr, String)>,
    broken: Kind<BrokenStream>,
    accept: Kind<(Port, String)>,
    full: Kind<(Port, usize)>,
}

/// The number of events of each kind so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FloodStats {
    pub(crate) denied: u64,
    pub(crate) unregistered: u64,
    pub(crate) handshakes: u64,
    pub(crate) broken: u64,
    pub(crate) accept: u64,
}

struct BrokenStream {
    /// `data stream` or `control stream`.
    stream: &'static str,
    client: ClientId,
    peer: SocketAddr,
    failure: Failure,
    /// Bytes received, where they are counted.
    bytes: Option<u64>,
}

struct Kind<T> {
    count: AtomicU64,
    log: Arc<LogLimit<T>>,
}

impl<T: Send + 'static> Kind<T> {
    fn new(write: fn(&T, u64)) -> Self {
        Self {
            count: AtomicU64::new(0),
            log: LogLimit::new(write),
        }
    }

    fn note(&self, event: T) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.log.note(event);
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Floods {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            denied: Kind::new(|(client, peer, reason), count| {
                tracing::warn!(%client, %peer, %reason, count, "registration denied");
            }),
            refused: Kind::new(|(client, peer, what), count| {
                tracing::info!(%client, %peer, count, "refused: {what}");
            }),
            unregistered: Kind::new(|(peer, reason), count| {
                tracing::warn!(%peer, count, "connection without a session closed: {reason}");
            }),
            handshake: Kind::new(|(peer, reason), count| {
                tracing::info!(%peer, count, "HTTPS connection closed: {reason}");
            }),
            broken: Kind::new(|broken: &BrokenStream, count| {
                tracing::warn!(
                    client = %broken.client,
                    peer = %broken.peer,
                    reason = broken.failure.reason.as_str(),
                    bytes = broken.bytes,
                    count,
                    "{} closed: {}",
                    broken.stream,
                    broken.failure.detail
                );
            }),
            accept: Kind::new(|(port, error), count| {
                tracing::warn!(%port, count, "accept failed: {error}");
            }),
            full: Kind::new(|(port, limit), _| {
                tracing::warn!(
                    %port,
                    limit,
                    "visitors wait: the process has no free file descriptors; raise `ulimit -n`"
                );
            }),
        })
    }

    /// Counts and logs a registration with an invalid credential.
    pub(crate) fn denied(&self, client: &ClientId, peer: SocketAddr, reason: DenialReason) {
        self.denied.note((client.clone(), peer, reason));
    }

    /// Counts and logs a registration or a tunnel that was refused because another user or client holds a name.
    pub(crate) fn refused(&self, client: &ClientId, peer: SocketAddr, what: String) {
        self.refused.note((client.clone(), peer, what));
    }

    /// Counts and logs a connection of a client that is closed before it has registered.
    pub(crate) fn unregistered(&self, peer: SocketAddr, reason: impl Into<String>) {
        self.unregistered.note((peer, reason.into()));
    }

    /// Counts and logs a visitor's connection without a TLS handshake.
    pub(crate) fn handshake(&self, peer: SocketAddr, reason: String) {
        self.handshake.note((peer, reason));
    }

    /// Counts and logs a data stream whose client violated the protocol.
    pub(crate) fn broken(
        &self,
        client: &ClientId,
        peer: SocketAddr,
        failure: &Failure,
        bytes: u64,
    ) {
        self.broken.note(BrokenStream {
            stream: "data stream",
            client: client.clone(),
            peer,
            failure: failure.clone(),
            bytes: Some(bytes),
        });
    }

    /// Counts and logs a control stream whose client violated the protocol.
    pub(crate) fn broken_control(&self, client: &ClientId, peer: SocketAddr, failure: Failure) {
        self.broken.note(BrokenStream {
            stream: "control stream",
            client: client.clone(),
            peer,
            failure,
            bytes: None,
        });
    }

    /// Counts and logs a connection that could not be accepted.
    pub(crate) fn accept_failed(&self, port: Port, error: &io::Error) {
        self.accept.note((port, error.to_string()));
    }

    /// Counts and logs that visitors wait for a descriptor.
    pub(crate) fn full(&self, port: Port, limit: usize) {
        self.full.note((port, limit));
    }

    pub(crate) fn stats(&self) -> FloodStats {
        FloodStats {
            denied: self.denied.count(),
            unregistered: self.unregistered.count(),
            handshakes: self.handshake.count(),
            broken: self.broken.count(),
            accept: self.accept.count(),
        }
    }
}
