//! A queue to which many senders append and which one writer drains.
//!
//! Appending and draining take one short lock. The writer parks by storing its waker in the same critical section in
//! which it found nothing, so that an append is either seen by the writer or wakes it: no wake-up is lost, and no busy
//! writer is woken.
//!
//! The [`Queue`] decides what is queued and in which order it is sent: `adit-mux` provides its scheduler, which
//! allocates ids as well, because the order of allocation must be the order of sending (P-2.2).

use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, lock};

/// The queue of an [`Outbox`].
pub trait Queue {
    /// The result of one drain.
    type Batch;

    /// Whether [`Queue::next_batch`] would return a batch.
    fn is_ready(&self) -> bool;

    /// Takes the next batch; `None` when there is nothing to write.
    fn next_batch(&mut self) -> Option<Self::Batch>;

    /// The number of the writer that drains the queue. A queue that outlives its writer has a different number for each
    /// one.
    fn writer(&self) -> u32 {
        0
    }
}

struct State<Q> {
    queue: Q,
    writer: Option<Waker>,
    closed: bool,
}

/// A queue with many appenders and one writer.
pub struct Outbox<Q> {
    state: Mutex<State<Q>>,
}

impl<Q: Queue> Outbox<Q> {
    /// Around a queue.
    pub fn new(queue: Q) -> Self {
        Self {
            state: Mutex::new(State {
                queue,
                writer: None,
                closed: false,
            }),
        }
    }

    /// Runs `change` on the queue, then wakes the writer if it is parked and there is something to write.
    ///
    /// `change` runs under the lock: it must not wait, nor touch this outbox again.
    pub fn with<R>(&self, change: impl FnOnce(&mut Q) -> R) -> R {
        let mut state = lock(&self.state);
        let result = change(&mut state.queue);
        let writer = if state.writer.is_some() && state.queue.is_ready() {
            state.writer.take()
        } else {
            None
        };
        drop(state);
        // The writer is woken outside of the lock: on a multi-threaded runtime it may run at once.
        if let Some(writer) = writer {
            writer.wake();
        }
        result
    }

    /// The next batch for the writer with this number; `Ready(None)` once the outbox is closed and empty, or has another
    /// writer ([`Queue::writer`]).
    ///
    /// One writer only: a second one with the same number would replace the first one's waker.
    ///
    /// # Cancel safety
    /// A batch is taken only when it is returned.
    pub fn poll_drain(&self, writer: u32, cx: &mut Context<'_>) -> Poll<Option<Q::Batch>> {
        let mut state = lock(&self.state);
        if state.queue.writer() != writer {
            return Poll::Ready(None);
        }
        if let Some(batch) = state.queue.next_batch() {
            // The writer runs already: appends need not wake it.
            state.writer = None;
            return Poll::Ready(Some(batch));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        match &mut state.writer {
            Some(writer) => writer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Lets the writer end once it has drained the queue.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Opens the outbox for another writer: `change` sets the writer's number in the queue. The previous writer ends.
    pub fn reopen<R>(&self, change: impl FnOnce(&mut Q) -> R) -> R {
        let mut state = lock(&self.state);
        state.closed = false;
        let result = change(&mut state.queue);
        let before = state.writer.take();
        drop(state);
        if let Some(before) = before {
            before.wake();
        }
        result
    }

    /// Whether [`Outbox::close`] was called, without [`Outbox::reopen`] since.
    pub fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use std::task::Wake;

    use super::*;

    impl Queue for Vec<u8> {
        type Batch = Self;

        fn is_ready(&self) -> bool {
            self.len() >= 2
        }

        fn next_batch(&mut self) -> Option<Self> {
            self.is_ready().then(|| std::mem::take(self))
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Writer {
        outbox: Outbox<Vec<u8>>,
        wakes: Arc<Wakes>,
    }

    impl Writer {
        fn new() -> Self {
            Self {
                outbox: Outbox::new(Vec::new()),
                wakes: Arc::default(),
            }
        }

        fn poll(&self) -> Poll<Option<Vec<u8>>> {
            let waker = Waker::from(self.wakes.clone());
            self.outbox.poll_drain(0, &mut Context::from_waker(&waker))
        }

        fn append(&self, byte: u8) -> usize {
            self.outbox.with(|queue| queue.push(byte));
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_parked_writer_is_woken_once_per_batch() {
        let writer = Writer::new();
        assert_eq!(writer.append(1), 0, "no writer is parked");
        assert_eq!(writer.poll(), Poll::Pending);
        assert_eq!(writer.append(2), 1);
        assert_eq!(writer.append(3), 1, "woken already");
        assert_eq!(writer.poll(), Poll::Ready(Some(vec![1, 2, 3])));
        assert_eq!(writer.poll(), Poll::Pending);
        assert_eq!(writer.append(4), 1, "nothing to write yet");
        assert_eq!(writer.append(5), 2);
    }

    #[test]
    fn a_running_writer_is_not_woken() {
        let writer = Writer::new();
        writer.append(1);
        assert_eq!(writer.poll(), Poll::Pending);
        // Another event wakes the writer's task in the moment in which the queue is filled without `with`.
        lock(&writer.outbox.state).queue.push(2);
        assert_eq!(writer.poll(), Poll::Ready(Some(vec![1, 2])));
        writer.append(3);
        assert_eq!(writer.append(4), 0);
    }

    #[test]
    fn the_last_waker_counts() {
        let writer = Writer::new();
        let others = Arc::new(Wakes::default());
        let other = Waker::from(others.clone());
        let poll = writer
            .outbox
            .poll_drain(0, &mut Context::from_waker(&other));
        assert_eq!(poll, Poll::Pending);
        assert_eq!(writer.poll(), Poll::Pending);
        writer.append(1);
        assert_eq!(writer.append(2), 1);
        assert_eq!(others.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_closed_outbox_ends_once_it_is_drained() {
        let writer = Writer::new();
        assert_eq!(writer.poll(), Poll::Pending);
        assert!(!writer.outbox.is_closed());
        writer.outbox.close();
        assert!(writer.outbox.is_closed());
        assert_eq!(writer.wakes.0.load(Ordering::Relaxed), 1);
        writer.append(1);
        writer.append(2);
        assert_eq!(writer.poll(), Poll::Ready(Some(vec![1, 2])));
        assert_eq!(writer.poll(), Poll::Ready(None));
        assert_eq!(writer.outbox.with(|queue| queue.len()), 0);
    }
}
