//! Reports when the settings of a service of HTTP/2 have been received.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use adit_net::Tap;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::oneshot,
};

/// The start of a frame: length, type, flags, stream (RFC 9113, 4.1).
const FRAME_START: usize = 9;

/// Reports when the first frame has been received and processed. A service of HTTP/2 sends its settings first (RFC
/// 9113, 3.4); until they are received, neither the number of concurrent requests that it allows is known, nor whether
/// it uses HTTP/2 at all.
pub(super) struct SettingsWatch {
    /// `None` once the frame has been reported.
    first_frame: Option<FirstFrame>,
}

struct FirstFrame {
    start: [u8; FRAME_START],
    /// Bytes that have been received.
    seen: usize,
    received: oneshot::Sender<()>,
}

impl SettingsWatch {
    /// The channel completes with an error if the stream is dropped before the first frame.
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (received, receiver) = oneshot::channel();
        let first_frame = FirstFrame {
            start: [0; FRAME_START],
            seen: 0,
            received,
        };
        let this = Self {
            first_frame: Some(first_frame),
        };
        (this, receiver)
    }
}

impl FirstFrame {
    fn on_bytes(&mut self, bytes: &[u8]) {
        let gap = self.start.iter_mut().skip(self.seen);
        for (into, byte) in gap.zip(bytes) {
            *into = *byte;
        }
        self.seen = self.seen.saturating_add(bytes.len());
    }

    fn is_complete(&self) -> bool {
        let [a, b, c, ..] = self.start;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        self.seen >= FRAME_START + length
    }
}

impl Tap for SettingsWatch {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // h2 reads again when it has processed what it has read.
        if let Some(frame) = self.first_frame.take_if(|frame| frame.is_complete()) {
            let _ = frame.received.send(());
        }
        let before = buffer.filled().len();
        let result = Pin::new(stream).poll_read(cx, buffer);
        if let Some(frame) = &mut self.first_frame {
            frame.on_bytes(buffer.filled().get(before..).unwrap_or_default());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use adit_net::Tapped;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn the_first_frame_is_reported_by_the_read_behind_it() {
        let (mut service, socket) = tokio::io::duplex(64);
        let (watch, mut received) = SettingsWatch::new();
        let mut socket = Tapped::new(socket, watch);
        // A frame with two bytes of payload, and the start of another one.
        let frame = [0, 0, 2, 4, 0, 0, 0, 0, 0, 7, 7, 9, 9];
        let mut buffer = [0; 4];
        for piece in frame.chunks(4) {
            assert!(received.try_recv().is_err());
            service.write_all(piece).await.unwrap();
            assert_eq!(socket.read(&mut buffer).await.unwrap(), piece.len());
            assert_eq!(buffer.get(..piece.len()).unwrap(), piece);
        }
        service.write_all(b"more").await.unwrap();
        let _ = socket.read(&mut buffer).await.unwrap();
        received.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_socket_fails_the_report() {
        let (_service, socket) = tokio::io::duplex(64);
        let (watch, received) = SettingsWatch::new();
        let socket = Tapped::new(socket, watch);
        drop(socket);
        received.await.unwrap_err();
    }
}
