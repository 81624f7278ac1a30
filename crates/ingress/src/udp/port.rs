//! One public port: reads datagrams, knows the flows, ends those that are silent.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::MAX_DATAGRAM_BYTES;
use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep},
};

use super::{
    Udp,
    flow::{Flow, Over, Run},
    flows::{Flows, Heard},
    stats::{Counters, count},
};
use crate::admission::Admission;

/// Datagrams read in one turn; then the thread's other tasks have theirs.
const BATCH: usize = 64;

/// The same in bytes: well below what a lane lets wait of one flow, whose writer is among those tasks.
const BATCH_BYTES: usize = 128 * 1024;

/// No datagram is as long: what does not fit can be told from what does.
const BUFFER_BYTES: usize = 64 * 1024;

/// After an error of the socket, before it is read again: one that lasts must not take a thread.
const PAUSE: Duration = Duration::from_millis(10);

/// What the flows of a port share.
pub(super) struct Shared {
    udp: Arc<Udp>,
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    pub(super) local_text: String,
    opened: Instant,
}

impl Shared {
    /// Time since the port was opened, by the runtime's clock.
    pub(super) fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.udp.counters
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.udp.admission
    }
}

/// A flow in the table, with the handle on its task.
#[derive(Clone)]
struct Entry {
    flow: Arc<Flow>,
    task: AbortHandle,
}

impl Heard for Entry {
    fn heard(&self) -> Duration {
        self.flow.heard()
    }
}

/// One public port, owned by the task that reads it.
pub(super) struct Port {
    shared: Arc<Shared>,
    session_timeout: Duration,
    flows: Flows<Entry>,
    tasks: JoinSet<Arc<Flow>>,
    /// Flows whose end has been sent, and when the other side's must have come. No more than there are flows: each has
    /// been among them, silent, for the session timeout.
    ending: VecDeque<(Duration, AbortHandle)>,
    timer: Pin<Box<Sleep>>,
    buffer: Box<[u8]>,
    draining: bool,
}

enum Turn {
    /// There may be more to read.
    More,
    /// The socket cannot be read at this moment.
    Failed,
    /// Drained.
    Over,
}

impl Port {
    pub(super) fn new(
        udp: Arc<Udp>,
        socket: UdpSocket,
        session_timeout: Duration,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let shared = Shared {
            udp,
            socket,
            local,
            local_text: local.to_string(),
            opened: Instant::now(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            session_timeout,
            flows: Flows::new(),
            tasks: JoinSet::new(),
            ending: VecDeque::new(),
            timer: Box::pin(sleep(Duration::ZERO)),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            draining: false,
        })
    }

    pub(super) async fn serve(mut self, drain: impl Future<Output = ()>) {
        let mut drain = std::pin::pin!(drain);
        // What has not been told that a socket can be written to says that it cannot.
        if let Err(error) = self.shared.socket.writable().await {
            tracing::error!(%error, port = self.shared.local.port(), "a UDP port could not be served");
            return;
        }
        loop {
            match poll_fn(|cx| self.poll_turn(cx, drain.as_mut())).await {
                Turn::More => tokio::task::yield_now().await,
                Turn::Failed => sleep(PAUSE).await,
                Turn::Over => return,
            }
        }
    }

    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        drain: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Turn> {
        if !self.draining && drain.poll(cx).is_ready() {
            self.draining = true;
        }
        let read = self.poll_read(cx);
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
            if let Ok(flow) = ended {
                self.forget(&flow);
            }
        }
        self.poll_timer(cx);
        if self.draining && self.tasks.is_empty() {
            return Poll::Ready(Turn::Over);
        }
        read
    }

    /// Reads until there is nothing more to read, or a batch.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let (mut left, mut bytes) = (BATCH, 0);
        while left > 0 && bytes < BATCH_BYTES {
            if std::task::ready!(self.shared.socket.poll_recv_ready(cx)).is_err() {
                return Poll::Ready(Turn::Failed);
            }
            let now = self.shared.now();
            while left > 0 && bytes < BATCH_BYTES {
                match self.shared.socket.try_recv_from(&mut self.buffer) {
                    Ok((length, visitor)) => {
                        bytes += length;
                        self.on_datagram(length, visitor, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        tracing::debug!(%error, port = self.shared.local.port(), "a UDP port was not read");
                        return Poll::Ready(Turn::Failed);
                    }
                }
                left -= 1;
            }
        }
        Poll::Ready(Turn::More)
    }

    fn on_datagram(&mut self, length: usize, visitor: SocketAddr, now: Duration) {
        let Some(data) = self.buffer.get(..length) else {
            return;
        };
        let counters = self.shared.counters();
        count(&counters.datagrams_in);
        counters
            .bytes_in
            .fetch_add(length as u64, Ordering::Relaxed);
        // IPv6 carries some that IPv4 does not: the service may be reached by either.
        if length > MAX_DATAGRAM_BYTES {
            count(&counters.too_long);
            return;
        }
        if let Some(entry) = self.flows.find(&visitor) {
            match entry.flow.take(data, now) {
                Ok(()) => return,
                Err(Over) => drop(self.flows.remove(&visitor)),
            }
        }
        if self.draining {
            count(&counters.draining);
            return;
        }
        while self.flows.len() >= self.shared.udp.config.max_flows.max(1) {
            let Some(silent) = self.flows.take_silent(Duration::MAX) else {
                break;
            };
            count(&counters.flows_evicted);
            silent.flow.evict();
            silent.task.abort();
        }
        let flow = Flow::new(visitor, self.shared.udp.room.clone());
        // It is new: it takes what it is given.
        let _ = flow.take(data, now);
        let run = Run::new(flow.clone(), self.shared.clone());
        let task = self.tasks.spawn(run.run());
        self.flows.insert(visitor, Entry { flow, task });
    }

    /// Takes a flow that is over out of the table, unless its visitor has another one by now.
    fn forget(&mut self, flow: &Arc<Flow>) {
        let visitor = flow.visitor();
        let entry = self.flows.find(&visitor);
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.flow, flow)) {
            self.flows.remove(&visitor);
        }
    }

    /// One timer for all flows: it is set for the first that can fall due, and looks again when it rings.
    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        while let Some(due) = self.due() {
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.expire();
        }
    }

    fn due(&self) -> Option<Instant> {
        let silent = self.flows.earliest();
        let silent = silent.map(|at| at.saturating_add(self.session_timeout));
        let ended = self.ending.front().map(|(at, _)| *at);
        let first = silent.into_iter().chain(ended).min()?;
        // No end for times that no clock reaches.
        self.shared.opened.checked_add(first)
    }

    fn expire(&mut self) {
        let now = self.shared.now();
        while let Some((_, task)) = self.ending.pop_front_if(|(at, _)| *at <= now) {
            task.abort();
        }
        // P-11.4
        let Some(until) = now.checked_sub(self.session_timeout) else {
            return;
        };
        while let Some(silent) = self.flows.take_silent(until) {
            count(&self.shared.counters().flows_silent);
            if silent.flow.finish() {
                let until = now.saturating_add(self.shared.udp.config.end_timeout);
                self.ending.push_back((until, silent.task));
            } else {
                silent.task.abort();
            }
        }
    }
}
