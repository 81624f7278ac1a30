//! Requests whose spans wait to be sent, between the threads that move data and the one that sends.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::tree::Tree;

/// The end that puts in.
pub(super) struct Queue {
    sender: mpsc::Sender<Tree>,
    /// From this many on, the other end is told not to wait for its interval.
    full_batch: usize,
    batch_is_full: Arc<Notify>,
}

/// The end that takes out.
pub(super) struct Waiting {
    receiver: mpsc::Receiver<Tree>,
    batch_is_full: Arc<Notify>,
}

/// A queue of at most `bound` requests.
pub(super) fn queue(bound: usize, full_batch: usize) -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(bound);
    let batch_is_full = Arc::new(Notify::new());
    let queue = Queue {
        sender,
        full_batch,
        batch_is_full: Arc::clone(&batch_is_full),
    };
    let waiting = Waiting {
        receiver,
        batch_is_full,
    };
    (queue, waiting)
}

impl Queue {
    /// Puts in what `make` makes, which is not called when there is no room. Whether there was.
    pub(super) fn try_push(&self, make: impl FnOnce() -> Tree) -> bool {
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

impl Waiting {
    /// The next one, when there is one; `None` when there will be none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn pop(&mut self) -> Option<Tree> {
        self.receiver.recv().await
    }

    /// The next one, if there is one.
    pub(super) fn try_pop(&mut self) -> Option<Tree> {
        self.receiver.try_recv().ok()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    /// A batch has come together. May be early, when one was taken out meanwhile.
    pub(super) async fn batch_is_full(&self) {
        self.batch_is_full.notified().await;
    }

    /// Nothing more goes in.
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
        let (queue, mut waiting) = queue(2, 2);
        assert!(queue.try_push(Tree::default));
        assert!(queue.try_push(Tree::default));
        assert!(!queue.try_push(|| panic!("there is no room")));
        assert_eq!(waiting.len(), 2);
        assert!(waiting.try_pop().is_some());
        assert!(queue.try_push(Tree::default));
        waiting.close();
        assert!(!queue.try_push(|| panic!("nobody will take it")));
    }

    #[tokio::test]
    async fn a_batch_that_has_come_together_is_told() {
        let (queue, waiting) = queue(8, 3);
        let told = async || {
            let at_once = tokio::time::timeout(Duration::ZERO, waiting.batch_is_full());
            at_once.await.is_ok()
        };
        for is_told in [false, false, true, true] {
            assert!(queue.try_push(Tree::default));
            assert_eq!(told().await, is_told);
        }
        assert!(!told().await);
    }
}
