//! Settings, buffers and counters that all services of an [`Egress`](crate::Egress) use.

use std::sync::Arc;

use adit_codec::Pool as BufferPool;
use adit_splice::{tcp::BufferPools, websocket};
use adit_trace::Observer;

use crate::{config::Config, stats::Counters};

use super::origin::RequestOwner;

/// Buffers for the first read of a response: head and small body.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Buffers for further reads of a response: the payload of one message (P-2.1).
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// The number of unused buffers that are kept of each size: more than the reads of one turn need.
const MAX_FREE_BUFFERS: usize = 64;

/// Settings, buffers and counters that all services use.
pub(crate) struct Resources {
    pub(crate) config: Config,
    pub(crate) buffers: BufferPools,
    pub(crate) websockets: Arc<websocket::BufferPools>,
    pub(crate) counters: Arc<Counters>,
    /// Receives the record of each request.
    pub(crate) observer: Arc<dyn Observer>,
    /// The owner of requests whose origin names none.
    pub(crate) owner: Arc<RequestOwner>,
}

impl Resources {
    pub(crate) fn new(config: Config, observer: Arc<dyn Observer>, owner: RequestOwner) -> Self {
        Self {
            config,
            buffers: BufferPools {
                small: BufferPool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
                large: BufferPool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
            },
            websockets: Arc::default(),
            counters: Arc::default(),
            observer,
            owner: Arc::new(owner),
        }
    }

    /// Resources with the same buffers and counters and other settings.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        Self {
            config,
            buffers: self.buffers.clone(),
            websockets: self.websockets.clone(),
            counters: self.counters.clone(),
            observer: self.observer.clone(),
            owner: self.owner.clone(),
        }
    }
}
