//! Measures whether peers that stall or flood delay others: the same paced load is measured alone, and together with
//! such peers.
//!
//! The load is an open loop: each message has a time at which it is due, and its latency is measured from then. The
//! phases alternate within one run of the tunnel, and the medians over the rounds are compared.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::SinkExt;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::flood::{self, Flood};
use super::visitor::{self, Entries, HTTP_HOST, Protocol, WEBSOCKET_HOST, converse, other};
use crate::generator::{self, Plan};
use crate::pattern::Pattern;

/// The number of stalled peers of each protocol.
pub(crate) const STALLED: usize = 8;

/// The number of bytes that each stalled peer requests.
const LARGE: u64 = 64 << 20;

/// The number of long-lived conversations of each protocol.
const CONVERSATIONS: u32 = 4;

/// The length of a message.
const BYTES: u64 = 200;

/// How long the effect of the peers may take to appear, and how long the cleanup after them may take.
const SETTLE: Duration = Duration::from_secs(1);

/// The time that a flood may add to the 99th percentile.
const FLOOD_ADDS_US: u64 = 100_000;

/// A datagram that has not been echoed within this time is lost, and the next one is sent.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// The time that a failed message counts as.
pub(crate) const FOR_EVER_US: u64 = 3_600_000_000;

/// How much is sent, and how long each phase takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Messages of each protocol per second.
    pub(crate) per_second: u32,
    pub(crate) duration: Duration,
}

/// 99th percentiles in microseconds, by protocol.
type P99 = BTreeMap<&'static str, u64>;

/// The peers that run together with the load.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Stalled,
    Flood(Flood),
}

impl Beside {
    fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Stalled).chain(Flood::ALL.map(Self::Flood))
    }

    fn name(self) -> String {
        match self {
            Self::Stalled => format!("{STALLED} stalled peers of each protocol"),
            Self::Flood(flood) => format!("{} x {}", flood.connections, flood.name),
        }
    }

    /// The highest allowed latency, where `alone_us` is the latency without peers.
    const fn limit_us(self, alone_us: u64) -> u64 {
        match self {
            Self::Stalled => 2 * alone_us + 5_000,
            Self::Flood(_) => alone_us + FLOOD_ADDS_US,
        }
    }
}

/// The result of the load together with some peers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    /// The name of the peers.
    pub(crate) beside: String,
    /// The 99th percentile of each protocol.
    pub(crate) p99_us: P99,
    /// The result of the flood, if the peers flood.
    pub(crate) flood: Option<flood::Outcome>,
    /// Whether the latency of every protocol is within its limit.
    pub(crate) holds: bool,
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Isolation {
    /// The 99th percentile of each protocol alone.
    pub(crate) alone_us: P99,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Isolation {
    /// Whether all promises were kept.
    pub(crate) fn holds(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.holds)
    }
}

/// Measures `rounds` times and returns a verdict for each kind of peers whose name contains `only`.
///
/// # Errors
/// Returns an error when a conversation failed, or received wrong bytes.
pub(crate) async fn measure(
    entries: &Entries,
    only: &str,
    rounds: usize,
    pace: Pace,
) -> io::Result<Isolation> {
    let kinds: Vec<_> = Beside::all()
        .filter(|kind| kind.name().contains(only))
        .collect();
    let mut alone = Vec::new();
    let mut beside: Vec<Vec<P99>> = kinds.iter().map(|_| Vec::new()).collect();
    let mut floods: Vec<Option<flood::Outcome>> = kinds.iter().map(|_| None).collect();
    for round in 0..rounds {
        let p99 = load(entries, pace).await?;
        anstream::eprintln!("round {}  alone: {p99:?}", round + 1);
        alone.push(p99);
        for ((kind, beside), outcome) in kinds.iter().zip(&mut beside).zip(&mut floods) {
            let (p99, flood) = load_beside(*kind, entries, pace).await.map_err(|error| {
                io::Error::new(error.kind(), format!("beside {}: {error}", kind.name()))
            })?;
            anstream::eprintln!("round {}  {}: {p99:?}, {flood:?}", round + 1, kind.name());
            beside.push(p99);
            *outcome = flood;
            sleep(SETTLE).await;
        }
    }
    let alone_us = medians(&alone);
    let verdicts = kinds.iter().zip(beside).zip(floods);
    let verdicts = verdicts.map(|((kind, beside), flood)| {
        let p99_us = medians(&beside);
        let within = |(protocol, p99): (&&str, &u64)| {
            *p99 <= kind.limit_us(alone_us.get(protocol).copied().unwrap_or_default())
        };
        Verdict {
            beside: kind.name(),
            holds: p99_us.iter().all(within),
            p99_us,
            flood,
        }
    });
    Ok(Isolation {
        verdicts: verdicts.collect(),
        alone_us,
    })
}

/// Measures the load together with the given peers, and returns the result of their flood if they flood.
async fn load_beside(
    kind: Beside,
    entries: &Entries,
    pace: Pace,
) -> io::Result<(P99, Option<flood::Outcome>)> {
    match kind {
        Beside::Stalled => {
            let _stalled = stall(entries).await?;
            sleep(SETTLE).await;
            Ok((load(entries, pace).await?, None))
        }
        Beside::Flood(flood) => {
            let flood = flood.start(entries)?;
            sleep(SETTLE).await;
            let p99 = load(entries, pace).await?;
            Ok((p99, Some(flood.outcome())))
        }
    }
}

/// The 99th percentile, where a failed message counts as [`FOR_EVER_US`].
fn p99_with_failures(latencies: &Histogram<u64>, failed: u64) -> u64 {
    let completed = latencies.len();
    let wanted = (completed + failed) as f64 * 0.99;
    if wanted > completed as f64 {
        return FOR_EVER_US;
    }
    latencies.value_at_quantile(wanted / completed.max(1) as f64)
}

/// The median of each protocol.
fn medians(rounds: &[P99]) -> P99 {
    let mut all: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for (protocol, p99) in rounds.iter().flatten() {
        all.entry(*protocol).or_default().push(*p99);
    }
    let median = |(protocol, mut values): (_, Vec<u64>)| {
        values.sort_unstable();
        (
            protocol,
            values.get(values.len() / 2).copied().unwrap_or_default(),
        )
    };
    all.into_iter().map(median).collect()
}

/// The 99th percentile of each protocol under the paced load of all of them.
async fn load(entries: &Entries, pace: Pace) -> io::Result<P99> {
    let Pace {
        per_second,
        duration,
    } = pace;
    let plan = Plan {
        target: entries.http,
        host: HTTP_HOST.to_owned(),
        path: "/small".to_owned(),
        connections: CONVERSATIONS as usize,
        new_connection: false,
        rate: Some(per_second.into()),
        warm_up: Duration::from_millis(200),
        duration,
        read_bytes: 64 * 1024,
        progress: false,
    };
    let mut talking = JoinSet::new();
    for protocol in Protocol::ALL {
        for number in 0..CONVERSATIONS {
            talking.spawn(talk(protocol, entries.clone(), number, pace));
        }
    }
    let http = generator::run(plan, || ()).await.map_err(other)?;
    let failed = http.failures.total();
    if failed > 0 {
        anstream::eprintln!("http: {}", http.failures);
    }
    let mut all = BTreeMap::new();
    while let Some(talked) = talking.join_next().await {
        let (protocol, histogram) = talked.map_err(other)??;
        match all.entry(protocol) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(histogram)),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().add(&histogram).map_err(other)?;
            }
        }
    }
    let mut p99 = P99::from([("http", p99_with_failures(&http.latency_us, failed))]);
    p99.extend(
        all.into_iter()
            .map(|(protocol, histogram)| (protocol.name(), histogram.value_at_quantile(0.99))),
    );
    Ok(p99)
}

/// Runs one conversation at its share of the rate.
async fn talk(
    protocol: Protocol,
    entries: Entries,
    number: u32,
    pace: Pace,
) -> io::Result<(Protocol, Histogram<u64>)> {
    let message = Pattern::shared().piece(u64::from(number), BYTES);
    let every = Duration::from_secs(1) * CONVERSATIONS / pace.per_second.max(1);
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).map_err(other)?;
    let (mut sender, mut receiver) = converse(protocol, &entries, message.len()).await?;
    let begun = Instant::now();
    let mut due = begun + every * number / CONVERSATIONS;
    while due.duration_since(begun) < pace.duration {
        sleep_until(due).await;
        sender.send(message).await?;
        let same = match timeout(LOST_AFTER, receiver.receive(message)).await {
            Ok(same) => same?,
            // The latency of a lost datagram is the time limit.
            Err(_) if protocol == Protocol::Udp => true,
            Err(_) => receiver.receive(message).await?,
        };
        if !same {
            return Err(io::Error::other(format!(
                "{}: other bytes than were sent",
                protocol.name()
            )));
        }
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        histogram.saturating_record(micros.max(1));
        due += every;
    }
    Ok((protocol, histogram))
}

/// Connections that requested much and read nothing; they only have to stay open.
type Stalled = Vec<Box<dyn Send>>;

async fn stall(entries: &Entries) -> io::Result<Stalled> {
    let mut stalled: Stalled = Vec::new();
    let request = format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: {HTTP_HOST}\r\n\r\n");
    for _ in 0..STALLED {
        let mut http = narrow(entries.http).await?;
        http.write_all(request.as_bytes()).await?;
        let mut tcp = narrow(entries.tcp).await?;
        tcp.write_u8(b'd').await?;
        tcp.write_u64(LARGE).await?;
        stalled.push(Box::new((http, tcp)));
        let stream = narrow(entries.websocket).await?;
        let url = format!("ws://{WEBSOCKET_HOST}/");
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .map_err(other)?;
        let text = Message::text(LARGE.to_string());
        socket.send(text).await.map_err(other)?;
        stalled.push(Box::new(socket));
        // The call has no messages: its sender is dropped at once.
        let (_, messages) = mpsc::channel(1);
        let path = format!("/load/Send/{LARGE}");
        let call = visitor::call(entries.grpc, &path, messages).await?;
        stalled.push(Box::new(call));
        let flow = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        flow.connect(entries.udp).await?;
        for _ in 0..200 {
            flow.send(Pattern::shared().piece(0, 1200)).await?;
        }
        stalled.push(Box::new(flow));
    }
    Ok(stalled)
}

/// Opens a connection with a small receive buffer.
async fn narrow(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(addr).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_may_add_a_tenth_of_a_second() {
        let flood = Beside::Flood(Flood::ALL[0]);
        assert_eq!(flood.limit_us(2_000), 102_000);
        assert_eq!(Beside::Stalled.limit_us(2_000), 9_000);
    }

    #[test]
    fn failed_requests_rank_behind_completed_ones() {
        let mut latencies = Histogram::new_with_bounds(1, FOR_EVER_US, 3).unwrap();
        for micros in 1..=990 {
            latencies.record(micros).unwrap();
        }
        assert_eq!(p99_with_failures(&latencies, 10), 990);
        assert_eq!(p99_with_failures(&latencies, 11), FOR_EVER_US);
        let without = p99_with_failures(&latencies, 0);
        assert!((980..=982).contains(&without), "{without}");
    }

    #[test]
    fn medians_are_taken_for_each_protocol() {
        let rounds = [("udp", 3), ("udp", 1), ("udp", 2)].map(|one| P99::from([one, ("tcp", 7)]));
        assert_eq!(medians(&rounds), P99::from([("tcp", 7), ("udp", 2)]));
        assert_eq!(medians(&[]), P99::new());
    }

    #[test]
    fn each_kind_of_peers_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = Beside::all().map(Beside::name).collect();
        assert_eq!(names.len(), Flood::ALL.len() + 1);
    }
}
