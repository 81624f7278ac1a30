//! Readers that read a body slowly. They use memory that a tunnel must bound, and must not delay others.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::http::Connection;
use super::{Ground, wrong_bytes};
use crate::failure::{Failed, Failure};
use crate::pattern::Pattern;
use crate::response;
use crate::tally::Tally;
use crate::targets::Web;

/// The interval in which a reader takes its portions.
pub(super) const TICK: Duration = Duration::from_millis(200);
const TICKS_PER_S: u64 = 5;

/// The receive buffer is small, so that the kernel does not receive data that the reader does not read.
const RECEIVE_BUFFER_BYTES: u32 = 4_096;

/// The pause after a failure.
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
    /// Reads one body after the other, until all portions of the window have been received or the grace is over.
    pub(super) async fn run(self) {
        let end = self.ground.end;
        // The time at which the awaited portion was due.
        let mut due = Instant::now();
        let reading = async {
            while due <= end {
                let fetched = self.fetch(&mut due).await;
                if let Err(failed) = fetched {
                    self.tally.failed(failed);
                    sleep(PAUSE).await;
                    // The failed portion is counted; the portions that were due since then had no reader.
                    let missed = portions(due + TICK, end.min(Instant::now()));
                    self.tally.failed_many(Failure::Cut, missed);
                    due = Instant::now();
                } else if due <= end {
                    sleep_until(due).await;
                }
            }
        };
        let _ = timeout_at(end + self.ground.grace, reading).await;
        self.tally
            .failed_many(Failure::Unfinished, portions(due, end));
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

    /// Reads one body, or the part of it that is due in the window.
    async fn fetch(&self, due: &mut Instant) -> Result<(), Failed> {
        let from = Pattern::place(self.number);
        let request = async {
            let mut connection = self.connect().await?;
            let (bytes, host) = (self.bytes, &self.web.host);
            let request = format!(
                "GET /bytes/{bytes}?from={from} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            );
            connection.write(request.as_bytes()).await?;
            let (head, rest) = connection.head(response::parse).await?;
            Ok::<_, Failed>((connection, head, rest))
        };
        let (mut connection, head, mut piece) = timeout(self.ground.timeout, request)
            .await
            .unwrap_or_else(|_| Err(Failure::Timeout.into()))?;
        let portion = (self.bytes_per_s / TICKS_PER_S).max(1);
        let (mut got, mut left) = (0, portion);
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
                self.tally.completed(*due);
                *due += TICK;
                if got == head.length || *due > self.ground.end {
                    return Ok(());
                }
                sleep_until(*due).await;
                left = portion;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            piece = timeout(self.ground.timeout, connection.more(most))
                .await
                .unwrap_or_else(|_| Err(Failed::new(Failure::Timeout, "the next bytes")))?;
        }
    }
}

/// The number of portions that are due from `first` to `last`.
fn portions(first: Instant, last: Instant) -> u64 {
    match last.checked_duration_since(first) {
        Some(time) => {
            u64::try_from(time.as_micros() / TICK.as_micros()).unwrap_or(u64::MAX - 1) + 1
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::targets::Entries;

    #[test]
    fn portions_are_counted_with_both_ends() {
        let now = Instant::now();
        assert_eq!(portions(now, now), 1);
        assert_eq!(portions(now, now + TICK), 2);
        assert_eq!(portions(now, now + 3 * TICK / 2), 2);
        assert_eq!(portions(now + TICK, now), 0);
    }

    /// Reads for two seconds from a service that accepts and sends nothing: eleven portions are due, and all are
    /// counted.
    async fn stalled(grace: Duration) -> Arc<Tally> {
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tally = Arc::new(Tally::new().unwrap());
        let now = Instant::now();
        let reader = Reader {
            web: Web {
                addr: service.local_addr().unwrap(),
                host: "x".into(),
            },
            number: 0,
            bytes: 10_000,
            bytes_per_s: 1_000,
            ground: Ground {
                entries: Entries::default(),
                begin: now,
                end: now + Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                grace,
            },
            tally: tally.clone(),
        };
        reader.run().await;
        tally
    }

    #[tokio::test(start_paused = true)]
    async fn portions_that_a_stalled_service_owes_are_errors() {
        let failures = &stalled(Duration::from_secs(5)).await.failures;
        assert_eq!(failures.to_string(), "9 cut, 2 timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn portions_that_are_owed_at_the_end_are_unfinished() {
        let failures = &stalled(Duration::ZERO).await.failures;
        assert_eq!(failures.to_string(), "5 cut, 5 unfinished, 1 timeout");
    }
}
