//! TCP services: a connection of its own for each visitor's (section 10 of the protocol).
//!
//! Dialled when the request comes; what the visitor sends meanwhile waits, bounded by its credit. A service that is not
//! there, or breaks off, is a reset that says so (P-10.3), and a visitor who leaves resets the service's connection.

use std::sync::{Arc, atomic::Ordering};

use adit_codec::{ProtocolType, ResetCode, TcpOpen, accepted};
use adit_link::Exchange;
use adit_splice::tcp::{BufferPools, Progress, Socket, Splice, SpliceError};
use adit_trace::Phase;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    connect::{dial::dial, proxy_protocol},
    request::account::Account,
    resources::Resources,
    service::Service,
};

/// Serves one connection, in a task of its own.
pub(crate) fn dispatch(
    mut account: Account<Box<TcpOpen>>,
    exchange: Exchange,
    shared: Arc<Resources>,
) {
    let limit = shared.config.max_connections;
    let open = Open::new(shared, account.service.clone());
    if open.is_over(limit) {
        let why = format!("{limit} connections to {} are open", open.service.address);
        account.give_up(exchange.send, ResetCode::Limit, &why);
        return;
    }
    tokio::spawn(async move { open.serve(account, exchange).await });
}

/// One connection of the count.
struct Open {
    shared: Arc<Resources>,
    service: Arc<Service>,
    /// Connections of the service that were open before this one.
    before: usize,
}

impl Open {
    fn new(shared: Arc<Resources>, service: Arc<Service>) -> Self {
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

    async fn serve(&self, mut account: Account<Box<TcpOpen>>, exchange: Exchange) {
        let (config, counters) = (&self.shared.config, &self.shared.counters);
        account.course.begin(Phase::Dial);
        let dialled = tokio::select! {
            biased;
            // One that only broke off has bytes for the service, maybe.
            failure = exchange.recv.failed() => return account.course.on_failure(&failure),
            dialled = dial(&self.service.address, config.dial_timeout) => dialled,
        };
        account.course.end(Phase::Dial);
        let socket = match dialled {
            Ok(stream) => Socket::new(stream),
            Err(why) => {
                counters.tcp.dials_failed.fetch_add(1, Ordering::Relaxed);
                account.give_up(exchange.send, ResetCode::DialFailed, &why);
                return;
            }
        };
        counters.dialled.fetch_add(1, Ordering::Relaxed);
        if let Some(silence) = config.tcp_keepalive {
            socket.set_keepalive(silence);
        }
        exchange.set_stall(config.tcp_stall_timeout);
        self.service.compress(&exchange.send, []);
        let accepted = accepted(ProtocolType::Tcp);
        // Fails for a visitor who has left: its bytes reach the service all the same.
        if exchange.send.respond(accepted, false).is_ok() {
            account.course.on_answer(0, false);
        }
        let version = self.service.proxy_protocol;
        let first = version.map_or_else(Bytes::new, |version| {
            proxy_protocol::header(version, &account.head)
        });
        // It is no payload, and goes out before any.
        let mut header = first.len() as u64;
        let buffers = BufferPools {
            small: self.shared.small.clone(),
            large: self.shared.large.clone(),
        };
        let patience = config.tcp_stall_timeout;
        let mut splice = Splice::new(&socket, exchange, &buffers, first, patience);
        let on_moved = |moved: Progress| {
            counters.tcp.on_moved(moved);
            let of_header = header.min(moved.written);
            header -= of_header;
            account.moved.receive(moved.written - of_header);
            account.moved.send(moved.read);
        };
        let broken = match splice.run(on_moved).await {
            Ok(()) => {
                account.course.on_complete();
                drop(splice);
                socket.close();
                return;
            }
            Err(broken) => broken,
        };
        match broken {
            SpliceError::Socket(error) => {
                counters.tcp.aborted.fetch_add(1, Ordering::Relaxed);
                let why = format!("the service broke off: {error}");
                if let Some(send) = splice.into_send() {
                    account.give_up(send, ResetCode::ServiceAborted, &why);
                }
            }
            SpliceError::Exchange(failure) => {
                account.course.on_failure(&failure);
                tracing::debug!(
                    target: "adit::egress",
                    request_id = %Uuid::from_bytes(account.head.open.request_uuid),
                    %failure,
                    "connection to a TCP service reset"
                );
                if splice.is_aborted() {
                    drop(splice);
                    socket.reset_after_delivery(patience).await;
                }
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
