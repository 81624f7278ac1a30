//! Bounds, buffers and counters that all services share.

use std::sync::Arc;

use adit_codec::Pool as BufferPool;
use adit_trace::Observer;

use crate::{config::Config, request::arrival::RequestOwner, stats::Counters};

/// Read first of an answer: head and small body.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Read while an answer keeps coming: a message's worth (P-2.1).
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that wait for use, of each size: more than are read into in one turn of a thread.
const MAX_FREE_BUFFERS: usize = 64;

/// What all services share.
pub(crate) struct Resources {
    pub(crate) config: Config,
    pub(crate) small: BufferPool,
    pub(crate) large: BufferPool,
    pub(crate) websockets: adit_splice::websocket::BufferPools,
    pub(crate) counters: Counters,
    /// Is told of each request.
    pub(crate) observer: Arc<dyn Observer>,
    /// Whose requests are of which nobody says it.
    pub(crate) owner: Arc<RequestOwner>,
}

impl Resources {
    pub(crate) fn new(config: Config, observer: Arc<dyn Observer>, owner: RequestOwner) -> Self {
        Self {
            config,
            small: BufferPool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
            large: BufferPool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
            websockets: adit_splice::websocket::BufferPools::default(),
            counters: Counters::default(),
            observer,
            owner: Arc::new(owner),
        }
    }
}
