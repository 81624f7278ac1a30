//! TCP services: a connection of its own for each visitor's (section 10 of the protocol).
//!
//! Dialled when the request comes; what the visitor sends meanwhile waits, bounded by its credit. A service that is not
//! there, or breaks off, is a reset that says so (P-10.3), and a visitor who leaves resets the service's connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use adit_codec::{ProtocolType, ResetCode, TcpOpen, accepted};
use adit_link::Exchange;
use adit_splice::tcp::{Broken, Buffers, Moved, Socket, Splice};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    dial::dial,
    job::{give_up, gone},
    proxy_protocol,
    service::{Service, Shared},
};

/// Counters and gauges of the TCP connections, over all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpStats {
    /// Connections now, those being made included.
    pub open: usize,
    /// Connections so far, also those that could not be made.
    pub total: u64,
    /// Connections that could not be made.
    pub dials_failed: u64,
    /// Connections that the service broke off.
    pub aborted: u64,
    /// Bytes from services.
    pub received_bytes: u64,
    /// Bytes to services.
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicUsize,
    total: AtomicU64,
    dials_failed: AtomicU64,
    aborted: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn stats(&self) -> TcpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpStats {
            open: self.open.load(Ordering::Relaxed),
            total: read(&self.total),
            dials_failed: read(&self.dials_failed),
            aborted: read(&self.aborted),
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
        }
    }

    fn on_moved(&self, moved: Moved) {
        self.received_bytes.fetch_add(moved.read, Ordering::Relaxed);
        self.sent_bytes.fetch_add(moved.written, Ordering::Relaxed);
    }
}

/// Serves one connection, in a task of its own.
pub(crate) fn dispatch(
    head: Box<TcpOpen>,
    exchange: Exchange,
    service: Arc<Service>,
    shared: Arc<Shared>,
) {
    let limit = shared.config.max_connections;
    let open = Open::new(shared, service);
    if open.is_over(limit) {
        let why = format!("{limit} connections to {} are open", open.service.address);
        give_up(exchange.send, &head.open, ResetCode::Limit, &why);
        return;
    }
    tokio::spawn(async move { open.serve(&head, exchange).await });
}

/// One connection of the count.
struct Open {
    shared: Arc<Shared>,
    service: Arc<Service>,
    /// Connections of the service that were open before this one.
    before: usize,
}

impl Open {
    fn new(shared: Arc<Shared>, service: Arc<Service>) -> Self {
        let counters = &shared.counters.tcp;
        counters.total.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        let before = service.open.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            service,
            before,
        }
    }

    const fn is_over(&self, limit: usize) -> bool {
        self.before >= limit
    }

    async fn serve(&self, head: &TcpOpen, exchange: Exchange) {
        let (config, counters) = (&self.shared.config, &self.shared.counters);
        let dialled = tokio::select! {
            biased;
            () = gone(&exchange.send) => return,
            dialled = dial(&self.service.address, config.dial_timeout) => dialled,
        };
        let socket = match dialled {
            Ok(stream) => Socket::new(stream),
            Err(why) => {
                counters.tcp.dials_failed.fetch_add(1, Ordering::Relaxed);
                give_up(exchange.send, &head.open, ResetCode::DialFailed, &why);
                return;
            }
        };
        counters.dialled.fetch_add(1, Ordering::Relaxed);
        if let Some(silence) = config.tcp_keepalive {
            socket.keep_alive(silence);
        }
        exchange.set_stall(config.tcp_stall_timeout);
        self.service.compress(&exchange.send, []);
        let accepted = accepted(ProtocolType::Tcp);
        if exchange.send.answer(accepted, false).is_err() {
            return;
        }
        let version = self.service.proxy_protocol;
        let first =
            version.map_or_else(Bytes::new, |version| proxy_protocol::header(version, head));
        let buffers = Buffers {
            small: self.shared.small.clone(),
            large: self.shared.large.clone(),
        };
        let mut splice = Splice::new(&socket, exchange, &buffers, first);
        let broken = match splice.run(|moved| counters.tcp.on_moved(moved)).await {
            Ok(()) => {
                drop(splice);
                socket.close();
                return;
            }
            Err(broken) => broken,
        };
        match broken {
            Broken::Socket(error) => {
                counters.tcp.aborted.fetch_add(1, Ordering::Relaxed);
                let why = format!("the service broke off: {error}");
                if let Some(send) = splice.give_up() {
                    give_up(send, &head.open, ResetCode::ServiceAborted, &why);
                }
            }
            Broken::Exchange(failure) => {
                tracing::debug!(
                    target: "adit::egress",
                    request_id = %Uuid::from_bytes(head.open.request_uuid),
                    %failure,
                    "connection to a TCP service reset"
                );
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.service.open.fetch_sub(1, Ordering::Relaxed);
        let counters = &self.shared.counters.tcp;
        counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}
