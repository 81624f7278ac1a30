//! Compression of payload on the hop (section 13 of the protocol): what a direction of a request remembers for it.
//!
//! Holds: [`Compressor`] and [`Decompressor`], one for each compressed direction, and [`is_compressible`], which knows what is
//! better left alone.
//!
//! Promises:
//! - each message is inflated by itself and its history, so that nothing waits for a message that has not come;
//! - what does not shrink by a tenth is not compressed, and who sends much of it is not tried for a while;
//! - a direction remembers [`HISTORY_BYTES`] and no more, at either end; the contexts of the libraries belong to the
//!   thread and remember nothing (`docs/decisions/0009-compression-on-the-hop.md`);
//! - an decompressor takes no more memory than the message has announced, whatever it holds.
//!
//! Cost: numbers in `docs/decisions/0009-compression-on-the-hop.md`, bench `compression`.
//!
//! Proof: `tests/it/compression.rs`, round trips with any cuts, bombs, and messages that lie.

mod content;
mod engine;
mod stats;

use adit_codec::{Compressed, Compression, MAX_INFLATED_BYTES, WebSocketFrame};
use bytes::Bytes;

pub use self::{content::is_compressible, stats::CompressionStats};
pub(crate) use stats::Gauge;

/// What a direction remembers of what crossed compressed in it (P-13.3): a page holds what small messages have in common,
/// and is read into the library's tables for each of them.
pub const HISTORY_BYTES: usize = 4096;

/// Shorter payload is not worth its message's ten bytes and the library's setting up.
const MIN_BYTES: usize = 256;

/// Messages in a row that did not shrink, before the next ones are not even tried.
const MAX_FUTILE: u8 = 8;

/// Payload that is not tried then. After it, one message that does not shrink is enough.
const PAUSE_BYTES: usize = 1 << 20;

/// The last bytes that crossed compressed in one direction, as the dictionary of the next.
#[derive(Debug, Default)]
struct History {
    /// A zero first: without it, payload could pass for a dictionary in zstd's own format.
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
    /// Payload that still goes untried.
    pause: usize,
    /// The WebSocket message that is being sent is compressed by those who speak it.
    is_compressed: bool,
}

impl Compressor {
    /// At the start of a direction.
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

    /// The next payload belongs to this frame. A message is compressed when RSV1 stands on its first frame (RFC 7692, 6);
    /// control frames may come in between.
    pub const fn on_frame(&mut self, frame: WebSocketFrame) {
        let (begins, is_control) = (frame.opcode != 0, frame.opcode >= 8);
        if begins && !is_control {
            self.is_compressed = frame.rsv & 4 != 0;
        }
    }

    /// The payload compressed; `None` when it is to be sent as it is. After the message has been sent, call
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

    /// What [`Compressor::compress`] compressed last has been sent: the next message may refer to it.
    pub fn sent(&mut self, payload: &[u8]) {
        self.history.push(payload);
    }
}

/// The decompressed size does not match the announced size, or the payload cannot be decompressed (P-13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload that does not inflate to what was announced")]
pub struct InflateError;

/// Inflates the payload of one direction of one request.
#[derive(Debug, Default)]
pub struct Decompressor {
    history: History,
}

impl Decompressor {
    /// Payload as it was, in the order in which it was sent.
    ///
    /// # Errors
    /// [`InflateError`]; the direction cannot go on.
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
