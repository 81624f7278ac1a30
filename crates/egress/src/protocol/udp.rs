//! Services over UDP: one socket for each flow (section 11 of the protocol).
//!
//! The socket is connected, so that a missing service (an ICMP error) is distinguished from a silent one. No task waits
//! for a socket or for credit: a datagram that cannot be sent at once is dropped and counted (P-11.3).

use adit_net::HostPort;
use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::{MAX_DATAGRAM_BYTES, ProtocolType, ResetCode, UdpOpen, accepted};
use adit_link::{Exchange, Part, RecvHalf, SendHalf};
use adit_trace::Phase;
use bytes::Bytes;
use socket2::SockRef;
use thiserror::Error;
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Instant, sleep},
};

use crate::forward::{
    gauge::GaugeGuard,
    payload_counts::PayloadCounts,
    record::{Outcome, RequestRecord},
    resources::Resources,
    service::Service,
};

type UdpRecord = RequestRecord<Box<UdpOpen>>;

/// The most datagrams received from each side in one turn; then the other tasks of the thread run. At least as many as a
/// lane forwards in its turn.
const BATCH: usize = 512;

/// The most bytes received from the service in one turn: well below the bytes of one flow that a lane queues, because
/// the writer of the lane is one of those tasks.
const BATCH_BYTES: usize = 128 * 1024;

/// The visitors' side ends a silent flow (P-11.4); this side ends it by itself this much later.
const BACKSTOP: Duration = Duration::from_secs(5);

/// The receive buffer of a flow's socket: a burst must not be lost while the thread runs other tasks. The system may allow
/// less.
const RECEIVE_BUFFER_BYTES: usize = 2 << 20;

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Serves one flow, in a task of its own.
pub(crate) fn dispatch(mut record: UdpRecord, exchange: Exchange, resources: Arc<Resources>) {
    tokio::spawn(async move {
        count(&resources.counters.udp.flows);
        let (open, _) = GaugeGuard::new(resources, |resources| &resources.counters.udp.flows_open);
        let Exchange { send, recv } = exchange;
        match serve(&send, recv, &mut record, open.owner()).await {
            // Each side ends its own direction. The peer has been requested to end its direction, if it has not.
            FlowEnd::ByPeer | FlowEnd::Silent => {
                drop(send.finish());
                record.finish(Outcome::Completed);
            }
            FlowEnd::Abandoned => record.finish(Outcome::of_abandoned(&send)),
            FlowEnd::Unreachable(error) => {
                record.reset(send, ResetCode::DialFailed, &error.to_string());
            }
        }
    });
}

/// How a flow ended.
enum FlowEnd {
    /// The peer ended its direction.
    ByPeer,
    /// No datagram in either direction for too long, and the peer has not ended the flow either.
    Silent,
    /// The opener does not wait for the flow any more.
    Abandoned,
    Unreachable(UnreachableError),
}

/// Why a service cannot be reached.
#[derive(Debug, Error)]
enum UnreachableError {
    #[error("connect {address}: {error}; is the address right?")]
    Connect {
        address: HostPort,
        #[source]
        error: io::Error,
    },
    #[error("connect {address}: name not resolved within {timeout:?}; is the address right?")]
    TimedOut {
        address: HostPort,
        timeout: Duration,
    },
    #[error("send to {address}: {error}; does the service listen there, with UDP?")]
    Send {
        address: HostPort,
        #[source]
        error: io::Error,
    },
}

async fn serve(
    send: &SendHalf,
    mut recv: RecvHalf,
    record: &mut UdpRecord,
    resources: &Resources,
) -> FlowEnd {
    let UdpRecord {
        service,
        timeline,
        payload,
        ..
    } = record;
    timeline.begin(Phase::Dial);
    let timeout = resources.config.dial_timeout;
    let socket = tokio::select! {
        biased;
        () = send.closed() => return FlowEnd::Abandoned,
        socket = dial(&service.address, timeout) => match socket {
            Ok(socket) => socket,
            Err(error) => return FlowEnd::Unreachable(error),
        },
    };
    timeline.end(Phase::Dial);
    if send.respond(accepted(ProtocolType::Udp), false).is_err() {
        return FlowEnd::Abandoned;
    }
    timeline.on_response(0, false);
    let mut flow = Flow {
        send,
        socket: &socket,
        service,
        counts: payload,
        resources,
        last_datagram: Instant::now(),
        has_responded: false,
    };
    flow.carry(&mut recv).await
}

/// A flow with its socket.
struct Flow<'f> {
    send: &'f SendHalf,
    socket: &'f UdpSocket,
    service: &'f Service,
    counts: &'f PayloadCounts,
    resources: &'f Resources,
    /// When a datagram was last forwarded in either direction.
    last_datagram: Instant,
    /// The service has sent a datagram.
    has_responded: bool,
}

/// How much was received from one side in a turn.
enum Read {
    All,
    /// There may be more datagrams to receive.
    Some,
}

impl Flow<'_> {
    /// Forwards datagrams in both directions until the flow ends.
    async fn carry(&mut self, recv: &mut RecvHalf) -> FlowEnd {
        // After an ICMP error a connected socket reports an error instead of readiness.
        const READY: Interest = Interest::READABLE.add(Interest::ERROR);
        let socket = self.socket;
        let patience = self.service.session_timeout.saturating_add(BACKSTOP);
        let mut ready = pin!(socket.ready(READY));
        // The timer is set to the earliest possible end; it is set again when it fires before the actual end.
        let mut silence = pin!(sleep(patience));
        loop {
            let ended = poll_fn(|cx| {
                let mut more = match self.poll_peer(cx, recv) {
                    Ok(read) => matches!(read, Read::Some),
                    Err(ended) => return Poll::Ready(Some(ended)),
                };
                // The other side has its turn, however much the peer sends.
                while let Poll::Ready(state) = ready.as_mut().poll(cx) {
                    ready.set(socket.ready(READY));
                    let is_error = state.map_or(true, |state| state.is_error());
                    match self.read_service(is_error) {
                        Ok(Read::All) => {}
                        Ok(Read::Some) => {
                            more = true;
                            break;
                        }
                        Err(ended) => return Poll::Ready(Some(ended)),
                    }
                }
                while silence.as_mut().poll(cx).is_ready() {
                    let Some(until) = self.last_datagram.checked_add(patience) else {
                        break;
                    };
                    if until <= Instant::now() {
                        return Poll::Ready(Some(FlowEnd::Silent));
                    }
                    silence.as_mut().reset(until);
                }
                if more {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            })
            .await;
            match ended {
                Some(ended) => return ended,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Forwards the datagrams of the visitor.
    fn poll_peer(&mut self, cx: &mut Context<'_>, recv: &mut RecvHalf) -> Result<Read, FlowEnd> {
        for _ in 0..BATCH {
            match recv.poll_part(cx) {
                Poll::Ready(Some(Ok(Part::Datagram(data)))) => self.send_on(&data)?,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_))) => return Err(FlowEnd::Abandoned),
                Poll::Ready(None) => return Err(FlowEnd::ByPeer),
                Poll::Pending => return Ok(Read::All),
            }
        }
        Ok(Read::Some)
    }

    /// Sends a datagram to the service at once, or drops it.
    fn send_on(&mut self, data: &[u8]) -> Result<(), FlowEnd> {
        let counters = &self.resources.counters.udp;
        self.last_datagram = Instant::now();
        let sent = match self.socket.try_send(data) {
            // The ICMP error is for an earlier datagram: this one has not been sent yet.
            Err(error) if is_icmp_error(&error) => {
                self.on_icmp_error(error)?;
                self.socket.try_send(data)
            }
            sent => sent,
        };
        match sent {
            Ok(_) => {
                count(&counters.datagrams_out);
                self.counts.add_from_visitor(data.len() as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                count(&counters.dropped_socket_full);
            }
            Err(_) => count(&counters.dropped_unsendable),
        }
        Ok(())
    }

    /// Forwards the datagrams of the service.
    fn read_service(&mut self, is_error: bool) -> Result<Read, FlowEnd> {
        if is_error {
            let error = self.socket.take_error().ok().flatten();
            // This clears the readiness of the error.
            let _ = self.socket.try_io(Interest::ERROR, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            if let Some(error) = error {
                self.on_icmp_error(error)?;
            }
        }
        let counters = &self.resources.counters.udp;
        let mut buffer = self.resources.buffers.large.take();
        let mut bytes = 0;
        for _ in 0..BATCH {
            if bytes >= BATCH_BYTES {
                break;
            }
            let length = match self.socket.try_recv(buffer.unfilled()) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::All),
                Err(error) => {
                    self.on_icmp_error(error)?;
                    continue;
                }
            };
            bytes += length;
            self.last_datagram = Instant::now();
            self.has_responded = true;
            count(&counters.datagrams_in);
            match buffer.unfilled().get(..length) {
                Some(data) if length <= MAX_DATAGRAM_BYTES => {
                    let data = Bytes::copy_from_slice(data);
                    self.send
                        .send_datagram(data)
                        .map_err(|_| FlowEnd::Abandoned)?;
                    self.counts.add_to_visitor(length as u64);
                }
                _ => count(&counters.dropped_too_long),
            }
        }
        Ok(Read::Some)
    }

    /// Called when the network reports that the service cannot be reached. A service that has responded before may be
    /// restarting: the flow then ends by its silence.
    fn on_icmp_error(&self, error: io::Error) -> Result<(), FlowEnd> {
        count(&self.resources.counters.udp.refused);
        if self.has_responded {
            return Ok(());
        }
        let address = self.service.address.clone();
        Err(FlowEnd::Unreachable(UnreachableError::Send {
            address,
            error,
        }))
    }
}

/// Whether an error reports an ICMP error for a datagram that was sent before.
fn is_icmp_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// A socket that is connected to the service and writable.
///
/// # Errors
/// [`UnreachableError`].
///
/// # Cancel safety
/// If it is dropped, it closes the socket.
async fn dial(address: &HostPort, timeout: Duration) -> Result<UdpSocket, UnreachableError> {
    match tokio::time::timeout(timeout, connect(address)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(UnreachableError::Connect {
            address: address.clone(),
            error,
        }),
        Err(_) => Err(UnreachableError::TimedOut {
            address: address.clone(),
            timeout,
        }),
    }
}

async fn connect(address: &HostPort) -> io::Result<UdpSocket> {
    let port = address.port();
    let socket = if let Some(ip) = address.ip() {
        connect_to(SocketAddr::from((ip, port))).await?
    } else if address.is_localhost() {
        // RFC 6761, 6.3: localhost is always loopback. Unlike TCP, a UDP connect does not show which address family the
        // service listens on.
        connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?
    } else {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut found = None;
        for addr in tokio::net::lookup_host((address.host(), port)).await? {
            match connect_to(addr).await {
                Ok(socket) => {
                    found = Some(socket);
                    break;
                }
                Err(error) => last = error,
            }
        }
        found.ok_or(last)?
    };
    // tokio reports a new socket as not writable until its first readiness event.
    socket.writable().await?;
    Ok(socket)
}

async fn connect_to(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.connect(addr).await?;
    Ok(socket)
}
