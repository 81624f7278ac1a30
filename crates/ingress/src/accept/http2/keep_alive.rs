//! Pings that keep a connection alive in middleboxes, and detect visitors that have left.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::forward::connection::Connection;

/// Interval of the checks for received bytes: reading the clock for every read would cost more.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Checks without received bytes, 20 to 30 seconds, after which a ping is sent.
const CHECKS_TO_PING: u32 = 2;

/// Checks without received bytes after which the visitor has left.
const CHECKS_TO_END: u32 = 4;

pub(super) struct KeepAlive {
    /// `None` when the visitor has left.
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    /// Checks since the last received bytes.
    silent: u32,
}

impl KeepAlive {
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            timer: Box::pin(sleep(CHECK_INTERVAL)),
            silent: 0,
        }
    }

    /// Ready once, when the visitor has left.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        while self.timer.as_mut().poll(cx).is_ready() {
            self.timer.as_mut().reset(Instant::now() + CHECK_INTERVAL);
            if connection.take_received() {
                self.silent = 0;
                continue;
            }
            self.silent += 1;
            match self.silent {
                CHECKS_TO_PING => {
                    // h2 sends no ping before the pong of the last one has been read. This fails only when the
                    // connection is over.
                    let _ = pings.poll_pong(cx);
                    let _ = pings.send_ping(Ping::opaque());
                }
                CHECKS_TO_END => {
                    self.pings = None;
                    return Poll::Ready(());
                }
                _ => {}
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io, sync::Arc};

    use tokio::{
        io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
        time::timeout,
    };

    use super::*;
    use crate::forward::request_meta::Scheme;

    /// Reports reads to the connection, as a visitor's socket does.
    struct Reports(DuplexStream, Arc<Connection>);

    impl AsyncRead for Reports {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read = Pin::new(&mut self.0).poll_read(cx, buffer);
            if read.is_ready() {
                self.1.on_received();
            }
            read
        }
    }

    impl AsyncWrite for Reports {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// The time at which an idle visitor that replies to pings for `replies_for` is detected as gone.
    async fn detected_gone(replies_for: Duration) -> Duration {
        let connection = Connection::new(([127, 0, 0, 1], 1).into(), 80, Scheme::Http);
        let connection = Arc::new(connection);
        let (near, far) = duplex(4096);
        let near = Reports(near, connection.clone());
        let accepting = h2::server::handshake(near);
        let (accepted, connected) = tokio::join!(accepting, h2::client::handshake(far));
        let (mut h2, (_requests, mut visitor)) = (accepted.unwrap(), connected.unwrap());
        let mut keep_alive = KeepAlive::new(h2.ping_pong());
        let start = Instant::now();
        let gone = poll_fn(|cx| {
            let gone = keep_alive.poll(cx, &connection);
            assert!(h2.poll_accept(cx).is_pending());
            if start.elapsed() < replies_for {
                assert!(Pin::new(&mut visitor).poll(cx).is_pending());
            }
            gone
        });
        timeout(Duration::from_secs(3_600), gone).await.unwrap();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn visitor_stays_as_long_as_it_replies_to_pings() {
        for replies_for in [Duration::ZERO, Duration::from_secs(600)] {
            let found = detected_gone(replies_for).await - replies_for;
            // The last pong may have arrived up to one ping interval before.
            let least = CHECK_INTERVAL * (CHECKS_TO_END - CHECKS_TO_PING);
            assert!((least..=5 * CHECK_INTERVAL).contains(&found), "{found:?}");
        }
    }
}
