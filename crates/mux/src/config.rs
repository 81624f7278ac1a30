//! The bounds of one data stream.

use adit_codec::Side;

/// The bounds of one data stream. Both ends of a stream must agree on `initial_window`; the rest is each end's own.
#[derive(Debug, Clone)]
pub struct Config {
    /// The side of this end, which decides the ids of the requests that it opens.
    pub side: Side,
    /// Credit of each direction of each request at its start, in bytes of cost (P-4.2).
    pub initial_window: u32,
    /// The largest window a request may grow to (P-4.6).
    pub max_window: u64,
    /// Concurrent requests of the peer (P-2.9).
    pub max_requests: usize,
    /// Requests that the peer may open and reset before payload or end of their response, from one [`crate::Mux::tick`]
    /// to the next; more is a *rapid reset* (CVE-2023-44487) and ends the stream. At least the number of requests that
    /// may be open, because all of them may be reset at once. `u32::MAX` for an end whose peer is trusted and forwards
    /// requests of others.
    pub max_resets_per_tick: u32,
    /// The largest payload of one message (P-2.1).
    pub max_payload: usize,
    /// Bytes of one request that wait to be sent; above this its sender waits.
    pub max_queued_per_request: u64,
    /// Bytes of all requests that wait to be sent; above this every sender of payload waits.
    pub max_queued: u64,
    /// Datagrams of one request that wait to be sent, in bytes of cost; above this the oldest are dropped (P-11.3). The
    /// datagrams of all requests together may use another `max_queued`.
    pub max_queued_datagrams: u64,
    /// Bytes passed to the transport at a time (P-5.2).
    pub max_batch: usize,
    /// Cost that each request sends in its turn (P-5.1).
    pub quantum: u64,
}

impl Config {
    /// The defaults of one end.
    pub const fn new(side: Side) -> Self {
        Self {
            side,
            initial_window: 32 * 1024,
            max_window: 4 << 20,
            max_requests: 10_000,
            // All open requests, and as many more that are opened after them.
            max_resets_per_tick: 20_000,
            max_payload: 64 * 1024,
            // Two messages: one is written while the next is read.
            max_queued_per_request: 128 * 1024,
            max_queued: 2 << 20,
            // What a busy flow sends in some milliseconds, which is longer than a thread waits for its turn. Older
            // datagrams are useless.
            max_queued_datagrams: 512 * 1024,
            max_batch: 256 * 1024,
            quantum: 32 * 1024,
        }
    }
}
