//! The HTTP entry: what its connections share.

use std::sync::Arc;

use adit_codec::MAX_HEADER_LINES;
use hyper::server::conn::http1;

use crate::{
    admission::Admission,
    config::HttpConfig,
    stats::{Counters, Stats},
    upgrade,
};

/// Bounds the head of a request, and what waits to be written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Takes HTTP visitors in.
pub struct Http {
    pub(crate) config: HttpConfig,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Counters,
    pub(crate) websockets: adit_splice::websocket::BufferPools,
    pub(crate) upgraded: adit_splice::tcp::BufferPools,
    pub(crate) http1: http1::Builder,
}

impl Http {
    /// An entry whose requests pass `admission`.
    pub fn new(config: HttpConfig, admission: Arc<Admission>) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            // P-3.8: also to answers of services that have none.
            .auto_date_header(true)
            .max_headers(MAX_HEADER_LINES)
            // The socket times heads, and knows a connection that is idle from one that is slow.
            .header_read_timeout(None)
            .half_close(true)
            .max_buf_size(BUFFER_BYTES);
        Arc::new(Self {
            config,
            admission,
            counters: Counters::default(),
            websockets: adit_splice::websocket::BufferPools::default(),
            upgraded: upgrade::buffers(),
            http1,
        })
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("config", &self.config)
            .field("admission", &self.admission)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
