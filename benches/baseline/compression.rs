//! The rival of compression on the hop: one context of the library for each direction, flushed after each message. It
//! uses more history, and it uses memory as long as its request lasts.

use adit_link::Compression;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

/// The window size of both algorithms, as a power of two.
const WINDOW_LOG: u8 = 15;

/// Both ends of one direction.
pub enum Streaming {
    /// DEFLATE.
    Gzip(Box<(Compress, Decompress)>),
    /// Zstandard.
    Zstd(Box<(CCtx<'static>, DCtx<'static>)>),
}

impl Streaming {
    /// Creates the contexts of a new direction, at the levels that `adit-link` uses.
    ///
    /// # Panics
    /// Panics when the library rejects a parameter.
    #[must_use]
    #[allow(clippy::expect_used)] // a bench
    pub fn new(by: Compression) -> Self {
        match by {
            Compression::Gzip => {
                let level = flate2::Compression::new(2);
                let packs = Compress::new_with_window_bits(level, false, WINDOW_LOG);
                let unpacks = Decompress::new_with_window_bits(false, WINDOW_LOG);
                Self::Gzip(Box::new((packs, unpacks)))
            }
            Compression::Zstd => {
                let mut packs = CCtx::create();
                for parameter in [
                    CParameter::CompressionLevel(1),
                    CParameter::WindowLog(WINDOW_LOG.into()),
                ] {
                    packs.set_parameter(parameter).expect("a parameter");
                }
                Self::Zstd(Box::new((packs, DCtx::create())))
            }
        }
    }

    /// Compresses and flushes one message; returns its compressed length.
    ///
    /// # Panics
    /// Panics when the library fails.
    #[allow(clippy::expect_used, clippy::cast_possible_truncation)] // a bench
    pub fn compress(&mut self, payload: &[u8], out: &mut [u8]) -> usize {
        match self {
            Self::Gzip(contexts) => {
                let context = &mut contexts.0;
                let before = context.total_out();
                let packed = context.compress(payload, out, FlushCompress::Sync);
                packed.expect("room");
                (context.total_out() - before) as usize
            }
            Self::Zstd(contexts) => {
                let mut input = InBuffer::around(payload);
                let mut output = OutBuffer::around(out);
                let flush = ZSTD_EndDirective::ZSTD_e_flush;
                let left = contexts.0.compress_stream2(&mut output, &mut input, flush);
                assert_eq!(left, Ok(0), "room");
                output.pos()
            }
        }
    }

    /// Decompresses one message.
    ///
    /// # Panics
    /// Panics when the library fails.
    #[allow(clippy::expect_used, clippy::cast_possible_truncation)] // a bench
    pub fn decompress(&mut self, packed: &[u8], out: &mut [u8]) -> usize {
        match self {
            Self::Gzip(contexts) => {
                let context = &mut contexts.1;
                let before = context.total_out();
                let unpacked = context.decompress(packed, out, FlushDecompress::Sync);
                unpacked.expect("room");
                (context.total_out() - before) as usize
            }
            Self::Zstd(contexts) => {
                let mut input = InBuffer::around(packed);
                let mut output = OutBuffer::around(out);
                let unpacked = contexts.1.decompress_stream(&mut output, &mut input);
                unpacked.expect("room");
                output.pos()
            }
        }
    }

    /// The memory of zstd's contexts at both ends; the contexts of DEFLATE do not report their memory.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<usize> {
        match self {
            Self::Gzip(_) => None,
            Self::Zstd(contexts) => Some(contexts.0.sizeof() + contexts.1.sizeof()),
        }
    }
}
