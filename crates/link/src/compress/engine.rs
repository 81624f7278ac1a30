//! The contexts of the libraries: one of each kind per thread, created when first needed, reset before each message.

use std::cell::RefCell;

use adit_codec::Compression;
use bytes::Bytes;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use zstd_safe::{CCtx, DCtx};

/// The fastest level with its own codes: on the data threads a message must not delay the others.
const GZIP_LEVEL: u32 = 2;

/// The fastest level.
const ZSTD_LEVEL: i32 = 1;

#[derive(Default)]
struct Engine {
    deflate: Option<Compress>,
    inflate: Option<Decompress>,
    pack_zstd: Option<CCtx<'static>>,
    unpack_zstd: Option<DCtx<'static>>,
    /// The output buffer. Compressed payload is copied from it, so that it takes no more memory than necessary while it
    /// waits.
    out: Vec<u8>,
}

thread_local! {
    static ENGINE: RefCell<Engine> = RefCell::default();
}

/// An upper bound of the size of DEFLATE output for `length` bytes: the nine bits of a literal in the fixed code, and
/// its framing.
const fn deflate_bound(length: usize) -> usize {
    length + length / 8 + 64
}

/// Compresses one message; `None` when it does not fit into `most` bytes.
pub(super) fn compress(
    by: Compression,
    payload: &[u8],
    dictionary: &[u8],
    most: usize,
) -> Option<Bytes> {
    ENGINE.with_borrow_mut(|engine| {
        let mut out = std::mem::take(&mut engine.out);
        let room = match by {
            // zlib-rs 0.6.8 panics when its output is full, so the output has room for any result.
            Compression::Gzip => deflate_bound(payload.len()),
            Compression::Zstd => most,
        };
        if out.len() < room {
            out.resize(room, 0);
        }
        let written = match by {
            Compression::Gzip => engine.deflate(payload, dictionary, &mut out[..room]),
            Compression::Zstd => engine.pack_zstd(payload, dictionary, &mut out[..room]),
        };
        let packed = written
            .filter(|&length| length <= most)
            .and_then(|length| out.get(..length).map(Bytes::copy_from_slice));
        engine.out = out;
        packed
    })
}

/// Inflates one message; `None` when it is not one of `length` bytes.
pub(super) fn inflate(
    by: Compression,
    packed: &[u8],
    dictionary: &[u8],
    length: usize,
) -> Option<Bytes> {
    let mut payload = vec![0; length];
    let written = ENGINE.with_borrow_mut(|engine| match by {
        Compression::Gzip => engine.inflate(packed, dictionary, &mut payload),
        Compression::Zstd => engine.unpack_zstd(packed, dictionary, &mut payload),
    });
    (written == Some(length)).then(|| payload.into())
}

impl Engine {
    fn deflate(&mut self, payload: &[u8], dictionary: &[u8], out: &mut [u8]) -> Option<usize> {
        let level = flate2::Compression::new(GZIP_LEVEL);
        let context = self
            .deflate
            .get_or_insert_with(|| Compress::new(level, false));
        context.reset();
        if !dictionary.is_empty() {
            context.set_dictionary(dictionary).ok()?;
        }
        let status = context.compress(payload, out, FlushCompress::Finish);
        let whole = matches!(status, Ok(Status::StreamEnd));
        usize::try_from(context.total_out()).ok().filter(|_| whole)
    }

    fn inflate(&mut self, packed: &[u8], dictionary: &[u8], out: &mut [u8]) -> Option<usize> {
        let context = self.inflate.get_or_insert_with(|| Decompress::new(false));
        context.reset(false);
        if !dictionary.is_empty() {
            context.set_dictionary(dictionary).ok()?;
        }
        let status = context.decompress(packed, out, FlushDecompress::Finish);
        // No bytes may follow the message.
        let whole =
            matches!(status, Ok(Status::StreamEnd)) && context.total_in() == packed.len() as u64;
        usize::try_from(context.total_out()).ok().filter(|_| whole)
    }

    fn pack_zstd(&mut self, payload: &[u8], dictionary: &[u8], out: &mut [u8]) -> Option<usize> {
        if self.pack_zstd.is_none() {
            self.pack_zstd = CCtx::try_create();
        }
        let context = self.pack_zstd.as_mut()?;
        let written = context.compress_using_dict(out, payload, dictionary, ZSTD_LEVEL);
        written.ok()
    }

    fn unpack_zstd(&mut self, packed: &[u8], dictionary: &[u8], out: &mut [u8]) -> Option<usize> {
        if self.unpack_zstd.is_none() {
            self.unpack_zstd = DCtx::try_create();
        }
        let context = self.unpack_zstd.as_mut()?;
        context.decompress_using_dict(out, packed, dictionary).ok()
    }
}
