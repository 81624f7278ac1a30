//! A public port: reads datagrams, passes them to flows, and ends silent flows.

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
    context::{PortContext, UdpContext},
    flow::{Flow, NotTaken, Run},
    flows::{Flows, LastSeen},
    stats::count,
};

/// Datagrams read in one turn, before the thread's other tasks run.
const BATCH: usize = 64;

/// Bytes read in one turn: well below the bytes of one flow that may wait in a lane, whose writer is among those tasks.
const BATCH_BYTES: usize = 128 * 1024;

/// The size of the buffer: longer than any datagram, so that a truncated one can be recognized.
const BUFFER_BYTES: usize = 64 * 1024;

/// Pause after a socket error: a lasting error must not occupy a thread.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A flow in the table, with the handle on its task.
#[derive(Clone)]
struct Entry {
    flow: Arc<Flow>,
    task: AbortHandle,
}

impl LastSeen for Entry {
    fn last_seen(&self) -> Duration {
        self.flow.last_seen()
    }
}

/// A public port, owned by the task that reads it.
pub(super) struct Port {
    context: Arc<PortContext>,
    session_timeout: Duration,
    /// Flows whose visitors were admitted.
    flows: Flows<Entry>,
    /// Flows that have not passed the layers yet, or were denied. They are bounded apart: datagrams in the names of any
    /// number of addresses end no flow of a visitor that was admitted (P-11.2).
    fresh: Flows<Entry>,
    tasks: JoinSet<Arc<Flow>>,
    /// Flows whose end has been sent, and when the end of the other side is due. Their number is bounded by that of the
    /// flows: each has been silent for the session timeout.
    ending: VecDeque<(Duration, AbortHandle)>,
    timer: Pin<Box<Sleep>>,
    buffer: Box<[u8]>,
    draining: bool,
}

enum Turn {
    /// The socket may have more datagrams to read.
    More,
    /// The socket cannot be read at this moment.
    Failed,
    /// The port is drained.
    Over,
}

impl Port {
    pub(super) fn new(
        udp: Arc<UdpContext>,
        socket: UdpSocket,
        session_timeout: Duration,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            context: Arc::new(PortContext::new(udp, socket, local)),
            session_timeout,
            flows: Flows::new(),
            fresh: Flows::new(),
            tasks: JoinSet::new(),
            ending: VecDeque::new(),
            timer: Box::pin(sleep(Duration::ZERO)),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            draining: false,
        })
    }

    pub(super) async fn serve(mut self, drain: impl Future<Output = ()>) {
        let mut drain = std::pin::pin!(drain);
        // tokio reports a socket as not writable until it has polled it once.
        if let Err(error) = self.context.socket.writable().await {
            tracing::error!(%error, port = self.context.local.port(), "cannot serve the UDP port");
            return;
        }
        loop {
            match poll_fn(|cx| self.poll_turn(cx, drain.as_mut())).await {
                Turn::More => tokio::task::yield_now().await,
                Turn::Failed => sleep(ERROR_PAUSE).await,
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
        for visitor in self.context.take_admitted(cx) {
            self.admit(visitor);
        }
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
            if let Ok(flow) = ended {
                self.remove(&flow);
            }
        }
        self.poll_timer(cx);
        if self.draining && self.tasks.is_empty() {
            return Poll::Ready(Turn::Over);
        }
        read
    }

    /// Reads until the socket is empty, or a batch.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let (mut left, mut bytes) = (BATCH, 0);
        while left > 0 && bytes < BATCH_BYTES {
            if std::task::ready!(self.context.socket.poll_recv_ready(cx)).is_err() {
                return Poll::Ready(Turn::Failed);
            }
            let now = self.context.now();
            while left > 0 && bytes < BATCH_BYTES {
                match self.context.socket.try_recv_from(&mut self.buffer) {
                    Ok((length, visitor)) => {
                        bytes += length;
                        self.on_datagram(length, visitor, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        tracing::debug!(%error, port = self.context.local.port(), "UDP receive error");
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
        let counters = self.context.counters();
        count(&counters.datagrams_in);
        counters
            .bytes_in
            .fetch_add(length as u64, Ordering::Relaxed);
        // IPv6 carries longer datagrams than IPv4, and the service may be reached over either.
        if length > MAX_DATAGRAM_BYTES {
            count(&counters.too_long);
            return;
        }
        if let Some(entry) = self.find(&visitor) {
            match entry.flow.take(data, now) {
                Ok(()) => return,
                Err(NotTaken::Denied) => {
                    count(&counters.denied);
                    return;
                }
                Err(NotTaken::Ended) => {
                    self.flows.remove(&visitor);
                    self.fresh.remove(&visitor);
                }
            }
        }
        if self.draining {
            count(&counters.draining);
            return;
        }
        let room = self.max_flows() - 1;
        evict(&mut self.fresh, room, &self.context);
        let flow = Flow::new(visitor, self.context.udp.room.clone());
        // A new flow accepts any datagram.
        let _ = flow.take(data, now);
        let run = Run::new(flow.clone(), self.context.clone());
        let task = self.tasks.spawn(run.run());
        self.fresh.insert(visitor, Entry { flow, task });
    }

    fn max_flows(&self) -> usize {
        self.context.udp.config.load().max_flows.max(1)
    }

    fn find(&self, visitor: &SocketAddr) -> Option<&Entry> {
        let flow = self.flows.find(visitor);
        flow.or_else(|| self.fresh.find(visitor))
    }

    /// Counts the flow of a visitor that was admitted, and makes room for it.
    fn admit(&mut self, visitor: SocketAddr) {
        // The visitor may have another flow by now, which was not admitted.
        let is_open = |entry: &Entry| entry.flow.is_open();
        if self.fresh.find(&visitor).is_some_and(is_open)
            && let Some(entry) = self.fresh.remove(&visitor)
        {
            let room = self.max_flows() - 1;
            evict(&mut self.flows, room, &self.context);
            self.flows.insert(visitor, entry);
        }
    }

    /// Removes an ended flow from its table, unless its visitor has a new one.
    fn remove(&mut self, flow: &Arc<Flow>) {
        let visitor = flow.visitor();
        for flows in [&mut self.flows, &mut self.fresh] {
            let entry = flows.find(&visitor);
            if entry.is_some_and(|entry| Arc::ptr_eq(&entry.flow, flow)) {
                flows.remove(&visitor);
            }
        }
    }

    /// Sets one timer for all flows, to the time at which the first of them may have been silent too long.
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
        let silent = [self.flows.earliest(), self.fresh.earliest()];
        let silent = silent.into_iter().flatten().min();
        let silent = silent.map(|at| at.saturating_add(self.session_timeout));
        let ended = self.ending.front().map(|(at, _)| *at);
        let first = silent.into_iter().chain(ended).min()?;
        // No timer is set for a time beyond the range of the clock.
        self.context.opened.checked_add(first)
    }

    fn expire(&mut self) {
        let now = self.context.now();
        while let Some((_, task)) = self.ending.pop_front_if(|(at, _)| *at <= now) {
            task.abort();
        }
        // P-11.4
        let Some(until) = now.checked_sub(self.session_timeout) else {
            return;
        };
        let mut silent =
            || { self.flows.take_silent(until) }.or_else(|| self.fresh.take_silent(until));
        while let Some(silent) = silent() {
            count(&self.context.counters().flows_silent);
            if silent.flow.finish() {
                let until = now.saturating_add(self.context.udp.config.load().end_timeout);
                self.ending.push_back((until, silent.task));
            } else {
                silent.task.abort();
            }
        }
    }
}

/// Ends the flows that have been silent longest, until there are no more than `room`.
fn evict(flows: &mut Flows<Entry>, room: usize, context: &PortContext) {
    while flows.len() > room {
        let Some(silent) = flows.take_silent(Duration::MAX) else {
            return;
        };
        if silent.flow.evict() {
            count(&context.counters().flows_evicted);
        }
        silent.task.abort();
    }
}
