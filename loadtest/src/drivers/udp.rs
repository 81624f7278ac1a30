//! Datagrams that are echoed. Each contains its number and bytes that are derived from the number, so that a datagram
//! that was changed, or that belongs to another sender, is not taken for the expected one. A lost datagram is not an
//! error: it is counted separately.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::failure::{Failed, Failure};
use crate::pattern::Pattern;
use crate::scenario::Mix;
use crate::schedule::Schedule;
use crate::services::udp::BUFFER_BYTES;
use crate::tally::Tally;

/// The length of the number at the beginning of a datagram.
const NUMBER: usize = size_of::<u64>();

/// A load of datagrams.
pub(super) struct Flows {
    pub(super) entry: SocketAddr,
    pub(super) sizes: Mix,
    pub(super) response_within: Duration,
    /// A flow is replaced by a new one after this many datagrams.
    pub(super) per_flow: Option<u64>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) tally: Arc<Tally>,
}

/// A datagram that was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u64,
    due: Instant,
    came: bool,
}

/// One socket, and the datagrams that were sent on it and are still expected. The list is bounded: datagrams older than
/// the time limit are removed before the next one is sent.
struct Flow {
    socket: UdpSocket,
    waiting: Mutex<VecDeque<Sent>>,
}

impl Flow {
    async fn open(entry: SocketAddr) -> std::io::Result<Self> {
        let any: SocketAddr = match entry {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        // The system may set a smaller buffer.
        let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES);
        socket.connect(entry).await?;
        Ok(Self {
            socket,
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes datagrams whose time limit has passed, and counts them as lost.
    fn expire(&self, within: Duration, tally: &Tally) {
        let now = Instant::now();
        let mut waiting = self.waiting();
        while let Some(first) = waiting.front()
            && now.duration_since(first.due) >= within
        {
            if !first.came {
                tally.missed(first.due);
            }
            waiting.pop_front();
        }
    }
}

/// Creates a datagram with its number and its bytes.
fn datagram(number: u64, bytes: u64) -> Vec<u8> {
    let mut datagram = number.to_be_bytes().to_vec();
    let rest = bytes.saturating_sub(NUMBER as u64);
    datagram.extend_from_slice(Pattern::shared().piece(Pattern::place(number), rest));
    datagram
}

impl Flows {
    /// Sends on one flow after the other, until nothing is due and the time limit of the last datagram has passed.
    pub(super) async fn send(self: Arc<Self>) {
        let mut receiving = JoinSet::new();
        let mut open: Option<(Arc<Flow>, u64)> = None;
        while let Some(slot) = self.schedule.next().await {
            let (flow, sent) = match &mut open {
                Some(open) => open,
                None => match Flow::open(self.entry).await {
                    Ok(flow) => {
                        let flow = Arc::new(flow);
                        receiving.spawn(self.clone().receive(flow.clone()));
                        open.insert((flow, 0))
                    }
                    Err(error) => {
                        self.tally.failed(Failed::new(Failure::Connect, error));
                        continue;
                    }
                },
            };
            flow.expire(self.response_within, &self.tally);
            flow.waiting().push_back(Sent {
                number: slot.number,
                due: slot.due,
                came: false,
            });
            let bytes = datagram(slot.number, self.sizes.pick(slot.number));
            // The error belongs to an earlier datagram that was not delivered, which will be counted as lost.
            let _ = flow.socket.send(&bytes).await;
            *sent += 1;
            if self.per_flow.is_some_and(|most| *sent >= most) {
                // The receiver continues until the time limit of all datagrams has passed.
                open = None;
            }
            while receiving.try_join_next().is_some() {}
        }
        drop(open);
        while receiving.join_next().await.is_some() {}
    }

    /// Receives the echoes, until the flow is over and each datagram has been received or its time limit has passed.
    async fn receive(self: Arc<Self>, flow: Arc<Flow>) {
        let mut buffer = vec![0; 65_536];
        loop {
            tokio::select! {
                received = flow.socket.recv(&mut buffer) => match received {
                    Ok(length) => self.check(&flow, &buffer[..length]),
                    // As above, the error belongs to an earlier datagram.
                    Err(_) => sleep(Duration::from_millis(1)).await,
                },
                () = sleep(self.response_within) => {}
            }
            // The sender has the other reference.
            if Arc::strong_count(&flow) == 1 {
                flow.expire(self.response_within, &self.tally);
                if flow.waiting().iter().all(|sent| sent.came) {
                    return;
                }
            }
        }
    }

    fn check(&self, flow: &Flow, got: &[u8]) {
        let wrong = |text: &str| self.tally.failed(Failed::new(Failure::WrongBytes, text));
        let Some((number, rest)) = got.split_first_chunk::<NUMBER>() else {
            return wrong("a datagram too short");
        };
        let number = u64::from_be_bytes(*number);
        let length = self.sizes.pick(number).saturating_sub(NUMBER as u64);
        if rest.len() as u64 != length || !Pattern::shared().matches(Pattern::place(number), rest) {
            return wrong("another datagram");
        }
        let mut waiting = flow.waiting();
        // The sender uses numbers in increasing order.
        let place = waiting.binary_search_by_key(&number, |sent| sent.number);
        // A datagram that is not in the list was received after its time limit, and counts as lost.
        let Ok(place) = place else { return };
        let sent = &mut waiting[place];
        if std::mem::replace(&mut sent.came, true) {
            self.tally.doubled.fetch_add(1, Relaxed);
            return;
        }
        let due = sent.due;
        drop(waiting);
        self.tally.body_bytes.fetch_add(got.len() as u64, Relaxed);
        self.tally.completed(due);
    }
}

/// Sends datagrams until an echo is received.
///
/// # Errors
/// Returns an error when there is no socket, or when the echo has other bytes.
pub(super) async fn probe(entry: SocketAddr) -> Result<(), Failed> {
    let failed = |error| Failed::new(Failure::Connect, error);
    let flow = Flow::open(entry).await.map_err(failed)?;
    let sent = datagram(1, 64);
    let mut buffer = vec![0; 65_536];
    loop {
        let _ = flow.socket.send(&sent).await;
        tokio::select! {
            received = flow.socket.recv(&mut buffer) => match received {
                Ok(length) if buffer[..length] == sent => return Ok(()),
                Ok(_) => return Err(Failure::WrongBytes.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            },
            () = sleep(Duration::from_millis(100)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that handles datagrams by their number.
    async fn run(treat: impl Fn(u64, &mut Vec<u8>) -> usize + Send + 'static) -> Arc<Tally> {
        let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let entry = service.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut buffer = vec![0; 2_048];
            loop {
                let (length, from) = service.recv_from(&mut buffer).await.unwrap();
                let mut got = buffer[..length].to_vec();
                let number = u64::from_be_bytes(got[..8].try_into().unwrap());
                for _ in 0..treat(number, &mut got) {
                    service.send_to(&got, from).await.unwrap();
                }
            }
        });
        let tally = Arc::new(Tally::new().unwrap());
        let flows = Arc::new(Flows {
            entry,
            sizes: Mix::new([(64, 1), (200, 1)]),
            response_within: Duration::from_millis(300),
            per_flow: Some(7),
            schedule: Arc::new(Schedule::new(Some(1_000.0), Duration::from_millis(40))),
            tally: tally.clone(),
        });
        flows.send().await;
        serving.abort();
        tally
    }

    fn counts(tally: &Tally) -> (u64, u64, u64) {
        let load = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
        (
            load(&tally.requests),
            load(&tally.lost),
            load(&tally.doubled),
        )
    }

    #[tokio::test]
    async fn loss_and_doubles_are_counted_and_are_no_errors() {
        let tally = run(|number, _| match number {
            3 | 30 => 0,
            5 => 2,
            _ => 1,
        })
        .await;
        assert_eq!(counts(&tally), (38, 2, 1));
        assert_eq!(tally.failures.total(), 0);
    }

    #[tokio::test]
    async fn a_changed_datagram_is_an_error() {
        let tally = run(|number, bytes| {
            if number == 4 {
                bytes[60] ^= 1;
            }
            1
        })
        .await;
        assert_eq!(tally.failures.of(Failure::WrongBytes), 1);
        assert_eq!(counts(&tally), (39, 1, 0));
    }
}
