//! Services over HTTP/2, in clear text (with prior knowledge) or over TLS: requests share connections.
//!
//! One task serves one request (`exchange`): it takes a stream on a pooled connection, sends the visitor's direction
//! (`request_writer`) and forwards the response (`response_reader`). However the task ends, the stream is reset unless it
//! is complete.

mod error;
mod exchange;
mod grpc;
mod pool;
mod request;
mod request_head;
mod request_writer;
mod response_reader;
mod settings_watch;

use std::sync::{Arc, atomic::AtomicUsize};

use adit_codec::ResetCode;
use adit_link::Exchange;

pub(crate) use self::request::Http2Head;
use self::{pool::Pool, request::Http2Record};
use crate::{
    connect::{chosen_protocol::ChosenProtocol, tls::Dialer},
    forward::{gauge::GaugeGuard, resources::Resources},
    stats::Stats,
};

/// The client of one service.
pub(crate) struct Client {
    resources: Arc<Resources>,
    pool: Arc<Pool>,
    /// Requests that are being served.
    running: AtomicUsize,
}

impl Client {
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        chosen: Option<Arc<ChosenProtocol>>,
        resources: Arc<Resources>,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::new(dialer, chosen, resources.clone()),
            resources,
            running: AtomicUsize::new(0),
        })
    }

    /// Serves a request in a task of its own.
    pub(crate) fn dispatch(self: &Arc<Self>, record: Http2Record, exchange: Exchange) {
        let limit = self.resources.config.max_connections;
        let Some(running) = GaugeGuard::below(limit, self.clone(), |client| &client.running) else {
            let reason = format!("{limit} requests to {} are running", self.pool.address());
            return record.reset(exchange.send, ResetCode::Limit, &reason);
        };
        tokio::spawn(async move {
            let client = running.owner();
            exchange::serve(&client.pool, &client.resources, record, exchange).await;
        });
    }

    /// Closes idle connections now, and the others as they become idle.
    pub(crate) fn retire(&self) {
        self.pool.retire();
    }

    /// Adds the connections to `stats`.
    pub(crate) fn count(&self, stats: &mut Stats) {
        self.pool.count(stats);
    }
}
