//! A connection of any kind.

use std::{
    fmt,
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream as StdUnixStream,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsStream, client, rustls::pki_types::CertificateDer, server};

use crate::{
    addr::canonical_addr,
    delivery::Delivery,
    departure::{Departure, departure},
    memory::MemoryStream,
    scheme::Scheme,
    tcp::{is_delivered, keep_alive, shrink_send_buffer},
};

/// Upper bound of one [`Stream::poll_read_ahead`]: as much as hyper's first read, so that the parser receives a head in
/// the same pieces as without detection.
pub const READ_AHEAD_BYTES: usize = 8 * 1024;

/// One connection: TCP, a Unix socket, memory, or TLS over any of these.
///
/// The default is a closed connection: it reads as ended, and writes fail.
#[derive(Default)]
pub struct Stream {
    kind: Kind,
    /// Bytes that have been read from the transport and not consumed yet: the next read receives them.
    unread: Bytes,
}

#[derive(Default)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Memory(MemoryStream),
    /// Boxed: its state is some hundred times as large as the others.
    Tls(Box<TlsStream<Stream>>),
    #[default]
    Closed,
}

/// A stream between two runtimes: it is registered with neither.
#[derive(Debug)]
pub struct Detached {
    kind: DetachedKind,
    unread: Bytes,
}

#[derive(Debug)]
enum DetachedKind {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
    Memory(MemoryStream),
}

impl Stream {
    /// Both ends of a connection in memory, from `visitor` to `server`; see [`MemoryStream::pair`].
    #[must_use]
    pub fn in_memory(capacity: usize, visitor: SocketAddr, server: SocketAddr) -> (Self, Self) {
        let (near, far) = MemoryStream::pair(capacity, visitor, server);
        (near.into(), far.into())
    }

    /// The address of the peer, IPv4 where a dual-stack socket maps it. The peer of a Unix socket is a process of this
    /// machine: 127.0.0.1, port 0.
    ///
    /// # Errors
    /// Returns the errors of `getpeername`; `NotConnected` for a closed stream.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            Kind::Tcp(tcp) => tcp.peer_addr().map(canonical_addr),
            Kind::Unix(_) => Ok(this_machine()),
            Kind::Memory(memory) => Ok(memory.peer_addr()),
            Kind::Tls(tls) => tls.get_ref().0.peer_addr(),
            Kind::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The address of this end. That of a Unix socket is 127.0.0.1, port 0.
    ///
    /// # Errors
    /// Returns the errors of `getsockname`; `NotConnected` for a closed stream.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            Kind::Tcp(tcp) => tcp.local_addr(),
            Kind::Unix(_) => Ok(this_machine()),
            Kind::Memory(memory) => Ok(memory.local_addr()),
            Kind::Tls(tls) => tls.get_ref().0.local_addr(),
            Kind::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The user that the peer of a Unix socket runs as; `None` for the other kinds.
    #[must_use]
    pub fn peer_uid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Unix(unix) => unix.peer_cred().ok().map(|peer| peer.uid()),
            Kind::Tls(tls) => tls.get_ref().0.peer_uid(),
            Kind::Tcp(_) | Kind::Memory(_) | Kind::Closed => None,
        }
    }

    /// The scheme of URLs that lead to this connection.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        match self.kind {
            Kind::Tls(_) => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// The protocol that the TLS handshake has chosen (ALPN); `None` in clear text, or where none was offered.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Tls(tls) => tls.get_ref().1.alpn_protocol(),
            _ => None,
        }
    }

    /// The certificate that the peer has proved in the TLS handshake, and those that it has sent with it; none in clear text, or
    /// if it has none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match &self.kind {
            Kind::Tls(tls) => tls.get_ref().1.peer_certificates().unwrap_or_default(),
            _ => &[],
        }
    }

    /// Sends small writes at once. The other kinds always do.
    ///
    /// # Errors
    /// Returns the errors of `setsockopt`.
    pub fn set_nodelay(&self) -> io::Result<()> {
        self.tcp().map_or(Ok(()), |tcp| tcp.set_nodelay(true))
    }

    /// Bounds the unsent bytes in the kernel, so that later bytes wait in this process. Does nothing without a TCP
    /// socket, or if the system has no such bound.
    ///
    /// # Errors
    /// Returns the errors of `setsockopt`.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(unused_variables)
    )]
    pub fn set_unsent_bytes(&self, bytes: u32) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(tcp) = self.tcp() {
            return SockRef::from(tcp).set_tcp_notsent_lowat(bytes);
        }
        Ok(())
    }

    /// Has the kernel probe a silent peer, with the times of the system; see [`Stream::keep_alive`].
    ///
    /// # Errors
    /// Returns the errors of `setsockopt`.
    pub fn set_keepalive(&self) -> io::Result<()> {
        self.tcp()
            .map_or(Ok(()), |tcp| SockRef::from(tcp).set_keepalive(true))
    }

    /// Has the kernel probe the peer when it has been silent for this long: a machine that is gone sends no FIN. Peers
    /// of the other kinds run on this machine, whose kernel ends their connections.
    pub fn keep_alive(&self, silence: Duration) {
        if let Some(tcp) = self.tcp() {
            keep_alive(tcp, silence);
        }
    }

    /// The connection is reset when the stream is dropped, and unsent bytes are discarded: the bytes that the peer
    /// received do not look complete. A Unix socket has no reset: its peer sees an end. Over TLS the peer also misses
    /// the `close_notify` alert.
    pub fn reset_on_drop(&mut self) {
        match &mut self.kind {
            // If this fails, the connection has ended.
            Kind::Tcp(tcp) => drop(tcp.set_zero_linger()),
            Kind::Memory(memory) => memory.reset_on_drop(),
            Kind::Tls(tls) => tls.get_mut().0.reset_on_drop(),
            Kind::Unix(_) | Kind::Closed => {}
        }
    }

    /// How the peer has left, without a system call and without reading: there may be unread bytes before the end. For
    /// TLS, the departure of its transport.
    #[must_use]
    pub fn departure(&self) -> Option<Departure> {
        let interest = Interest::READABLE | Interest::ERROR;
        match &self.kind {
            Kind::Tcp(tcp) => departure(tcp.ready(interest)),
            Kind::Unix(unix) => departure(unix.ready(interest)),
            Kind::Memory(memory) => memory.departure(),
            Kind::Tls(tls) => tls.get_ref().0.departure(),
            Kind::Closed => Some(Departure::Reset),
        }
    }

    /// Ready when a read would not wait.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Tcp(tcp) => tcp.poll_read_ready(cx),
            Kind::Unix(unix) => unix.poll_read_ready(cx),
            Kind::Memory(memory) => memory.poll_readable(cx),
            Kind::Tls(tls) => Pin::new(tls).poll_fill_buf(cx).map_ok(|_| ()),
            Kind::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Copies unread bytes without consuming them; 0 is the peer's end. Costs one system call, and none over TLS and in
    /// memory.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(copy(&self.unread, buffer)));
        }
        match &mut self.kind {
            Kind::Tcp(tcp) => tcp.poll_peek(cx, &mut ReadBuf::new(buffer)),
            Kind::Unix(unix) => loop {
                ready!(unix.poll_read_ready(cx))?;
                let peeked = unix.try_io(Interest::READABLE, || {
                    let (_, count) = recv(&*unix, &mut *buffer, RecvFlags::PEEK)?;
                    Ok(count)
                });
                match peeked {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    peeked => return Poll::Ready(peeked),
                }
            },
            Kind::Memory(memory) => memory.poll_peek(cx, &mut ReadBuf::new(buffer)),
            Kind::Tls(tls) => {
                let unread = ready!(Pin::new(tls).poll_fill_buf(cx))?;
                Poll::Ready(Ok(copy(unread, buffer)))
            }
            Kind::Closed => Poll::Ready(Ok(0)),
        }
    }

    /// The unread bytes that have arrived, at most `limit`; `None` if they cannot be known without reading: there are
    /// more, or TLS has not deciphered them.
    #[must_use]
    pub fn peek_all(&mut self, limit: usize) -> Option<Vec<u8>> {
        if matches!(self.kind, Kind::Tls(_)) {
            return None;
        }
        let ahead = std::mem::take(&mut self.unread);
        let mut bytes = vec![0; limit.saturating_sub(ahead.len())];
        // No waker is registered: the caller checks once.
        let mut cx = Context::from_waker(Waker::noop());
        let peeked = self.poll_peek(&mut cx, &mut bytes);
        self.unread = ahead;
        let count = match peeked {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if count == bytes.len() {
            return None;
        }
        bytes.truncate(count);
        bytes.splice(..0, self.unread.iter().copied());
        Some(bytes)
    }

    /// Reads once from the transport, at most [`READ_AHEAD_BYTES`], and keeps the bytes for the next reader, after
    /// those kept already. Returns the number of bytes, 0 for the peer's end. The caller bounds the number of calls.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let ahead = std::mem::take(&mut self.unread);
        // This is checked before a buffer is allocated: a connection without bytes costs none.
        let is_readable = self.poll_readable(cx).is_ready();
        self.unread = ahead;
        if !is_readable {
            return Poll::Pending;
        }
        let mut bytes = [0; READ_AHEAD_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(self.poll_read_transport(cx, &mut buffer))?;
        let read = buffer.filled();
        self.unread = if self.unread.is_empty() {
            Bytes::copy_from_slice(read)
        } else {
            let mut all = BytesMut::from(&self.unread[..]);
            all.extend_from_slice(read);
            all.freeze()
        };
        Poll::Ready(Ok(read.len()))
    }

    /// The bytes that were read ahead and that the next reader receives.
    #[must_use]
    pub fn read_ahead(&self) -> &[u8] {
        &self.unread
    }

    fn poll_read_transport(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Kind::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
            Kind::Memory(memory) => Pin::new(memory).poll_read(cx, buffer),
            Kind::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
            Kind::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Detaches the stream from its runtime, for another one.
    ///
    /// # Errors
    /// Returns the errors of the system, and `Unsupported` for TLS, whose handshake belongs on the runtime that serves
    /// the stream.
    pub fn detach(self) -> io::Result<Detached> {
        let kind = match self.kind {
            Kind::Tcp(tcp) => DetachedKind::Tcp(tcp.into_std()?),
            Kind::Unix(unix) => DetachedKind::Unix(unix.into_std()?),
            Kind::Memory(memory) => DetachedKind::Memory(memory),
            Kind::Tls(_) | Kind::Closed => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Detached {
            kind,
            unread: self.unread,
        })
    }

    /// The TCP socket, if the stream is plain TCP and nothing was read ahead.
    pub(crate) fn try_into_tcp(self) -> Result<TcpStream, Self> {
        match self.kind {
            Kind::Tcp(tcp) if self.unread.is_empty() => Ok(tcp),
            kind => Err(Self { kind, ..self }),
        }
    }

    /// The TCP socket below.
    fn tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(tcp) => Some(tcp),
            Kind::Tls(tls) => tls.get_ref().0.tcp(),
            Kind::Unix(_) | Kind::Memory(_) | Kind::Closed => None,
        }
    }

    /// Starts to wait, for at most `within`, until the peer has received everything that was written. Nothing may be
    /// written afterwards. TLS must have been flushed.
    #[must_use]
    pub fn begin_delivery(&self, within: Duration) -> Delivery {
        if let Some(tcp) = self.tcp() {
            shrink_send_buffer(tcp);
        }
        Delivery::new(within)
    }

    /// Ready when the system has sent what was written and the peer has acknowledged all of it but the last segment, when
    /// the connection has failed, or when the time is over. A Unix socket delivers as it writes; a stream in memory when
    /// the peer has read.
    pub fn poll_delivery(&self, cx: &mut Context<'_>, delivery: &mut Delivery) -> Poll<()> {
        delivery.poll(cx, || self.is_delivered())
    }

    fn is_delivered(&self) -> bool {
        match &self.kind {
            Kind::Tcp(tcp) => is_delivered(tcp),
            Kind::Memory(memory) => memory.is_delivered(),
            Kind::Tls(tls) => tls.get_ref().0.is_delivered(),
            Kind::Unix(_) | Kind::Closed => true,
        }
    }

    /// Ready when the connection has failed; only for a stream in memory. The other kinds are checked with
    /// [`Stream::departure`].
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Option<Poll<io::Error>> {
        match &self.kind {
            Kind::Memory(memory) => Some(memory.poll_failed(cx)),
            Kind::Tls(tls) => tls.get_ref().0.poll_failed(cx),
            Kind::Tcp(_) | Kind::Unix(_) | Kind::Closed => None,
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

/// The address reported for a process at the other end of a Unix socket.
fn this_machine() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

impl Detached {
    /// Registers the stream with the runtime of the caller.
    ///
    /// # Errors
    /// Returns the errors of the system.
    pub fn attach(self) -> io::Result<Stream> {
        let kind = match self.kind {
            DetachedKind::Tcp(tcp) => Kind::Tcp(TcpStream::from_std(tcp)?),
            DetachedKind::Unix(unix) => Kind::Unix(UnixStream::from_std(unix)?),
            DetachedKind::Memory(memory) => Kind::Memory(memory),
        };
        Ok(Stream {
            kind,
            unread: self.unread,
        })
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Kind::Tcp(tcp).into()
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Kind::Unix(unix).into()
    }
}

impl From<MemoryStream> for Stream {
    fn from(memory: MemoryStream) -> Self {
        Kind::Memory(memory).into()
    }
}

impl From<server::TlsStream<Self>> for Stream {
    fn from(tls: server::TlsStream<Self>) -> Self {
        Kind::Tls(Box::new(tls.into())).into()
    }
}

impl From<client::TlsStream<Self>> for Stream {
    fn from(tls: client::TlsStream<Self>) -> Self {
        Kind::Tls(Box::new(tls.into())).into()
    }
}

impl From<Kind> for Stream {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            unread: Bytes::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return this.poll_read_transport(cx, buffer);
        }
        let count = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread[..count]);
        if count == this.unread.len() {
            this.unread = Bytes::new();
        } else {
            this.unread.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Kind::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
            Kind::Memory(memory) => Pin::new(memory).poll_write(cx, bytes),
            Kind::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Kind::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Kind::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, slices),
            Kind::Memory(memory) => Pin::new(memory).poll_write_vectored(cx, slices),
            Kind::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
            Kind::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tls(tls) => Pin::new(tls).poll_flush(cx),
            // Streams of these kinds write at once.
            Kind::Tcp(_) | Kind::Unix(_) | Kind::Memory(_) | Kind::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Kind::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Kind::Memory(memory) => Pin::new(memory).poll_shutdown(cx),
            Kind::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Kind::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Tcp(_) => "tcp",
            Kind::Unix(_) => "unix",
            Kind::Memory(_) => "memory",
            Kind::Tls(_) => "tls",
            Kind::Closed => "closed",
        };
        f.debug_struct("Stream")
            .field("kind", &kind)
            .field("peer", &self.peer_addr().ok())
            .field("read_ahead", &self.unread.len())
            .finish_non_exhaustive()
    }
}
