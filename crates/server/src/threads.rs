//! Data threads: each a current-thread runtime that runs sockets, muxes and HTTP, and nothing else.
//!
//! One thread accepts for all and deals the sockets out in turn; a socket stays where it was assigned. A second listener
//! per thread (`SO_REUSEPORT`) would let a second server bind unnoticed and drop queued connections when one closes.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use adit_ingress::descriptors::{Descriptor, Descriptors};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::{mpsc, watch},
};

use crate::{floods::Floods, port::Port};

/// Sockets that may wait for a thread; more are closed, as a full backlog would.
const ASSIGNED_QUEUE: usize = 1024;

/// A pause after `accept` failed, for want of file descriptors as a rule: there is nothing to do but wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Assigned = (StdStream, Accepted);
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What to run for each socket.
pub(crate) type Serve = dyn Fn(TcpStream, SocketAddr, Port) -> Task + Send + Sync;

/// A connection on its way to a thread.
struct Accepted {
    peer: SocketAddr,
    port: Port,
    /// Of a visitor; given back when the connection has been served.
    descriptor: Option<Descriptor>,
}

impl Accepted {
    fn serve(self, stream: TcpStream, serve: &Serve) {
        let served = serve(stream, self.peer, self.port);
        tokio::spawn(async move {
            served.await;
            drop(self.descriptor);
        });
    }
}

/// Deals sockets to threads.
pub(crate) struct Acceptor {
    others: Vec<(mpsc::Sender<Assigned>, Handle)>,
    turn: AtomicUsize,
    serve: Arc<Serve>,
    guard: Guard,
}

/// What an accepting thread does not exceed, and what it counts.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) floods: Arc<Floods>,
}

impl Acceptor {
    /// For the one thread that accepts.
    pub(crate) fn alone(serve: Arc<Serve>, guard: Guard) -> Self {
        Self {
            others: Vec::new(),
            turn: AtomicUsize::new(0),
            serve,
            guard,
        }
    }

    /// The runtime of the next thread, for what needs one for itself. `own` is that of this acceptor's thread.
    pub(crate) fn next_runtime<'h>(&'h self, own: &'h Handle) -> &'h Handle {
        let other = self.next_turn();
        other.map_or(own, |(_, runtime)| runtime)
    }

    fn next_turn(&self) -> Option<&(mpsc::Sender<Assigned>, Handle)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        turn.checked_sub(1).and_then(|other| self.others.get(other))
    }

    /// Gives a socket to the next thread; this one's own turn needs no crossing.
    fn assign(&self, stream: TcpStream, accepted: Accepted) {
        let peer = accepted.peer;
        match self.next_turn() {
            None => accepted.serve(stream, &*self.serve),
            Some((other, _)) => {
                let assigned = stream
                    .into_std()
                    .map(|stream| other.try_send((stream, accepted)));
                if !matches!(assigned, Ok(Ok(()))) {
                    tracing::warn!(%peer, "a data thread is overloaded; connection closed");
                }
            }
        }
    }
}

/// The running threads.
pub(crate) struct Threads {
    handles: Vec<JoinHandle<()>>,
    runtimes: Vec<Handle>,
}

impl Threads {
    /// Starts `count` threads. The first runs `accept` with the acceptor; all end when `stop` says true.
    pub(crate) fn start(
        count: usize,
        serve: Arc<Serve>,
        guard: Guard,
        stop: &watch::Receiver<bool>,
        accept: impl FnOnce(Acceptor) -> Task + Send + 'static,
    ) -> io::Result<Self> {
        let mut threads = Self {
            handles: Vec::new(),
            runtimes: Vec::new(),
        };
        let mut others = Vec::new();
        for index in 1..count.max(1) {
            let (sender, receiver) = mpsc::channel(ASSIGNED_QUEUE);
            let assigned = serve.clone();
            let work = Box::pin(async move { serve_assigned(receiver, &*assigned).await });
            let runtime = threads.spawn(index, stop.clone(), move || work)?;
            others.push((sender, runtime));
        }
        let acceptor = Acceptor {
            others,
            ..Acceptor::alone(serve, guard)
        };
        threads.spawn(0, stop.clone(), move || accept(acceptor))?;
        Ok(threads)
    }

    fn spawn(
        &mut self,
        index: usize,
        mut stop: watch::Receiver<bool>,
        work: impl FnOnce() -> Task + Send + 'static,
    ) -> io::Result<Handle> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let runtime_handle = runtime.handle().clone();
        self.runtimes.push(runtime_handle.clone());
        let handle = thread::Builder::new()
            .name(format!("data-{index}"))
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::spawn(work());
                    // A dropped sender means that nobody is left to say stop.
                    let _ = stop.wait_for(|stop| *stop).await;
                });
            })?;
        self.handles.push(handle);
        Ok(runtime_handle)
    }

    /// For counting their tasks.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.runtimes.clone()
    }

    /// Waits for the threads to end, once they were told to stop.
    pub(crate) fn join(&mut self) {
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a data thread panicked");
            }
        }
    }
}

async fn serve_assigned(mut receiver: mpsc::Receiver<Assigned>, serve: &Serve) {
    while let Some((stream, accepted)) = receiver.recv().await {
        match TcpStream::from_std(stream) {
            Ok(stream) => accepted.serve(stream, serve),
            Err(error) => {
                tracing::warn!(peer = %accepted.peer, %error, "socket lost between threads");
            }
        }
    }
}

/// Accepts and deals until `until` completes.
///
/// # Cancel safety
/// Yes.
pub(crate) async fn accept(
    listener: &TcpListener,
    port: Port,
    acceptor: &Acceptor,
    until: impl Future<Output = ()>,
) {
    let mut until = std::pin::pin!(until);
    let floods = &acceptor.guard.floods;
    loop {
        // Those of clients have what visitors leave.
        let descriptors = port
            .listener()
            .map(|number| (&acceptor.guard.descriptors, number));
        if let Some((descriptors, number)) = descriptors
            && !descriptors.has_room(number)
        {
            floods.full(port, descriptors.limit());
            tokio::select! {
                () = descriptors.room(number) => {}
                () = until.as_mut() => return,
            }
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until.as_mut() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let descriptor = descriptors.map(|(descriptors, number)| descriptors.take(number));
                let accepted = Accepted {
                    peer: adit_ingress::listener::visitor_addr(peer),
                    port,
                    descriptor,
                };
                acceptor.assign(stream, accepted);
            }
            Err(error) => {
                floods.accept_failed(port, &error);
                // Whoever left the queue before it was taken costs the others no time.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
