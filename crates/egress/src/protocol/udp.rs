//! UDP services: a socket of its own for each flow (section 11 of the protocol).
//!
//! The socket is connected, so that a service that is not there can be told from one that is silent. Nothing here waits
//! for a socket or for credit: what is not taken is dropped and counted (P-11.3).

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
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Instant, sleep},
};

use crate::{
    connect::dial::Address,
    request::{account::Account, moved::Moved},
    resources::Resources,
    service::Service,
    stats::udp::Counters,
};

/// Datagrams taken from each side in one turn; then the thread's other tasks have theirs. At least as many as a lane
/// hands on in its turn.
const BATCH: usize = 512;

/// The same in bytes, of what is read from the service: well below what a lane lets wait of one flow, whose writer is
/// among those tasks.
const BATCH_BYTES: usize = 128 * 1024;

/// The side that knows the visitor decides that a flow is over (P-11.4); this one waits so much longer for its word.
const BACKSTOP: Duration = Duration::from_secs(5);

/// What the kernel may keep of a flow's answers that have not been read: a burst must not be lost while the thread does
/// something else. The system may allow less.
const RECEIVE_BUFFER_BYTES: usize = 2 << 20;

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Serves one flow, in a task of its own.
pub(crate) fn dispatch(
    mut account: Account<Box<UdpOpen>>,
    exchange: Exchange,
    shared: Arc<Resources>,
) {
    tokio::spawn(async move {
        let _running = Running::new(&shared);
        let Exchange { send, recv } = exchange;
        match serve(&send, recv, &mut account, &shared).await {
            // Both directions, each side its own. A peer that has not ended its direction has been asked to.
            Ended::ByPeer | Ended::Silent => {
                account.course.on_complete();
                drop(send.finish());
            }
            Ended::Gone => account.course.on_gone(&send),
            Ended::Unreachable(why) => account.give_up(send, ResetCode::DialFailed, &why),
        }
    });
}

/// Counts a flow for as long as it lasts.
struct Running<'s>(&'s Counters);

impl<'s> Running<'s> {
    fn new(shared: &'s Resources) -> Self {
        let counters = &shared.counters.udp;
        count(&counters.flows);
        counters.flows_open.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.flows_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a flow ended.
#[derive(Debug)]
enum Ended {
    /// The other side ended its direction.
    ByPeer,
    /// No datagram went either way for too long, and no word came either.
    Silent,
    /// Nobody waits for it any more.
    Gone,
    /// There is no such service.
    Unreachable(String),
}

async fn serve(
    send: &SendHalf,
    mut recv: RecvHalf,
    account: &mut Account<Box<UdpOpen>>,
    shared: &Resources,
) -> Ended {
    let Account {
        service,
        course,
        moved,
        ..
    } = account;
    course.begin(Phase::Dial);
    let timeout = shared.config.dial_timeout;
    let socket = tokio::select! {
        biased;
        () = send.closed() => return Ended::Gone,
        socket = dial(&service.address, timeout) => match socket {
            Ok(socket) => socket,
            Err(why) => return Ended::Unreachable(why),
        },
    };
    course.end(Phase::Dial);
    if send.respond(accepted(ProtocolType::Udp), false).is_err() {
        return Ended::Gone;
    }
    course.on_answer(0, false);
    let mut flow = Flow {
        send,
        socket: &socket,
        service,
        moved,
        shared,
        heard: Instant::now(),
        answered: false,
    };
    flow.carry(&mut recv).await
}

/// A flow with its socket.
struct Flow<'f> {
    send: &'f SendHalf,
    socket: &'f UdpSocket,
    service: &'f Service,
    moved: &'f Moved,
    shared: &'f Resources,
    /// When a datagram last went either way.
    heard: Instant,
    /// The service has sent something.
    answered: bool,
}

/// How far one side was read.
enum Read {
    All,
    /// There may be more.
    Some,
}

impl Flow<'_> {
    /// Carries datagrams both ways until the flow ends.
    async fn carry(&mut self, recv: &mut RecvHalf) -> Ended {
        // A connected socket on which something was refused is in error, not readable.
        const READY: Interest = Interest::READABLE.add(Interest::ERROR);
        let socket = self.socket;
        let patience = self.service.session_timeout.saturating_add(BACKSTOP);
        let mut ready = pin!(socket.ready(READY));
        // Set for the earliest moment that it can be; looks again when it rings.
        let mut silence = pin!(sleep(patience));
        loop {
            let ended = poll_fn(|cx| {
                let mut more = match self.poll_peer(cx, recv) {
                    Ok(read) => matches!(read, Read::Some),
                    Err(ended) => return Poll::Ready(Some(ended)),
                };
                // Whatever comes from the one side, the other has its turn too.
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
                    let Some(until) = self.heard.checked_add(patience) else {
                        break;
                    };
                    if until <= Instant::now() {
                        return Poll::Ready(Some(Ended::Silent));
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

    /// Sends on what has come from the visitor.
    fn poll_peer(&mut self, cx: &mut Context<'_>, recv: &mut RecvHalf) -> Result<Read, Ended> {
        for _ in 0..BATCH {
            match recv.poll_part(cx) {
                Poll::Ready(Some(Ok(Part::Datagram(data)))) => self.send_on(&data)?,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_))) => return Err(Ended::Gone),
                Poll::Ready(None) => return Err(Ended::ByPeer),
                Poll::Pending => return Ok(Read::All),
            }
        }
        Ok(Read::Some)
    }

    /// Sends a datagram to the service, now or not at all.
    fn send_on(&mut self, data: &[u8]) -> Result<(), Ended> {
        let counters = &self.shared.counters.udp;
        self.heard = Instant::now();
        let mut sent = self.socket.try_send(data);
        // The answer to a former one: this one has not been sent yet.
        if let Err(error) = &sent
            && is_refusal(error)
        {
            self.on_refused(error)?;
            sent = self.socket.try_send(data);
        }
        match sent {
            Ok(_) => {
                count(&counters.datagrams_out);
                self.moved.receive(data.len() as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                count(&counters.dropped_socket_full);
            }
            Err(_) => count(&counters.dropped_unsendable),
        }
        Ok(())
    }

    /// Passes on what the service has sent.
    fn read_service(&mut self, is_error: bool) -> Result<Read, Ended> {
        if is_error {
            let error = self.socket.take_error().ok().flatten();
            // Says that it has been dealt with.
            let _ = self.socket.try_io(Interest::ERROR, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            if let Some(error) = error {
                self.on_refused(&error)?;
            }
        }
        let counters = &self.shared.counters.udp;
        let mut buffer = self.shared.large.take();
        let mut bytes = 0;
        for _ in 0..BATCH {
            if bytes >= BATCH_BYTES {
                break;
            }
            let length = match self.socket.try_recv(buffer.unfilled()) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::All),
                Err(error) => {
                    self.on_refused(&error)?;
                    continue;
                }
            };
            bytes += length;
            self.heard = Instant::now();
            self.answered = true;
            count(&counters.datagrams_in);
            match buffer.unfilled().get(..length) {
                Some(data) if length <= MAX_DATAGRAM_BYTES => {
                    let data = Bytes::copy_from_slice(data);
                    self.send.send_datagram(data).map_err(|_| Ended::Gone)?;
                    self.moved.send(length as u64);
                }
                _ => count(&counters.dropped_too_long),
            }
        }
        Ok(Read::Some)
    }

    /// The network says that nobody is there. One that has answered may be on its way back: it is heard of no more, and
    /// the flow ends by its silence.
    fn on_refused(&self, error: &io::Error) -> Result<(), Ended> {
        count(&self.shared.counters.udp.refused);
        if self.answered {
            return Ok(());
        }
        let address = &self.service.address;
        Err(Ended::Unreachable(format!(
            "send to {address}: {error}; does the service listen there, with UDP?"
        )))
    }
}

/// What ICMP says of a datagram that was sent.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// A socket that is connected to the service and ready to be written to. The error is a text for people.
///
/// # Cancel safety
/// Yes.
async fn dial(address: &Address, timeout: Duration) -> Result<UdpSocket, String> {
    match tokio::time::timeout(timeout, connect(address)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(format!("connect {address}: {error}; is the address right?")),
        Err(_) => Err(format!(
            "connect {address}: the name was not found within {timeout:?}; is the address right?"
        )),
    }
}

async fn connect(address: &Address) -> io::Result<UdpSocket> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let socket = if let Ok(ip) = host.parse::<IpAddr>() {
        connect_to(SocketAddr::from((ip, address.port))).await?
    } else if host.eq_ignore_ascii_case("localhost") {
        // RFC 6761, 6.3: always loopback. Whether it is there does not show here, as it does with TCP.
        connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port))).await?
    } else {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut found = None;
        for addr in tokio::net::lookup_host((host, address.port)).await? {
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
    // A socket that has not been told that it can be written to says that it cannot.
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
