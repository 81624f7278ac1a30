//! Subscribers of server-sent events: every event must be received once, in order, and unchanged.
//!
//! An event contains the time at which it was due at the service, by the clock of the service's machine. The clocks of
//! different machines are compared first, by the round-trip time; on one machine they are the same.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Ground;
use super::chunked::Chunked;
use super::http::Connection;
use crate::failure::{Failed, Failure};
use crate::response::{self, Head, Unreadable};
use crate::scenario::Load;
use crate::services::http::{Event, unix_us};
use crate::tally::Tally;
use crate::targets::Web;

/// The pause before a new subscription after a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// The number of bytes read at once. It is small because there are many subscribers.
const READ_BYTES: usize = 8 * 1024;

pub(super) struct Subscriber {
    web: Web,
    every_us: u64,
    bytes: u64,
    ground: Ground,
    tally: Arc<Tally>,
}

impl Subscriber {
    pub(super) fn new(web: &Web, load: &Load, ground: &Ground, tally: Arc<Tally>) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive rate; `as` saturates"
        )]
        let every_us = (1e6 / load.rate).round() as u64;
        Self {
            web: web.clone(),
            every_us: every_us.max(1),
            bytes: load.sizes.largest(),
            ground: ground.clone(),
            tally,
        }
    }

    /// Subscribes, and subscribes again after a failure, until all events of the window have been received or the grace
    /// is over.
    pub(super) async fn run(self) {
        let (begun, begun_us) = (Instant::now(), unix_us());
        let end = self.ground.end;
        let mut followed = None;
        let following = async {
            let mut resumed = false;
            while let Err(failed) = self.subscribe(begun_us, resumed, &mut followed).await {
                self.tally.failed(failed);
                resumed = true;
                // A new subscription would begin with the next event, which is after the end.
                if Instant::now() >= end {
                    return;
                }
                sleep(PAUSE).await;
            }
        };
        let _ = timeout_at(end + self.ground.grace, following).await;
        let left = followed.map_or_else(
            // The start is unknown, so all events that were due since the beginning count.
            || micros(end.duration_since(begun)) / self.every_us,
            |followed: Followed| followed.left(),
        );
        self.tally.failed_many(Failure::Unfinished, left);
    }

    /// Reads until the last event of the window has been received. `resumed` means that the events that were due before
    /// the first received event were missed.
    async fn subscribe(
        &self,
        begun_us: u64,
        resumed: bool,
        followed: &mut Option<Followed>,
    ) -> Result<(), Failed> {
        let mut connection = self
            .within(Connection::open(self.web.addr, READ_BYTES))
            .await?;
        let ahead_us = self.within(self.clocks(&mut connection)).await?;
        let followed = followed.get_or_insert_with(|| {
            let left = self.ground.end.duration_since(Instant::now());
            let there = |here_us: u64| here_us.saturating_add_signed(-ahead_us) / self.every_us;
            Followed {
                next: there(begun_us) + 1,
                last: there(unix_us() + micros(left)),
                resumed,
            }
        });
        followed.resumed |= resumed;
        let (host, every_us, bytes) = (&self.web.host, self.every_us, self.bytes);
        let request = format!(
            "GET /events?every_us={every_us}&bytes={bytes} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n"
        );
        connection.write(request.as_bytes()).await?;
        let (_, rest) = self.within(connection.head(chunked_head)).await?;
        let (mut chunked, mut text) = (Chunked::default(), Vec::new());
        chunked.take(connection.bytes(rest), &mut text)?;
        let mut first = true;
        // An event that is not received is a failure, and must not make the subscriber wait without limit.
        let patience = self.ground.timeout + Duration::from_micros(every_us);
        loop {
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let expected = (!first).then_some(followed.next);
                let event = self.check(&text[..end + 2], expected)?;
                if first {
                    let missed = followed.resume(event.number)?;
                    self.tally.failed_many(Failure::Cut, missed);
                    first = false;
                }
                text.drain(..end + 2);
                followed.next = event.number + 1;
                let late_us = unix_us()
                    .saturating_add_signed(-ahead_us)
                    .saturating_sub(event.due_us);
                let late = Duration::from_micros(late_us);
                self.tally.body_bytes.fetch_add(end as u64 + 2, Relaxed);
                let due = Instant::now().checked_sub(late);
                self.tally
                    .completed_after(due.unwrap_or(self.ground.begin), late);
                if followed.left() == 0 {
                    return Ok(());
                }
            }
            let more = timeout(patience, connection.more(usize::MAX))
                .await
                .unwrap_or_else(|_| Err(Failed::new(Failure::Timeout, "an event")))?;
            chunked.take(connection.bytes(more), &mut text)?;
        }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        timeout(self.ground.timeout, work)
            .await
            .unwrap_or_else(|_| Err(Failure::Timeout.into()))
    }

    /// How far the service's clock is behind the local clock, in microseconds; 0 if the round-trip time can explain the
    /// difference.
    async fn clocks(&self, connection: &mut Connection) -> Result<i64, Failed> {
        let request = format!("GET /clock HTTP/1.1\r\nhost: {}\r\n\r\n", self.web.host);
        let before = unix_us();
        connection.write(request.as_bytes()).await?;
        let (head, rest) = connection.head(response::parse).await?;
        let mut text = connection.bytes(rest).to_vec();
        while (text.len() as u64) < head.length && text.len() < READ_BYTES {
            let more = connection.more(usize::MAX).await?;
            text.extend_from_slice(connection.bytes(more));
        }
        let after = unix_us();
        let there = std::str::from_utf8(&text)
            .ok()
            .and_then(|it| it.parse().ok());
        let there: u64 = there.ok_or(Failure::Unreadable)?;
        Ok(ahead(before, there, after))
    }

    /// Parses the event of this text and checks it.
    fn check(&self, text: &[u8], expected: Option<u64>) -> Result<Event, Failed> {
        let event = parse(text).ok_or_else(|| Failed::new(Failure::Unreadable, "no event"))?;
        if let Some(expected) = expected
            && event.number != expected
        {
            return Err(out_of_order(event.number, expected));
        }
        let whole = Event {
            number: event.number,
            due_us: event.number.saturating_mul(self.every_us),
        };
        if text != whole.text(self.bytes) {
            return Err(Failed::new(Failure::WrongBytes, "in an event"));
        }
        Ok(event)
    }
}

/// The events that one subscriber has received over all its subscriptions.
#[derive(Debug)]
struct Followed {
    /// The number of the event that must be next.
    next: u64,
    /// The number of the last event that is due in the window.
    last: u64,
    /// The stream was running before this subscription, so that the events before its first event were missed.
    resumed: bool,
}

impl Followed {
    /// The number of events of the window that have not been received.
    fn left(&self) -> u64 {
        (self.last + 1).saturating_sub(self.next)
    }

    /// A subscription begins with event `number`: returns how many events were missed before it.
    fn resume(&mut self, number: u64) -> Result<u64, Failed> {
        if !std::mem::replace(&mut self.resumed, true) {
            return Ok(0);
        }
        if number < self.next {
            return Err(out_of_order(number, self.next));
        }
        Ok(self.left().min(number - self.next))
    }
}

fn out_of_order(number: u64, expected: u64) -> Failed {
    let gap = i128::from(number) - i128::from(expected);
    Failed::new(Failure::Sequence, format!("{gap:+} events"))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How far the local clock is ahead of a clock that showed `there` between two local readings.
fn ahead(before: u64, there: u64, after: u64) -> i64 {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let middle = signed(before.midpoint(after));
    let difference = middle - signed(there);
    let uncertain = signed(after.saturating_sub(before));
    if difference.abs() <= uncertain {
        0
    } else {
        difference
    }
}

fn parse(text: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(text).ok()?;
    let (id, data) = text.split_once('\n')?;
    let due = data.strip_prefix("data: ")?.split(' ').next()?;
    Some(Event {
        number: id.strip_prefix("id: ")?.parse().ok()?,
        due_us: due.parse().ok()?,
    })
}

/// Reads a head whose body is chunked: it must not have a length.
fn chunked_head(bytes: &[u8]) -> Result<Option<Head>, Unreadable> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Unreadable)?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or(Unreadable)?;
    let chunked = lines.any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding")
                && value.trim().eq_ignore_ascii_case("chunked")
        })
    });
    if status == 200 && !chunked {
        return Err(Unreadable);
    }
    Ok(Some(Head {
        status,
        length: 0,
        close: true,
        end: end + 4,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Kind, Limits, Mix};
    use crate::targets::Entries;

    fn subscriber() -> Subscriber {
        subscriber_of(([127, 0, 0, 1], 1).into(), Duration::ZERO)
    }

    fn subscriber_of(addr: std::net::SocketAddr, window: Duration) -> Subscriber {
        let web = Web {
            addr,
            host: "x".into(),
        };
        let load = Load {
            name: "sse".into(),
            kind: Kind::Sse,
            rate: 100.0,
            connections: 1,
            per_connection: None,
            streams: 1,
            sizes: Mix::new([(16, 1)]),
            limits: Limits::default(),
        };
        let now = Instant::now();
        let ground = Ground {
            entries: Entries::default(),
            begin: now,
            end: now + window,
            timeout: Duration::from_secs(1),
            grace: Duration::from_millis(500),
        };
        Subscriber::new(&web, &load, &ground, Arc::new(Tally::new().unwrap()))
    }

    #[test]
    fn missing_changed_and_doubled_events_are_counted_by_kind() {
        let subscriber = subscriber();
        let event = |number| Event {
            number,
            due_us: number * 10_000,
        };
        let text = event(7).text(16);
        assert_eq!(subscriber.check(&text, None), Ok(event(7)));
        assert_eq!(subscriber.check(&text, Some(7)), Ok(event(7)));
        for expected in [6, 8] {
            let failed = subscriber.check(&text, Some(expected)).unwrap_err();
            assert_eq!(failed.kind, Failure::Sequence);
        }
        let mut changed = text;
        changed[25] ^= 1;
        let failed = subscriber.check(&changed, None).unwrap_err();
        assert_eq!(failed.kind, Failure::WrongBytes);
        let failed = subscriber.check(b"data: x\n\n", None).unwrap_err();
        assert_eq!(failed.kind, Failure::Unreadable);
    }

    #[test]
    fn what_was_due_between_two_subscriptions_is_missed() {
        let mut followed = Followed {
            next: 5,
            last: 20,
            resumed: false,
        };
        // The events that were due while the first subscription was opened were not expected.
        assert_eq!(followed.resume(7), Ok(0));
        followed.next = 8;
        assert_eq!(followed.left(), 13);
        assert_eq!(followed.resume(8), Ok(0));
        assert_eq!(followed.resume(11), Ok(3));
        // No event is due after the end.
        assert_eq!(followed.resume(30), Ok(13));
        assert_eq!(followed.resume(7).unwrap_err().kind, Failure::Sequence);
        followed.next = 30;
        assert_eq!(followed.left(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stalled_service_never_sends_is_unfinished() {
        let stalled = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = stalled.local_addr().unwrap();
        let subscriber = subscriber_of(addr, Duration::from_secs(2));
        let tally = subscriber.tally.clone();
        subscriber.run().await;
        assert_eq!(tally.failures.of(Failure::Unfinished), 200);
    }

    #[test]
    fn clocks_differ_only_by_more_than_the_way_explains() {
        assert_eq!(ahead(1_000, 1_040, 1_100), 0);
        assert_eq!(ahead(1_000, 960, 1_100), 0);
        assert_eq!(ahead(10_000, 50, 10_100), 10_000);
        assert_eq!(ahead(1_000, 10_050, 1_100), -9_000);
    }

    #[test]
    fn the_head_of_a_stream_has_chunks() {
        let head = chunked_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx").unwrap();
        assert_eq!(head.map(|head| (head.status, head.end)), Some((200, 47)));
        assert_eq!(chunked_head(b"HTTP/1.1 200 OK\r\n"), Ok(None));
        assert!(chunked_head(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n").is_err());
        assert!(chunked_head(b"HTTP/1.1 503 -\r\n\r\n").unwrap().is_some());
    }
}
