//! Counts frames of a WebSocket without content as overhead (P-9.7).

use adit_link::overhead::{Overhead, TooMuchOverhead};
use adit_websocket::FrameHead;

/// The overhead of a frame without content, besides its payload: a message on the link costs about as much as ten frames of
/// HTTP/2.
const FRAME_BYTES: u64 = 64;

/// The overhead that the peer of one socket has caused.
#[derive(Debug)]
pub(super) struct FrameDebt {
    overhead: Overhead,
    /// The current message, which is incomplete, has content.
    has_content: bool,
}

impl FrameDebt {
    pub(super) fn new() -> Self {
        Self {
            overhead: Overhead::new(),
            has_content: false,
        }
    }

    /// Counts a frame that was received, of which `here` bytes of payload were received with its head.
    pub(super) fn on_frame(
        &mut self,
        head: &FrameHead,
        here: usize,
    ) -> Result<(), TooMuchOverhead> {
        if head.is_control() {
            return self.overhead.on_overhead(FRAME_BYTES + head.length);
        }
        self.on_content(here);
        // Some libraries end each message with an empty fragment.
        let ends_content = self.has_content && head.fin;
        self.has_content = !head.fin && (self.has_content || head.length > 0);
        if head.length > 0 || ends_content {
            Ok(())
        } else {
            self.overhead.on_overhead(FRAME_BYTES)
        }
    }

    /// Counts payload of either direction.
    pub(super) const fn on_content(&mut self, bytes: usize) {
        self.overhead.on_content(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn frame(fin: bool, opcode: u8, length: u64) -> FrameHead {
        FrameHead {
            fin,
            rsv: 0,
            opcode,
            length,
        }
    }

    fn frames_until_refused(head: FrameHead) -> usize {
        let mut debt = FrameDebt::new();
        (0..10_000)
            .find(|_| debt.on_frame(&head, 0).is_err())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn p_9_7_frames_without_content_are_bounded() {
        assert_eq!(frames_until_refused(frame(true, 2, 0)), 1_024);
        assert_eq!(frames_until_refused(frame(false, 0, 0)), 1_024);
        assert_eq!(frames_until_refused(frame(true, 9, 0)), 1_024);
        assert_eq!(frames_until_refused(frame(true, 10, 64)), 512);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_fragments_that_end_a_message_are_free() {
        let mut debt = FrameDebt::new();
        for _ in 0..10_000 {
            debt.on_frame(&frame(false, 1, 1), 1).unwrap();
            debt.on_frame(&frame(true, 0, 0), 0).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn content_of_either_direction_pays_for_pings() {
        let mut debt = FrameDebt::new();
        for _ in 0..10_000 {
            debt.on_frame(&frame(true, 9, 4), 4).unwrap();
            debt.on_content(272);
        }
    }
}
