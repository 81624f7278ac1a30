//! What is measured of a protocol: bulk transfer in one direction, echoed messages, datagrams at a fixed rate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::visitor::{Entries, Protocol, converse};
use crate::pattern::{PIECE, Pattern};
use crate::procfs::Cpu;

/// More bytes than any run transfers.
const ENDLESS: u64 = 1 << 50;

/// A datagram that has not been echoed within this time is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// A measurement of a protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Case {
    /// Bytes over TCP to the visitors.
    Down { connections: usize },
    /// Bytes over TCP to the service.
    Up { connections: usize },
    /// Messages that are echoed, with `depth` messages in progress in each conversation.
    Echo {
        protocol: Protocol,
        conversations: usize,
        depth: usize,
        bytes: usize,
    },
    /// Datagrams that are sent at this rate, independently of the echoes.
    Paced { per_second: u32, bytes: usize },
}

impl Case {
    /// All cases in the order of the report.
    pub(crate) const ALL: [Self; 9] = [
        Self::Down { connections: 1 },
        Self::Down { connections: 8 },
        Self::Up { connections: 1 },
        Self::echo(Protocol::Tcp, 64, 1, 200),
        Self::echo(Protocol::WebSocket, 8, 16, 128),
        Self::echo(Protocol::Grpc, 8, 16, 128),
        Self::echo(Protocol::Udp, 8, 16, 200),
        Self::echo(Protocol::Udp, 1, 1, 200),
        Self::Paced {
            per_second: 20_000,
            bytes: 200,
        },
    ];

    const fn echo(protocol: Protocol, conversations: usize, depth: usize, bytes: usize) -> Self {
        Self::Echo {
            protocol,
            conversations,
            depth,
            bytes,
        }
    }

    /// The name in the table.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Down { connections } => format!("tcp, {connections} down"),
            Self::Up { connections } => format!("tcp, {connections} up"),
            Self::Echo {
                protocol,
                conversations,
                depth,
                bytes,
            } => format!(
                "{}, {conversations} x {depth} of {bytes} B",
                protocol.name()
            ),
            Self::Paced { per_second, bytes } => format!("udp, {per_second}/s of {bytes} B"),
        }
    }

    /// Whether the case counts bytes.
    pub(crate) const fn is_bulk(self) -> bool {
        matches!(self, Self::Down { .. } | Self::Up { .. })
    }
}

/// The result of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Outcome {
    /// Bytes, or echoed messages.
    pub(crate) count: u64,
    /// Datagrams that were not echoed.
    pub(crate) lost: u64,
    /// The length of the run in seconds.
    pub(crate) elapsed_s: f64,
    /// CPU seconds of the tunnel's processes.
    pub(crate) cpu_s: f64,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    lost: AtomicU64,
    sent: AtomicU64,
}

/// Runs one case against one target, whose processes are `pids`.
///
/// # Errors
/// Returns an error when a visitor failed, or received wrong bytes.
///
/// # Cancel safety
/// Dropping the future ends everything that the run started.
pub(crate) async fn run(
    case: Case,
    entries: &Entries,
    pids: &[u32],
    warm_up: Duration,
    duration: Duration,
) -> io::Result<Outcome> {
    let counts = Arc::new(Counts::default());
    let mut visitors = JoinSet::new();
    match case {
        Case::Down { connections } => {
            for _ in 0..connections {
                visitors.spawn(down(entries.tcp, counts.clone()));
            }
        }
        Case::Up { connections } => {
            for _ in 0..connections {
                visitors.spawn(up(entries.tcp, counts.clone()));
            }
        }
        Case::Echo {
            protocol,
            conversations,
            depth,
            bytes,
        } => {
            for _ in 0..conversations {
                let (entries, counts) = (entries.clone(), counts.clone());
                visitors.spawn(echo(protocol, entries, depth, bytes, counts));
            }
        }
        Case::Paced { per_second, bytes } => {
            visitors.spawn(paced(entries.udp, per_second, bytes, counts.clone()));
        }
    }
    let broken = |visitors: &mut JoinSet<io::Result<()>>| match visitors.try_join_next() {
        Some(Ok(Err(error))) => Err(error),
        Some(_) => Err(io::Error::other("a visitor ended by itself")),
        None => Ok(()),
    };
    sleep(warm_up).await;
    let (cpu, begun) = (Cpu::of(pids)?, Instant::now());
    let (done, lost, sent) = (
        counts.done.load(Relaxed),
        counts.lost.load(Relaxed),
        counts.sent.load(Relaxed),
    );
    sleep(duration).await;
    let elapsed = begun.elapsed();
    let count = counts.done.load(Relaxed) - done;
    let cpu = Cpu::of(pids)?.since(&cpu);
    let sent = counts.sent.load(Relaxed) - sent;
    broken(&mut visitors)?;
    let lost = if matches!(case, Case::Paced { .. }) {
        // The number of datagrams in progress at the beginning and at the end of the window is almost the same.
        sent.saturating_sub(count)
    } else {
        counts.lost.load(Relaxed) - lost
    };
    Ok(Outcome {
        count,
        lost,
        elapsed_s: elapsed.as_secs_f64(),
        cpu_s: cpu.as_secs_f64(),
    })
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "other bytes than were sent")
}

async fn down(entry: SocketAddr, counts: Arc<Counts>) -> io::Result<()> {
    let mut stream = TcpStream::connect(entry).await?;
    stream.write_u8(b'd').await?;
    stream.write_u64(ENDLESS).await?;
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !Pattern::shared().matches(offset, &buffer[..read]) {
            return Err(wrong());
        }
        offset += read as u64;
        counts.done.fetch_add(read as u64, Relaxed);
    }
}

async fn up(entry: SocketAddr, counts: Arc<Counts>) -> io::Result<()> {
    let mut stream = TcpStream::connect(entry).await?;
    stream.write_u8(b'u').await?;
    stream.write_u64(ENDLESS).await?;
    let mut offset = 0;
    loop {
        let piece = Pattern::shared().piece(offset, 64 * 1024);
        let written = stream.write(piece).await? as u64;
        offset += written;
        counts.done.fetch_add(written, Relaxed);
    }
}

async fn echo(
    protocol: Protocol,
    entries: Entries,
    depth: usize,
    bytes: usize,
    counts: Arc<Counts>,
) -> io::Result<()> {
    let message = Pattern::shared().piece(0, bytes as u64);
    let (mut sender, mut receiver) = converse(protocol, &entries, bytes).await?;
    for _ in 0..depth {
        sender.send(message).await?;
    }
    loop {
        let same = if protocol == Protocol::Udp {
            match timeout(LOST_AFTER, receiver.receive(message)).await {
                Ok(same) => same?,
                Err(_) => {
                    // All datagrams in progress are lost.
                    counts.lost.fetch_add(depth as u64, Relaxed);
                    for _ in 0..depth {
                        sender.send(message).await?;
                    }
                    continue;
                }
            }
        } else {
            receiver.receive(message).await?
        };
        if !same {
            return Err(wrong());
        }
        counts.done.fetch_add(1, Relaxed);
        sender.send(message).await?;
    }
}

async fn paced(
    entry: SocketAddr,
    per_second: u32,
    bytes: usize,
    counts: Arc<Counts>,
) -> io::Result<()> {
    // The timer is coarser than the rate, so all datagrams that are due are sent at each tick.
    const TICK: Duration = Duration::from_millis(1);
    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    socket.connect(entry).await?;
    let message = Pattern::shared().piece(0, bytes as u64);
    let receiving = {
        let (socket, counts) = (socket.clone(), counts.clone());
        async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if &buffer[..length] != message {
                    return Err(wrong());
                }
                counts.done.fetch_add(1, Relaxed);
            }
        }
    };
    let sending = async {
        let begun = Instant::now();
        let mut sent = 0_u64;
        let mut next = begun;
        loop {
            next += TICK;
            sleep_until(next).await;
            let due = begun.elapsed().as_secs_f64() * f64::from(per_second);
            while (sent as f64) < due {
                socket.send(message).await?;
                sent += 1;
                counts.sent.fetch_add(1, Relaxed);
            }
        }
    };
    tokio::select! {
        ended = receiving => ended,
        ended = sending => ended,
    }
}
