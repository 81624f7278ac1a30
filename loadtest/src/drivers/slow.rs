//! Readers that take a body at a trickle. They hold what a tunnel must bound, and must delay nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::http::Connection;
use super::{Ground, wrong_bytes};
use crate::answer;
use crate::failure::{Failed, Failure};
use crate::pattern::Pattern;
use crate::tally::Tally;
use crate::targets::Web;

/// How often a reader takes its next portion.
const TICK: Duration = Duration::from_millis(200);
const TICKS_PER_S: u64 = 5;

/// The kernel must not take for the reader what the reader does not.
const RECEIVE_BUFFER_BYTES: u32 = 4_096;

/// Whoever failed asks again after this.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Reader {
    pub(super) web: Web,
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) bytes_per_s: u64,
    pub(super) ground: Ground,
    pub(super) tally: Arc<Tally>,
}

impl Reader {
    /// One body after the other, until the window is over.
    pub(super) async fn run(self) {
        let end = self.ground.end;
        // A body that is not finished then was not meant to be.
        let _ = timeout_at(end, async {
            loop {
                if let Err(failed) = self.fetch().await {
                    self.tally.failed(failed);
                    sleep(PAUSE).await;
                }
            }
        })
        .await;
    }

    async fn connect(&self) -> Result<Connection, Failed> {
        let failed = |error| Failed::new(Failure::Connect, error);
        let socket = if self.web.addr.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.map_err(failed)?;
        socket
            .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
            .map_err(failed)?;
        let stream = socket.connect(self.web.addr).await.map_err(failed)?;
        Ok(Connection::on(stream, 16 * 1024))
    }

    async fn fetch(&self) -> Result<(), Failed> {
        let from = Pattern::place(self.number);
        let asked = async {
            let mut connection = self.connect().await?;
            let (bytes, host) = (self.bytes, &self.web.host);
            let request = format!(
                "GET /bytes/{bytes}?from={from} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            );
            connection.write(request.as_bytes()).await?;
            let (head, rest) = connection.head(answer::parse).await?;
            Ok::<_, Failed>((connection, head, rest))
        };
        let (mut connection, head, mut piece) = timeout(self.ground.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(Failure::Timeout.into()))?;
        let portion = (self.bytes_per_s / TICKS_PER_S).max(1);
        let (mut got, mut due, mut left) = (0, Instant::now(), portion);
        loop {
            let bytes = connection.bytes(piece);
            let after = got + bytes.len() as u64;
            if after > head.length || !Pattern::shared().matches(from + got, bytes) {
                return Err(wrong_bytes(&self.web, "read slowly"));
            }
            self.tally.body_bytes.fetch_add(bytes.len() as u64, Relaxed);
            got = after;
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 || got == head.length {
                self.tally.answered(due);
                if got == head.length {
                    return Ok(());
                }
                due += TICK;
                sleep_until(due).await;
                left = portion;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            piece = timeout(self.ground.timeout, connection.more(most))
                .await
                .unwrap_or_else(|_| Err(Failed::new(Failure::Timeout, "the next bytes")))?;
        }
    }
}
