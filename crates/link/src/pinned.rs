//! Counts the memory of received frames that slices keep alive.
//!
//! A slice of a frame keeps the whole frame's memory. Each frame is wrapped once so that a gauge counts the bytes of
//! every frame of which a slice is still alive. Small slices of large frames are copied when they have to wait; when
//! the gauge is high, all slices are copied (P-4.7).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Shorter slices of a backlogged request are copied: the copy is cheaper than the memory that they would pin.
const SMALL_SLICE: usize = 4096;

/// Above this much pinned memory, everything is copied. This includes a frame with one slice: the transport cuts frames
/// from its own read buffers, of which a thousand stalled requests pin one and a half times the size of their payload.
const HIGH_WATER: usize = 4 << 20;

struct Frame {
    bytes: Bytes,
    pinned: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pinned.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Wraps a frame so that `pinned` counts it until its last slice is dropped.
pub(crate) fn pin(bytes: Bytes, pinned: &Arc<AtomicUsize>) -> Bytes {
    pinned.fetch_add(bytes.len(), Ordering::Relaxed);
    Bytes::from_owner(Frame {
        bytes,
        pinned: pinned.clone(),
    })
}

/// The slice itself, or a copy if the slice would pin much more memory than its size.
pub(crate) fn hold(
    slice: Bytes,
    frame_bytes: usize,
    backlogged: bool,
    pinned: &AtomicUsize,
) -> Bytes {
    let pins_more = slice.len() < frame_bytes / 2;
    let small_and_waiting = backlogged && slice.len() < SMALL_SLICE;
    if (pins_more && small_and_waiting) || pinned.load(Ordering::Relaxed) > HIGH_WATER {
        Bytes::copy_from_slice(&slice)
    } else {
        slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_until_its_last_slice_is_dropped() {
        let pinned = Arc::new(AtomicUsize::new(0));
        let frame = pin(Bytes::from(vec![1; 1000]), &pinned);
        let slice = frame.slice(10..20);
        drop(frame);
        assert_eq!(pinned.load(Ordering::Relaxed), 1000);
        drop(slice);
        assert_eq!(pinned.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn waiting_small_slices_are_copied() {
        let low = AtomicUsize::new(0);
        let high = AtomicUsize::new(HIGH_WATER + 1);
        let frame = Bytes::from(vec![1; 100_000]);
        let copied = |length, backlogged, pinned: &AtomicUsize| {
            let slice = frame.slice(..length);
            let held = hold(slice.clone(), frame.len(), backlogged, pinned);
            assert_eq!(held, slice);
            held.as_ptr() != slice.as_ptr()
        };
        assert!(!copied(100, false, &low), "it leaves at once");
        assert!(copied(100, true, &low));
        assert!(!copied(SMALL_SLICE, true, &low));
        assert!(copied(SMALL_SLICE, false, &high));
        assert!(!copied(50_000, true, &low), "a copy would save nothing");
        assert!(
            copied(100_000, false, &high),
            "a frame pins more than its bytes"
        );
    }
}
