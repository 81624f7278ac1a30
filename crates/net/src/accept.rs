//! The accept loop of every listener of both programs.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    descriptors::{Descriptor, Descriptors},
    listener::Listener,
    stream::Stream,
};

/// The pause after `accept` failed, usually because file descriptors are exhausted: the only remedy is to wait.
const PAUSE: Duration = Duration::from_millis(50);

/// Receives what an accept loop reports. A flood calls it often: limit what is logged.
pub trait AcceptReport {
    /// Connections wait: the listener holds as many descriptors as it may. `limit` is the bound of all listeners
    /// together.
    fn on_full(&self, limit: usize);

    /// A connection could not be accepted.
    fn on_failed(&self, error: &io::Error);
}

/// Accepts the connections of one listener, and continues after errors.
///
/// It accepts no more connections than there are descriptors for them: connections in the backlog need none. After an
/// error it pauses, unless the peer has left the backlog.
#[derive(Debug)]
pub struct AcceptLoop<R> {
    listener: Listener,
    bound: Option<(Arc<Descriptors>, u32)>,
    report: R,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: Stream,
    /// The address of the peer.
    pub peer: SocketAddr,
    /// Counts the connection while it is open, where the loop is [bounded](AcceptLoop::bounded).
    pub descriptor: Option<Descriptor>,
}

impl<R: AcceptReport> AcceptLoop<R> {
    /// Accepts on `listener`, which may use all descriptors.
    pub const fn new(listener: Listener, report: R) -> Self {
        Self {
            listener,
            bound: None,
            report,
        }
    }

    /// Counts the connections as those of the listener with this number.
    #[must_use]
    pub fn bounded(self, descriptors: Arc<Descriptors>, number: u32) -> Self {
        Self {
            bound: Some((descriptors, number)),
            ..self
        }
    }

    /// The next connection.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn next(&self) -> Accepted {
        loop {
            if let Some((descriptors, number)) = &self.bound
                && !descriptors.has_room(*number)
            {
                self.report.on_full(descriptors.limit());
                descriptors.room(*number).await;
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let bound = self.bound.as_ref();
                    return Accepted {
                        stream,
                        peer,
                        descriptor: bound.map(|(descriptors, number)| descriptors.take(*number)),
                    };
                }
                Err(error) => {
                    self.report.on_failed(&error);
                    // A peer that left the backlog before it was accepted must not delay the others.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Hands each connection to `serve`, which must not wait for it, until `until` completes.
    ///
    /// # Cancel safety
    /// Yes: a connection that was accepted has been handed on.
    pub async fn run(&self, until: impl Future<Output = ()>, mut serve: impl FnMut(Accepted)) {
        let mut until = pin!(until);
        loop {
            tokio::select! {
                accepted = self.next() => serve(accepted),
                () = until.as_mut() => return,
            }
        }
    }

    /// The listener.
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::OwnedFd,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Default)]
    struct Reports {
        full: AtomicUsize,
        failed: AtomicUsize,
    }

    impl AcceptReport for &Reports {
        fn on_full(&self, _: usize) {
            self.full.fetch_add(1, Ordering::Relaxed);
        }

        fn on_failed(&self, _: &io::Error) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[tokio::test]
    async fn a_full_listener_waits_for_a_descriptor() {
        let (listener, connector) = Listener::in_memory(addr(80), 64);
        let reports = Reports::default();
        let accepting = AcceptLoop::new(listener, &reports).bounded(Descriptors::new(1), 0);
        let (_first, _second) = (
            connector.connect(addr(1)).await.unwrap(),
            connector.connect(addr(2)).await.unwrap(),
        );
        let first = accepting.next().await;
        assert_eq!(first.peer, addr(1));
        let freeing = async {
            tokio::task::yield_now().await;
            assert_eq!(reports.full.load(Ordering::Relaxed), 1);
            drop(first.descriptor);
        };
        let (second, ()) = tokio::join!(accepting.next(), freeing);
        assert_eq!(second.peer, addr(2));
    }

    /// Listens on a socket that does not: each `accept` fails.
    #[tokio::test(start_paused = true)]
    async fn a_failed_accept_is_reported_and_pauses() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = Listener::from_std(OwnedFd::from(socket).into()).unwrap();
        let reports = Reports::default();
        let accepting = AcceptLoop::new(listener, &reports);
        accepting.run(sleep(10 * PAUSE), |_| panic!()).await;
        let failed = reports.failed.load(Ordering::Relaxed);
        assert!((1..=11).contains(&failed), "{failed}");
    }

    #[tokio::test]
    async fn connections_are_handed_on_until_the_end() {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let to = tcp.local_addr().unwrap();
        let reports = Reports::default();
        let accepting = AcceptLoop::new(tcp.into(), &reports);
        let (ended, end) = tokio::sync::oneshot::channel();
        let mut ended = Some(ended);
        let mut peers = Vec::new();
        let visitor = TcpStream::connect(to).await.unwrap();
        let until = async { end.await.unwrap() };
        accepting
            .run(until, |accepted| {
                assert!(accepted.descriptor.is_none());
                peers.push(accepted.peer);
                ended.take().unwrap().send(()).unwrap();
            })
            .await;
        assert_eq!(peers, [visitor.local_addr().unwrap()]);
    }
}
