//! Whether a stalled peer delays anybody: the same paced load alone, and beside stalled peers of every protocol.
//!
//! Open loop: each message has a time at which it is due, and its latency counts from then. The two phases alternate
//! within one run of the tunnel, and the medians over the rounds are compared.

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
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use super::visitor::{self, Entries, HTTP_HOST, Protocol, WEBSOCKET_HOST, converse, other};
use crate::generator::{self, Plan};
use crate::pattern::Pattern;

/// Peers of each protocol that stall.
pub(crate) const STALLED: usize = 8;

/// What each of them asked for.
const LARGE: u64 = 64 << 20;

/// Conversations of each protocol that go on.
const CONVERSATIONS: u32 = 4;

/// Messages of each protocol in a second.
const PER_SECOND: u32 = 400;

/// What a message holds.
const BYTES: u64 = 200;

/// How long the stalled may take until what they asked for is on its way.
const SETTLE: Duration = Duration::from_secs(1);

/// The 99th percentile of one protocol, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Verdict {
    pub(crate) protocol: &'static str,
    pub(crate) alone_p99_us: u64,
    pub(crate) beside_p99_us: u64,
    /// At most twice as long and five milliseconds.
    pub(crate) holds: bool,
}

/// Measures `rounds` times and gives a verdict for each protocol.
///
/// # Errors
/// A conversation broke off, or got other bytes than it should.
pub(crate) async fn measure(
    entries: &Entries,
    rounds: usize,
    duration: Duration,
) -> io::Result<Vec<Verdict>> {
    let mut alone: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut beside: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for round in 0..rounds {
        for (name, p99) in load(entries, duration).await? {
            alone.entry(name).or_default().push(p99);
        }
        let stalled = stall(entries).await?;
        sleep(SETTLE).await;
        for (name, p99) in load(entries, duration).await? {
            beside.entry(name).or_default().push(p99);
        }
        drop(stalled);
        anstream::eprintln!("round {}: alone {alone:?}, beside {beside:?}", round + 1);
        // They leave, and what they left is cleared away.
        sleep(SETTLE).await;
    }
    let verdicts = alone.into_iter().map(|(protocol, mut alone)| {
        let mut beside = beside.remove(protocol).unwrap_or_default();
        let (alone, beside) = (median(&mut alone), median(&mut beside));
        Verdict {
            protocol,
            alone_p99_us: alone,
            beside_p99_us: beside,
            holds: beside <= 2 * alone + 5_000,
        }
    });
    Ok(verdicts.collect())
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The 99th percentile of each protocol under the paced load of all of them.
async fn load(entries: &Entries, duration: Duration) -> io::Result<Vec<(&'static str, u64)>> {
    let plan = Plan {
        target: entries.http,
        host: HTTP_HOST.to_owned(),
        path: "/small".to_owned(),
        connections: CONVERSATIONS as usize,
        new_connection: false,
        rate: Some(PER_SECOND.into()),
        warm_up: Duration::from_millis(200),
        duration,
        read_bytes: 64 * 1024,
        progress: false,
    };
    let mut talking = JoinSet::new();
    for protocol in Protocol::ALL {
        for number in 0..CONVERSATIONS {
            talking.spawn(talk(protocol, entries.clone(), number, duration));
        }
    }
    let http = generator::run(plan, || ()).await.map_err(other)?;
    if http.failures.total() > 0 {
        return Err(io::Error::other(format!("http: {}", http.failures)));
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
    let mut p99 = vec![("http", http.latency_us.value_at_quantile(0.99))];
    p99.extend(
        all.into_iter()
            .map(|(protocol, histogram)| (protocol.name(), histogram.value_at_quantile(0.99))),
    );
    Ok(p99)
}

/// One conversation at its share of the rate.
async fn talk(
    protocol: Protocol,
    entries: Entries,
    number: u32,
    duration: Duration,
) -> io::Result<(Protocol, Histogram<u64>)> {
    let message = Pattern::shared().piece(u64::from(number), BYTES);
    let every = Duration::from_secs(1) * CONVERSATIONS / PER_SECOND;
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).map_err(other)?;
    let (mut sender, mut receiver) = converse(protocol, &entries, message.len()).await?;
    let begun = Instant::now();
    let mut due = begun + every * number / CONVERSATIONS;
    while due.duration_since(begun) < duration {
        sleep_until(due).await;
        sender.send(message).await?;
        if !receiver.receive(message).await? {
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

/// Connections that asked for much and read nothing: they are only held.
type Stalled = Vec<Box<dyn Send>>;

async fn stall(entries: &Entries) -> io::Result<Stalled> {
    let mut stalled: Stalled = Vec::new();
    let ask = format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: {HTTP_HOST}\r\n\r\n");
    for _ in 0..STALLED {
        let mut http = narrow(entries.http).await?;
        http.write_all(ask.as_bytes()).await?;
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
        // The call has no messages: its sender is gone at once.
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

/// A connection that takes little at a time.
async fn narrow(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(addr).await
}
