//! Bounds the frames without content of HTTP/2 (P-1.14) and WebSockets (P-9.7) on a connection.
//!
//! Pings, settings, windows, priorities, empty and unknown frames cost the receiver work and the sender next to
//! nothing. nginx ends a connection whose frames are mostly overhead (`http2 flood detected`), Envoy bounds them by
//! type. Here overhead is a debt in bytes: content in either direction pays it off, and so does time.

use thiserror::Error;
use tokio::time::Instant;

use crate::frames::FrameHead;

/// The debt that ends a connection: about 4,000 pings at once.
const LIMIT_BYTES: u64 = 64 * 1024;

/// The debt that is reduced each second: some 240 pings.
const PAID_BYTES_PER_SEC: u64 = 4 * 1024;

/// Content reduces the debt by a fourth of its size: a window for each 52 bytes of a response is allowed.
const CONTENT_PER_OVERHEAD: u64 = 4;

const FRAME_HEAD_BYTES: u64 = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The peer's frames are nearly all overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many frames without content")]
pub struct TooMuchOverhead;

/// The debt of one connection.
#[derive(Debug, Clone)]
pub struct Overhead {
    debt_bytes: u64,
    /// The time up to which the debt has been reduced.
    paid_until: Instant,
}

impl Overhead {
    /// The debt of a connection that begins now.
    #[expect(clippy::new_without_default, reason = "it reads the clock")]
    pub fn new() -> Self {
        Self {
            debt_bytes: 0,
            paid_until: Instant::now(),
        }
    }

    /// Counts a frame of HTTP/2 that was received.
    ///
    /// # Errors
    /// [`TooMuchOverhead`]: the connection is to be ended.
    pub fn on_frame(&mut self, head: FrameHead) -> Result<(), TooMuchOverhead> {
        let length = head.length as u64;
        if matches!(head.kind, DATA | HEADERS | CONTINUATION) && length > 0 {
            self.on_content(length);
            return Ok(());
        }
        self.on_overhead(FRAME_HEAD_BYTES + length)
    }

    /// Counts bytes that were received and are overhead.
    ///
    /// # Errors
    /// [`TooMuchOverhead`]: the connection is to be ended.
    pub fn on_overhead(&mut self, bytes: u64) -> Result<(), TooMuchOverhead> {
        self.debt_bytes = self.debt_bytes.saturating_add(bytes);
        if self.debt_bytes <= LIMIT_BYTES {
            return Ok(());
        }
        self.pay_by_time(Instant::now());
        if self.debt_bytes <= LIMIT_BYTES {
            Ok(())
        } else {
            Err(TooMuchOverhead)
        }
    }

    /// Counts content that was sent to the peer or received from it.
    pub const fn on_content(&mut self, bytes: u64) {
        self.debt_bytes = self.debt_bytes.saturating_sub(bytes / CONTENT_PER_OVERHEAD);
    }

    /// The clock is read only when the limit is reached: the reduction for the time before is not lost.
    fn pay_by_time(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.paid_until);
        self.paid_until = now;
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let paid = millis.saturating_mul(PAID_BYTES_PER_SEC) / 1000;
        self.debt_bytes = self.debt_bytes.saturating_sub(paid);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const PING: FrameHead = FrameHead { length: 8, kind: 6 };
    const WINDOW: FrameHead = FrameHead { length: 4, kind: 8 };
    const UNKNOWN: FrameHead = FrameHead {
        length: 0,
        kind: 0xfe,
    };

    fn until_refused(head: FrameHead) -> usize {
        let mut overhead = Overhead::new();
        (0..1_000_000)
            .find(|_| overhead.on_frame(head).is_err())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn p_1_14_a_flood_of_frames_without_content_is_refused() {
        assert_eq!(until_refused(PING), 65_536 / 17);
        assert_eq!(until_refused(UNKNOWN), 65_536 / 9);
        let empty_data = FrameHead {
            length: 0,
            kind: DATA,
        };
        assert_eq!(until_refused(empty_data), 65_536 / 9);
        let large = FrameHead {
            length: 16_384,
            kind: 0xfe,
        };
        assert_eq!(until_refused(large), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_with_a_window_for_each_kilobyte_goes_on() {
        let mut overhead = Overhead::new();
        for _ in 0..1_000_000 {
            overhead.on_content(1024);
            // One window for the stream and one for the connection.
            overhead.on_frame(WINDOW).unwrap();
            overhead.on_frame(WINDOW).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_a_second_goes_on_for_weeks() {
        let mut overhead = Overhead::new();
        for _ in 0..2_000_000 {
            advance(Duration::from_secs(1)).await;
            overhead.on_frame(PING).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_pays_at_its_rate_and_no_faster() {
        let mut overhead = Overhead::new();
        let pings_a_second = usize::try_from(PAID_BYTES_PER_SEC / 17).unwrap();
        for _ in 0..600 {
            advance(Duration::from_secs(1)).await;
            for _ in 0..pings_a_second {
                overhead.on_frame(PING).unwrap();
            }
        }
        let refused =
            (0..600).find(|_| (0..2 * pings_a_second).any(|_| overhead.on_frame(PING).is_err()));
        assert!(refused.is_some());
    }
}
