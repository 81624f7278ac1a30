//! The settings of the connection between server and client, the same at both ends.

use std::time::Duration;

use adit_net::Stream;
use tokio::io::{AsyncRead, BufReader};

/// The largest DATA frame that this end accepts. The receiver's setting counts; it determines the throughput of large
/// transfers.
pub(super) const MAX_FRAME_BYTES: u32 = 256 * 1024;

/// HTTP/2's own windows must never be the limit: the credit of each request is the limit (section 4).
pub(super) const STREAM_WINDOW_BYTES: u32 = 16 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Only a second check: heartbeats on the data stream detect a dead peer first (P-6.5).
pub(super) const KEEPALIVE: Duration = Duration::from_secs(20);

/// The read size; h2's own is 8 KiB.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Unsent bytes that the kernel may hold: a heartbeat or a head cannot overtake them.
const NOT_SENT_LOW_WATER: u32 = 128 * 1024;

/// Sets the options of a tunnel connection: no delay, a bounded queue in the kernel. `TCP_USER_TIMEOUT` stays off: on
/// an unstable interface it ends live connections. Heartbeats detect a dead peer (P-6.5).
pub(super) fn prepare(stream: &Stream) {
    let set = stream
        .set_nodelay()
        .and_then(|()| stream.set_unsent_bytes(NOT_SENT_LOW_WATER))
        .and_then(|()| stream.set_keepalive());
    if let Err(error) = set {
        tracing::debug!(%error, "the options of a tunnel connection could not be set");
    }
}

/// Work of the connection in one turn. Frames that this end ignores or replies to at once have no other bound.
pub(super) const TURN_BYTES: usize = 2 * READ_BUFFER_BYTES;

pub(super) fn buffered<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_BUFFER_BYTES, stream)
}
