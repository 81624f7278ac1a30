//! Buffers that many WebSockets share.

use adit_codec::Pool;

/// The buffer for the first read after a pause, and for one write to a stream of HTTP/2.
pub(super) const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// The buffer for further reads while a payload keeps arriving, and for one masked write: one message (P-2.1).
pub(super) const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// Free buffers kept, of each size: more than one turn of a thread reads into.
const MAX_FREE_BUFFERS: usize = 64;

/// Buffers for reads and writes, shared by many WebSockets.
#[derive(Debug)]
pub struct BufferPools {
    pub(super) small: Pool,
    pub(super) large: Pool,
}

impl Default for BufferPools {
    fn default() -> Self {
        Self {
            small: Pool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
            large: Pool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
        }
    }
}
