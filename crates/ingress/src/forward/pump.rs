//! Sends a request body, as fast as credit and the visitor allow.

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

use adit_codec::ResetCode;
use adit_link::{
    Failure, Reason, SendHalf,
    turn::{TURN_BYTES, Turn},
};
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

use crate::forward::{
    demand::{CHECK_INTERVAL, Demand},
    inbound::Inbound,
    pace::Pace,
    reserved::Reserved,
};

/// The rate at which a visitor must send its body.
pub(crate) struct Owed {
    pub(crate) pace: Pace,
    /// Other requests that wait for the permits of this request.
    pub(crate) demand: Demand,
    /// How long the visitor may be slow while other requests wait.
    pub(crate) grace: Duration,
}

impl Owed {
    fn is_wanted(&self) -> bool {
        self.pace.is_slow(self.grace) && self.demand.exists()
    }
}

/// A command to a running pump.
enum Command {
    /// The response is complete; the pump continues on its own.
    Detach,
    Reset(ResetCode, &'static str),
}

/// The state of a pump that others can read.
pub(crate) struct Progress {
    start: Instant,
    /// When the visitor last sent bytes, in milliseconds from the start.
    progress_millis: AtomicU64,
    received_bytes: AtomicU64,
    /// The other side stopped the body, or the exchange failed.
    stopped: AtomicBool,
    /// The visitor's fault, if the body failed.
    failure: OnceLock<Failure>,
}

impl Progress {
    fn touch(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_millis.store(millis, Ordering::Relaxed);
    }

    /// Bytes read of the body.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }
}

/// The handle on a running pump. Dropping it resets the exchange: the visitor left.
pub(crate) struct Pump {
    command: Option<oneshot::Sender<Command>>,
    progress: Arc<Progress>,
    task: JoinHandle<Option<Inbound>>,
}

impl Pump {
    /// Starts to send `first` and then `body`. A visitor that is slower than `owed` has failed; without `owed` it may be
    /// silent for any time. `cancel_at_once`: when the visitor leaves, the rest of the body is not delivered.
    pub(crate) fn start(
        first: Bytes,
        body: Inbound,
        send: SendHalf,
        owed: Option<Owed>,
        cancel_at_once: bool,
        reserved: Reserved,
    ) -> Self {
        let (command, commands) = oneshot::channel();
        let progress = Arc::new(Progress {
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
            cancel_at_once,
            reserved,
            progress: progress.clone(),
            commands: Some(commands),
            timer: None,
            pending: first,
            touched: false,
            turn: Turn::new(TURN_BYTES),
        };
        Self {
            command: Some(command),
            progress,
            task: tokio::spawn(worker.run()),
        }
    }

    /// The progress of the body, which can be read after the pump has been dropped.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// When the visitor last sent bytes.
    pub(crate) fn last_progress(&self) -> Instant {
        let millis = self.progress.progress_millis.load(Ordering::Relaxed);
        self.progress.start + Duration::from_millis(millis)
    }

    /// The visitor's fault, if the body failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.progress.failure.get().cloned()
    }

    /// Whether the rest of the body will not be read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.progress.stopped.load(Ordering::Relaxed)
    }

    /// Lets the pump run to the end of the body without this handle.
    pub(crate) fn detach(mut self) {
        self.send_command(Command::Detach);
    }

    /// Ends the exchange.
    pub(crate) fn reset(mut self, code: ResetCode, reason: &'static str) {
        self.send_command(Command::Reset(code, reason));
    }

    /// Returns the body if nothing of it has been read. For an exchange that failed.
    pub(crate) async fn untouched(mut self) -> Option<Inbound> {
        // The task ends because the exchange has failed.
        (&mut self.task).await.ok().flatten()
    }

    fn send_command(&mut self, command: Command) {
        if let Some(commands) = self.command.take() {
            // A pump that has ended needs no command.
            let _ = commands.send(command);
        }
    }
}

struct Worker {
    body: Inbound,
    send: SendHalf,
    owed: Option<Owed>,
    cancel_at_once: bool,
    reserved: Reserved,
    progress: Arc<Progress>,
    commands: Option<oneshot::Receiver<Command>>,
    timer: Option<Pin<Box<Sleep>>>,
    pending: Bytes,
    touched: bool,
    /// The turn of the task: chunks may be small, and many of them may have arrived.
    turn: Turn,
}

enum Step {
    Data(usize),
    Frame(Option<Result<Frame<Bytes>, Failure>>),
    Over(Failure),
    Command(Command),
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
                    // This fails only when the exchange has ended otherwise.
                    let _ = self.send.finish();
                    return None;
                }
                Step::Frame(Some(Err(failure))) => {
                    self.fail(failure, ResetCode::Cancelled);
                    return None;
                }
                Step::Stalled => {
                    let failure =
                        Failure::new(Reason::Stalled, "the request body did not arrive in time");
                    self.fail(failure, ResetCode::Stalled);
                    return None;
                }
                Step::Command(Command::Detach) => {
                    self.commands = None;
                    Ok(())
                }
                Step::Command(Command::Reset(code, reason)) => {
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
                self.progress.stopped.store(true, Ordering::Relaxed);
                let again = !self.touched && self.send.stopped().is_none();
                return again.then_some(self.body);
            }
            if self.pending.is_empty() && self.touched && self.body.is_end_stream() {
                // The end was sent with the last part.
                return None;
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(commands) = &mut self.commands
            && let Poll::Ready(command) = Pin::new(commands).poll(cx)
        {
            return Poll::Ready(command.map_or(Step::Left, Step::Command));
        }
        // This is polled even when there is nothing to send: it reports that the other side stopped the body.
        match self.send.poll_ready(cx) {
            Poll::Ready(Err(failure)) => return Poll::Ready(Step::Over(failure)),
            Poll::Ready(Ok(allowed)) if !self.pending.is_empty() => {
                let wanted = allowed.min(self.pending.len());
                if let Poll::Ready(allowed) = self.send.poll_pace(cx, wanted) {
                    return Poll::Ready(Step::Data(allowed));
                }
                // This side is slow, not the visitor.
                if let Some(owed) = &mut self.owed {
                    owed.pace.clear();
                }
                return Poll::Pending;
            }
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => {
                // Without credit nothing is read, and the visitor is not late.
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
        let next = |now: Instant| deadline.min(now + CHECK_INTERVAL);
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

    /// Returns whether the body has ended.
    fn on_frame(&mut self, frame: Frame<Bytes>) -> Result<bool, Failure> {
        self.touched = true;
        self.progress.touch();
        match frame.into_data() {
            Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                self.send.finish().map(|()| true)
            }
            Ok(data) => {
                let received = data.len() as u64;
                self.progress
                    .received_bytes
                    .fetch_add(received, Ordering::Relaxed);
                if let Some(owed) = &mut self.owed {
                    owed.pace.moved(received);
                }
                self.pending = data;
                Ok(false)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self
                    .send
                    .finish_with(self.reserved.block_of(&trailers))
                    .map(|()| true),
                Err(_) => Ok(false),
            },
        }
    }

    fn send_some(&mut self, allowed: usize) -> Result<(), Failure> {
        if self.send.is_paced() {
            // The visitor does not send while this side delays what it has sent.
            self.progress.touch();
        }
        let part = self.pending.split_to(allowed.min(self.pending.len()));
        let end = self.pending.is_empty() && self.body.is_end_stream();
        self.send.send(part, end)
    }

    fn fail(self, failure: Failure, code: ResetCode) {
        let reason = failure.detail.clone();
        // The failure is stored before the reset, which wakes the readers of the failure.
        let _ = self.progress.failure.set(failure);
        self.send.abort(code, &reason);
    }

    /// Called when the visitor has left. Bytes that it sent before are delivered to the service as far as that does not
    /// require waiting.
    fn leave(mut self) {
        if self.cancel_at_once {
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
            let wanted = allowed.min(self.pending.len());
            let Poll::Ready(allowed) = self.send.poll_pace(&mut cx, wanted) else {
                break;
            };
            let part = self.pending.split_to(allowed);
            if self.send.send(part, false).is_err() {
                break;
            }
        }
        self.send.abort(ResetCode::Cancelled, LEFT);
    }
}

const LEFT: &str = "the visitor left";
