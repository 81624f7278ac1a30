//! Sends a visitor's body, as fast as credit and the visitor allow.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use adit_codec::{HeaderBlock, ResetCode};
use adit_link::{
    Failure, Reason, SendHalf,
    turn::{TURN_BYTES, Turn},
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    demand::{Demand, LOOK},
    inbound::Inbound,
    pace::Pace,
};

/// At which rate a visitor owes its body.
pub(crate) struct Owed {
    pub(crate) pace: Pace,
    /// Others that wait for its permits.
    pub(crate) demand: Demand,
    /// How long it may be slow when they do.
    pub(crate) grace: Duration,
}

impl Owed {
    fn is_wanted(&self) -> bool {
        self.pace.is_slow(self.grace) && self.demand.is_there()
    }
}

/// How a pump is to end before its time.
enum Order {
    /// The answer is whole; the body goes on by itself.
    Detach,
    Reset(ResetCode, &'static str),
}

/// What a pump tells while it runs.
pub(crate) struct Progress {
    start: Instant,
    /// When the visitor last sent something, in milliseconds from the start.
    progress_millis: AtomicU64,
    received_bytes: AtomicU64,
    /// The other side wanted no more of the body, or the exchange failed.
    stopped: AtomicBool,
    /// What the visitor did wrong.
    failure: OnceLock<Failure>,
}

impl Progress {
    /// What it has read of the body, in bytes.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }
}

/// The handle on a running pump. Dropping it resets the exchange: the visitor left.
pub(crate) struct Pump {
    order: Option<oneshot::Sender<Order>>,
    log: Arc<Progress>,
    task: JoinHandle<Option<Inbound>>,
}

impl Pump {
    /// Starts sending `first` and then `body`. A visitor that is slower than it owes has failed; without `owed` it may be
    /// silent as long as it likes.
    /// `cancels_at_once`: when the visitor leaves, nothing of it is of use to the service any more.
    pub(crate) fn start(
        first: Bytes,
        body: Inbound,
        send: SendHalf,
        owed: Option<Owed>,
        cancels_at_once: bool,
    ) -> Self {
        let (order, orders) = oneshot::channel();
        let log = Arc::new(Progress {
            start: Instant::now(),
            progress_millis: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            failure: OnceLock::new(),
        });
        let worker = Worker {
            body,
            send,
            owed,
            cancels_at_once,
            log: log.clone(),
            orders: Some(orders),
            timer: None,
            pending: first,
            touched: false,
            turn: Turn::new(TURN_BYTES),
        };
        Self {
            order: Some(order),
            log,
            task: tokio::spawn(worker.run()),
        }
    }

    /// What it tells while it runs, for whoever asks when it may be gone.
    pub(crate) fn log(&self) -> Arc<Progress> {
        self.log.clone()
    }

    /// When the visitor last sent something.
    pub(crate) fn progress(&self) -> Instant {
        let millis = self.log.progress_millis.load(Ordering::Relaxed);
        self.log.start + Duration::from_millis(millis)
    }

    /// What the visitor did wrong, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.log.failure.get().cloned()
    }

    /// Whether the rest of the body is not going to be read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.log.stopped.load(Ordering::Relaxed)
    }

    /// Lets it run to its end alone.
    pub(crate) fn detach(mut self) {
        self.give(Order::Detach);
    }

    /// Ends the exchange.
    pub(crate) fn reset(mut self, code: ResetCode, reason: &'static str) {
        self.give(Order::Reset(code, reason));
    }

    /// The body back, if nothing of it has been read. For exchanges that failed.
    pub(crate) async fn untouched(mut self) -> Option<Inbound> {
        // It has seen the failure, or sees it now.
        (&mut self.task).await.ok().flatten()
    }

    fn give(&mut self, order: Order) {
        if let Some(orders) = self.order.take() {
            // One that has ended needs no orders.
            let _ = orders.send(order);
        }
    }
}

struct Worker {
    body: Inbound,
    send: SendHalf,
    owed: Option<Owed>,
    cancels_at_once: bool,
    log: Arc<Progress>,
    orders: Option<oneshot::Receiver<Order>>,
    timer: Option<Pin<Box<Sleep>>>,
    pending: Bytes,
    touched: bool,
    /// Chunks may be small, and many of them may be here.
    turn: Turn,
}

enum Step {
    Data(usize),
    Frame(Option<Result<Frame<Bytes>, Failure>>),
    Over(Failure),
    Ordered(Order),
    Left,
    Stalled,
}

impl Worker {
    async fn run(mut self) -> Option<Inbound> {
        loop {
            self.turn.yield_if_over().await;
            let step = std::future::poll_fn(|cx| {
                let step = self.poll_step(cx);
                if step.is_pending() {
                    self.turn.end();
                }
                step
            });
            let step = step.await;
            self.turn.step(0);
            let sent = match step {
                Step::Data(allowed) => self.send_some(allowed),
                Step::Frame(Some(Ok(frame))) => match self.on_frame(frame) {
                    Ok(true) => return None,
                    Ok(false) => Ok(()),
                    Err(failure) => Err(failure),
                },
                Step::Frame(None) => {
                    // Fails only when the exchange has ended otherwise.
                    let _ = self.send.finish();
                    return None;
                }
                Step::Frame(Some(Err(failure))) => {
                    self.blame(failure, ResetCode::Cancelled);
                    return None;
                }
                Step::Stalled => {
                    let failure = Failure::new(Reason::Stalled, "the body did not come in time");
                    self.blame(failure, ResetCode::Stalled);
                    return None;
                }
                Step::Ordered(Order::Detach) => {
                    self.orders = None;
                    Ok(())
                }
                Step::Ordered(Order::Reset(code, reason)) => {
                    self.send.reset(code, reason);
                    return None;
                }
                Step::Left => {
                    self.leave();
                    return None;
                }
                Step::Over(failure) => Err(failure),
            };
            if sent.is_err() {
                self.log.stopped.store(true, Ordering::Relaxed);
                let again = !self.touched && self.send.stopped().is_none();
                return again.then_some(self.body);
            }
            if self.pending.is_empty() && self.touched && self.body.is_end_stream() {
                // Its end has gone with the last of it.
                return None;
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(orders) = &mut self.orders
            && let Poll::Ready(order) = Pin::new(orders).poll(cx)
        {
            return Poll::Ready(order.map_or(Step::Left, Step::Ordered));
        }
        // Asked even when there is nothing to send: it says when nobody wants the body any more.
        match self.send.poll_ready(cx) {
            Poll::Ready(Err(failure)) => return Poll::Ready(Step::Over(failure)),
            Poll::Ready(Ok(allowed)) if !self.pending.is_empty() => {
                return Poll::Ready(Step::Data(allowed));
            }
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => {
                // Without credit the visitor owes us nothing.
                if let Some(owed) = &mut self.owed {
                    owed.pace.clear();
                }
                return Poll::Pending;
            }
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(Step::Frame(frame));
        }
        let Some(owed) = &mut self.owed else {
            return Poll::Pending;
        };
        let deadline = owed.pace.wait();
        let next = |now: Instant| deadline.min(now + LOOK);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(next(Instant::now()))));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= deadline || owed.is_wanted() {
                return Poll::Ready(Step::Stalled);
            }
            timer.as_mut().reset(next(now));
        }
        Poll::Pending
    }

    /// Whether that was the end.
    fn on_frame(&mut self, frame: Frame<Bytes>) -> Result<bool, Failure> {
        self.touched = true;
        let progress = u64::try_from(self.log.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.log.progress_millis.store(progress, Ordering::Relaxed);
        match frame.into_data() {
            Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                self.send.finish().map(|()| true)
            }
            Ok(data) => {
                let received = data.len() as u64;
                self.log
                    .received_bytes
                    .fetch_add(received, Ordering::Relaxed);
                if let Some(owed) = &mut self.owed {
                    owed.pace.moved(received);
                }
                self.pending = data;
                Ok(false)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.send.finish_with(block_of(&trailers)).map(|()| true),
                Err(_) => Ok(false),
            },
        }
    }

    fn send_some(&mut self, allowed: usize) -> Result<(), Failure> {
        let part = self.pending.split_to(allowed.min(self.pending.len()));
        let end = self.pending.is_empty() && self.body.is_end_stream();
        self.send.send(part, end)
    }

    fn blame(self, failure: Failure, code: ResetCode) {
        let reason = failure.detail.clone();
        // Before the reset, which wakes whoever asks.
        let _ = self.log.failure.set(failure);
        self.send.abort(code, &reason);
    }

    /// The visitor left. What it sent before goes on to the service, as far as it is here and needs no waiting.
    fn leave(mut self) {
        if self.cancels_at_once {
            self.send.reset(ResetCode::Cancelled, LEFT);
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(allowed)) = self.send.poll_ready(&mut cx) {
            if self.pending.is_empty() {
                match Pin::new(&mut self.body).poll_frame(&mut cx) {
                    Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                        self.pending = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    _ => break,
                }
            }
            let part = self.pending.split_to(allowed.min(self.pending.len()));
            if self.send.send(part, false).is_err() {
                break;
            }
        }
        self.send.abort(ResetCode::Cancelled, LEFT);
    }
}

const LEFT: &str = "the visitor left";

/// Trailers as they cross.
pub(crate) fn block_of(trailers: &HeaderMap) -> HeaderBlock {
    trailers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect()
}
