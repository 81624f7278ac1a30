//! What the connections and requests of one HTTP entry share.

use std::{fmt, sync::Arc};

use adit_codec::Pool;
use adit_splice::{tcp, websocket};

use crate::{config::HttpConfig, forward::admission::Admission, stats::Counters};

/// Size of the buffer that an upgraded connection reads into after a silence.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Size of the buffer that an upgraded connection reads into while bytes keep arriving: the payload of one message
/// (P-2.1).
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// Unused buffers kept of each size: more than one turn of a thread reads into.
const MAX_FREE_BUFFERS: usize = 64;

/// What the connections and requests of one HTTP entry share.
pub(crate) struct HttpContext {
    pub(crate) config: HttpConfig,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Arc<Counters>,
    /// Buffers for the frames of WebSockets.
    pub(crate) websocket_buffers: websocket::BufferPools,
    /// Buffers for the bytes of upgraded connections.
    pub(crate) upgrade_buffers: tcp::BufferPools,
}

impl HttpContext {
    pub(crate) fn new(
        config: HttpConfig,
        admission: Arc<Admission>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            config,
            admission,
            counters,
            websocket_buffers: websocket::BufferPools::default(),
            upgrade_buffers: tcp::BufferPools {
                small: Pool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
                large: Pool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
            },
        }
    }
}

impl fmt::Debug for HttpContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpContext")
            .field("config", &self.config)
            .field("admission", &self.admission)
            .field("stats", &self.counters.stats())
            .finish_non_exhaustive()
    }
}
