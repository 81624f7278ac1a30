//! Data threads: each a current-thread runtime that runs sockets, muxes and HTTP, and nothing else.
//!
//! One thread accepts all connections and assigns their streams to the threads in turn; a stream stays on its thread. A
//! second listener per thread (`SO_REUSEPORT`) would let a second server bind unnoticed and drop queued connections
//! when one closes.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use adit_net::{
    AcceptLoop, AcceptReport, Accepted, Descriptor, Descriptors, Detached, Listener, Stream,
};
use tokio::{
    runtime::{self, Handle},
    sync::{mpsc, watch},
};

use crate::{floods::Floods, port::Port};

/// Streams that may wait for a thread; further ones are closed, as by a full backlog.
const ASSIGNED_QUEUE: usize = 1024;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The function that serves each stream.
pub(crate) type Serve = dyn Fn(Stream, SocketAddr, Port) -> Task + Send + Sync;

/// A connection that is being passed to a thread.
struct Assigned {
    stream: Detached,
    peer: SocketAddr,
    port: Port,
    /// The descriptor that a visitor's connection uses; released when the connection has been served.
    descriptor: Option<Descriptor>,
}

/// Assigns streams to threads.
pub(crate) struct Acceptor {
    others: Vec<(mpsc::Sender<Assigned>, Handle)>,
    turn: AtomicUsize,
    serve: Arc<Serve>,
    guard: Guard,
}

/// The bound on accepted connections, and the log of failures to accept.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) floods: Arc<Floods>,
}

impl Acceptor {
    /// An acceptor for a single thread, which also accepts.
    pub(crate) fn alone(serve: Arc<Serve>, guard: Guard) -> Self {
        Self {
            others: Vec::new(),
            turn: AtomicUsize::new(0),
            serve,
            guard,
        }
    }

    /// The runtime of the next thread, for a task that needs one. `own` is that of this acceptor's thread.
    pub(crate) fn next_runtime<'h>(&'h self, own: &'h Handle) -> &'h Handle {
        let other = self.next_turn();
        other.map_or(own, |(_, runtime)| runtime)
    }

    fn next_turn(&self) -> Option<&(mpsc::Sender<Assigned>, Handle)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        turn.checked_sub(1).and_then(|other| self.others.get(other))
    }

    /// The accept loop of one port. Connections of clients may use the descriptors that visitors must leave free.
    pub(crate) fn accept_on(&self, listener: Listener, port: Port) -> AcceptLoop<PortReport> {
        let floods = self.guard.floods.clone();
        let accepting = AcceptLoop::new(listener, PortReport { floods, port });
        match port.listener() {
            Some(number) => accepting.bounded(self.guard.descriptors.clone(), number),
            None => accepting,
        }
    }

    /// Assigns a stream to the next thread; if that is the acceptor's own thread, directly.
    #[allow(clippy::result_large_err)] // a refused stream returns in the error, once per connection
    pub(crate) fn assign(&self, accepted: Accepted, port: Port) {
        let Accepted {
            stream,
            peer,
            descriptor,
        } = accepted;
        let Some((other, _)) = self.next_turn() else {
            return serve((stream, peer, port), descriptor, &*self.serve);
        };
        let assigned = stream.detach().map(|stream| {
            other.try_send(Assigned {
                stream,
                peer,
                port,
                descriptor,
            })
        });
        if !matches!(assigned, Ok(Ok(()))) {
            tracing::warn!(%peer, "a data thread is overloaded; connection closed");
        }
    }
}

/// Logs what an accept loop reports.
pub(crate) struct PortReport {
    floods: Arc<Floods>,
    port: Port,
}

impl AcceptReport for PortReport {
    fn on_full(&self, limit: usize) {
        self.floods.full(self.port, limit);
    }

    fn on_failed(&self, error: &io::Error) {
        self.floods.accept_failed(self.port, error);
    }
}

/// Serves one connection in a task, which holds its descriptor.
fn serve(
    (stream, peer, port): (Stream, SocketAddr, Port),
    descriptor: Option<Descriptor>,
    serve: &Serve,
) {
    let served = serve(stream, peer, port);
    tokio::spawn(async move {
        served.await;
        drop(descriptor);
    });
}

/// The running threads.
pub(crate) struct Threads {
    handles: Vec<JoinHandle<()>>,
    runtimes: Vec<Handle>,
}

impl Threads {
    /// Starts `count` threads. The first runs `accept` with the acceptor; all end when `stop` becomes true.
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
                    // A dropped sender stops the thread too.
                    let _ = stop.wait_for(|stop| *stop).await;
                });
            })?;
        self.handles.push(handle);
        Ok(runtime_handle)
    }

    /// The runtimes of the threads, to count their tasks.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.runtimes.clone()
    }

    /// Waits for the end of the threads, after the signal to stop.
    pub(crate) fn join(&mut self) {
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a data thread panicked");
            }
        }
    }
}

async fn serve_assigned(mut receiver: mpsc::Receiver<Assigned>, served_by: &Serve) {
    while let Some(assigned) = receiver.recv().await {
        let (peer, port) = (assigned.peer, assigned.port);
        match assigned.stream.attach() {
            Ok(stream) => serve((stream, peer, port), assigned.descriptor, served_by),
            Err(error) => tracing::warn!(%peer, %error, "a connection was lost between threads"),
        }
    }
}
