//! Compression of payload on the hop (section 13 of the protocol), with a history for each direction of a request.
//!
//! Holds: [`Compressor`] and [`Decompressor`], one for each compressed direction, and [`is_compressible`], which
//! recognizes content that is compressed already.
//!
//! Promises:
//! - each message is inflated with nothing but its history, so that no message waits for a later one;
//! - payload that does not shrink by a tenth is sent uncompressed, and a direction with much of it is not compressed
//!   for a while;
//! - a direction keeps at most [`HISTORY_BYTES`], at either end; the contexts of the libraries belong to the thread and
//!   keep no history (`docs/decisions/0009-compression-on-the-hop.md`);
//! - a decompressor takes no more memory than the message has announced, whatever its content.
//!
//! Cost: numbers in `docs/decisions/0009-compression-on-the-hop.md`, bench `compression`.
//!
//! Proof: `tests/it/compression.rs`, round trips with any cuts, bombs, and messages with wrong sizes.

mod content;
mod engine;
mod stats;

use adit_codec::{Compressed, Compression, MAX_INFLATED_BYTES, WebSocketFrame};
use bytes::Bytes;

pub use self::{content::is_compressible, stats::CompressionStats};
pub(crate) use stats::Gauge;

/// The size of a direction's history (P-13.3): one page contains what small messages have in common, and the library
/// reads it for each of them.
pub const HISTORY_BYTES: usize = 4096;

/// Shorter payload is not worth the ten bytes of its fields and the setup of the library.
const MIN_BYTES: usize = 256;

/// After this many messages in a row that did not shrink, the next ones are sent uncompressed.
const MAX_FUTILE: u8 = 8;

/// The bytes of payload that are sent uncompressed in a pause. After them, one message that does not shrink is
/// sufficient to pause again.
const PAUSE_BYTES: usize = 1 << 20;

/// The history of one direction, as the dictionary of the next message.
#[derive(Debug, Default)]
struct History {
    /// A zero byte first: without it, payload could look like a dictionary in zstd's own format.
    dictionary: Vec<u8>,
}

impl History {
    fn push(&mut self, payload: &[u8]) {
        let kept = &payload[payload.len().saturating_sub(HISTORY_BYTES)..];
        if self.dictionary.is_empty() {
            self.dictionary.reserve_exact(1 + HISTORY_BYTES);
            self.dictionary.push(0);
        }
        let over = (self.dictionary.len() - 1 + kept.len()).saturating_sub(HISTORY_BYTES);
        self.dictionary.drain(1..1 + over);
        self.dictionary.extend_from_slice(kept);
    }
}

/// Compresses the payload of one direction of one request.
#[derive(Debug)]
pub struct Compressor {
    by: Compression,
    history: History,
    futile: u8,
    /// Bytes that are to be sent without trying to compress them.
    pause: usize,
    /// The WebSocket message that is being sent is compressed by its endpoints.
    is_compressed: bool,
}

impl Compressor {
    /// Creates the compressor of a new direction.
    pub const fn new(by: Compression) -> Self {
        Self {
            by,
            history: History {
                dictionary: Vec::new(),
            },
            futile: 0,
            pause: 0,
            is_compressed: false,
        }
    }

    /// The next payload belongs to this frame. A message is compressed when RSV1 is set on its first frame (RFC 7692,
    /// 6); control frames may be in between.
    pub const fn on_frame(&mut self, frame: WebSocketFrame) {
        let (begins, is_control) = (frame.opcode != 0, frame.opcode >= 8);
        if begins && !is_control {
            self.is_compressed = frame.rsv & 4 != 0;
        }
    }

    /// Returns the compressed payload, or `None` if it is to be sent unchanged. After the message has been sent, call
    /// [`Compressor::sent`].
    pub fn compress(&mut self, payload: &[u8]) -> Option<(Compressed, Bytes)> {
        let is_worth = (MIN_BYTES..=MAX_INFLATED_BYTES).contains(&payload.len());
        if !is_worth || self.is_compressed {
            return None;
        }
        if self.pause > 0 {
            self.pause = self.pause.saturating_sub(payload.len());
            return None;
        }
        let most = payload.len() - payload.len() / 10;
        let Some(packed) = engine::compress(self.by, payload, &self.history.dictionary, most)
        else {
            self.futile += 1;
            if self.futile >= MAX_FUTILE {
                self.futile = MAX_FUTILE - 1;
                self.pause = PAUSE_BYTES;
            }
            return None;
        };
        self.futile = 0;
        let inflated_bytes = u32::try_from(payload.len()).ok()?;
        let by = self.by;
        Some((Compressed { by, inflated_bytes }, packed))
    }

    /// Called when the payload that [`Compressor::compress`] compressed last has been sent: the next message may refer
    /// to it.
    pub fn sent(&mut self, payload: &[u8]) {
        self.history.push(payload);
    }
}

/// The decompressed size does not match the announced size, or the payload cannot be decompressed (P-13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload does not decompress to the announced size")]
pub struct InflateError;

/// Inflates the payload of one direction of one request.
#[derive(Debug, Default)]
pub struct Decompressor {
    history: History,
}

impl Decompressor {
    /// The inflated payload, in the order in which it was sent.
    ///
    /// # Errors
    /// [`InflateError`]; the direction cannot continue.
    pub fn decompress(
        &mut self,
        compressed: Compressed,
        packed: &[u8],
    ) -> Result<Bytes, InflateError> {
        let length = compressed.inflated_len();
        if length > MAX_INFLATED_BYTES {
            return Err(InflateError);
        }
        let payload = engine::inflate(compressed.by, packed, &self.history.dictionary, length);
        let payload = payload.ok_or(InflateError)?;
        self.history.push(&payload);
        Ok(payload)
    }
}
