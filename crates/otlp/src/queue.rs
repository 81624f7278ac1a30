//! The queue of finished requests from the data threads to the exporting thread.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::finished::Finished;

/// The end of the data threads.
pub(super) struct Sender<T = Finished> {
    sender: mpsc::Sender<T>,
    /// With this many requests in the queue, the receiver is woken before its interval ends.
    full_batch: usize,
    batch_is_full: Arc<Notify>,
}

/// The end of the exporting thread.
pub(super) struct Receiver<T = Finished> {
    receiver: mpsc::Receiver<T>,
    batch_is_full: Arc<Notify>,
}

/// A queue of at most `bound` requests.
pub(super) fn queue<T>(bound: usize, full_batch: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(bound);
    let batch_is_full = Arc::new(Notify::new());
    let sender = Sender {
        sender,
        full_batch,
        batch_is_full: Arc::clone(&batch_is_full),
    };
    let receiver = Receiver {
        receiver,
        batch_is_full,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Pushes the result of `make`. Returns `false`, without calling it, when the queue is full or closed.
    pub(super) fn try_push(&self, make: impl FnOnce() -> T) -> bool {
        let Ok(room) = self.sender.try_reserve() else {
            return false;
        };
        room.send(make());
        if self.sender.max_capacity() - self.sender.capacity() >= self.full_batch {
            self.batch_is_full.notify_one();
        }
        true
    }
}

impl<T> Receiver<T> {
    /// Waits for the next request; `None` when the queue is closed and empty.
    ///
    /// # Cancel safety
    /// No request is lost.
    pub(super) async fn pop(&mut self) -> Option<T> {
        self.receiver.recv().await
    }

    /// The next request, if there is one.
    pub(super) fn try_pop(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Number of requests in the queue.
    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Waits until there are enough for a full batch. Can return early, when a request was taken meanwhile.
    pub(super) async fn batch_is_full(&self) {
        self.batch_is_full.notified().await;
    }

    /// Rejects further requests.
    pub(super) fn close(&mut self) {
        self.receiver.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_queue_makes_nothing() {
        let (sender, mut receiver) = queue(2, 2);
        assert!(sender.try_push(|| 1));
        assert!(sender.try_push(|| 2));
        assert!(!sender.try_push(|| panic!("the queue is full")));
        assert_eq!(receiver.len(), 2);
        assert_eq!(receiver.try_pop(), Some(1));
        assert!(sender.try_push(|| 3));
        receiver.close();
        assert!(!sender.try_push(|| panic!("the queue is closed")));
    }

    #[tokio::test]
    async fn a_full_batch_wakes_the_receiver() {
        let (sender, receiver) = queue(8, 3);
        let is_woken = async || {
            let at_once = tokio::time::timeout(Duration::ZERO, receiver.batch_is_full());
            at_once.await.is_ok()
        };
        for expected in [false, false, true, true] {
            assert!(sender.try_push(|| ()));
            assert_eq!(is_woken().await, expected);
        }
        assert!(!is_woken().await);
    }
}
