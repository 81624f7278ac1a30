//! Data threads: each a current-thread runtime that runs sockets, muxes and HTTP, and nothing else.
//!
//! One thread accepts for all and deals the sockets out in turn; a socket stays where it was dealt. A second listener
//! per thread (`SO_REUSEPORT`) would let a second server bind unnoticed and drop queued connections when one closes.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
};

use tokio::{
    net::TcpStream,
    runtime::{self, Handle},
    sync::{mpsc, watch},
};

/// Sockets that may wait for a thread; more are closed, as a full backlog would.
const DEALT_QUEUE: usize = 1024;

/// Which port a socket came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Visitors,
    Clients,
}

type Dealt = (StdStream, SocketAddr, Port);
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What to run for each socket.
pub(crate) type Serve = dyn Fn(TcpStream, SocketAddr, Port) -> Task + Send + Sync;

/// Deals sockets to threads.
pub(crate) struct Dealer {
    others: Vec<mpsc::Sender<Dealt>>,
    turn: AtomicUsize,
    serve: std::sync::Arc<Serve>,
}

impl Dealer {
    /// Gives a socket to the next thread; this one's own turn needs no crossing.
    pub(crate) fn deal(&self, stream: TcpStream, peer: SocketAddr, port: Port) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        match turn.checked_sub(1).and_then(|other| self.others.get(other)) {
            None => {
                tokio::spawn((self.serve)(stream, peer, port));
            }
            Some(other) => {
                let dealt = stream
                    .into_std()
                    .map(|stream| other.try_send((stream, peer, port)));
                if !matches!(dealt, Ok(Ok(()))) {
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
    /// Starts `count` threads. The first runs `accept` with the dealer; all end when `stop` says true.
    pub(crate) fn start(
        count: usize,
        serve: std::sync::Arc<Serve>,
        stop: &watch::Receiver<bool>,
        accept: impl FnOnce(Dealer) -> Task + Send + 'static,
    ) -> io::Result<Self> {
        let mut threads = Self {
            handles: Vec::new(),
            runtimes: Vec::new(),
        };
        let mut others = Vec::new();
        for index in 1..count.max(1) {
            let (sender, receiver) = mpsc::channel(DEALT_QUEUE);
            others.push(sender);
            let serve = serve.clone();
            let work = Box::pin(async move { serve_dealt(receiver, &*serve).await });
            threads.spawn(index, stop.clone(), move || work)?;
        }
        let dealer = Dealer {
            others,
            turn: AtomicUsize::new(0),
            serve,
        };
        threads.spawn(0, stop.clone(), move || accept(dealer))?;
        Ok(threads)
    }

    fn spawn(
        &mut self,
        index: usize,
        mut stop: watch::Receiver<bool>,
        work: impl FnOnce() -> Task + Send + 'static,
    ) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        self.runtimes.push(runtime.handle().clone());
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
        Ok(())
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

async fn serve_dealt(mut receiver: mpsc::Receiver<Dealt>, serve: &Serve) {
    while let Some((stream, peer, port)) = receiver.recv().await {
        match TcpStream::from_std(stream) {
            Ok(stream) => drop(tokio::spawn(serve(stream, peer, port))),
            Err(error) => tracing::warn!(%peer, %error, "socket lost between threads"),
        }
    }
}
