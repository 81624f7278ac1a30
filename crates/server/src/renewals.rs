//! Renewals of one control stream: they wait for the keys of an issuer, and the other messages of the stream do not wait for
//! them (P-1.22).

use std::{future::Future, pin::Pin};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The renewal that runs, and the one after it. A client sends the next one when it has the result of the one before, or
/// repeats it.
#[derive(Default)]
pub(crate) struct Renewals {
    running: Option<(u64, Work)>,
    next: Option<(u64, Work)>,
}

impl Renewals {
    /// Begins a renewal, or lets it wait for the one that runs. Of those that wait, the newest counts. A repeated one, with the
    /// number of the one that runs, has its result.
    pub(crate) fn begin(&mut self, sequence: u64, work: impl Future<Output = ()> + Send + 'static) {
        let work = (sequence, Box::pin(work) as Work);
        match &self.running {
            None => self.running = Some(work),
            Some((running, _)) if *running == sequence => {}
            Some(_) => self.next = Some(work),
        }
    }

    /// Whether a renewal runs.
    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Runs renewals until one has ended.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn run(&mut self) {
        if let Some((_, work)) = &mut self.running {
            work.await;
        }
        self.running = self.next.take();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_repeated_renewal_runs_once_and_the_newest_waits() {
        let (done, gate) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::new(Notify::new()));
        let work = |sequence: u64| {
            let (done, gate) = (done.clone(), gate.clone());
            async move {
                gate.notified().await;
                done.lock().push(sequence);
            }
        };
        let mut renewals = Renewals::default();
        assert!(!renewals.is_running());
        for sequence in [1, 1, 2, 3] {
            renewals.begin(sequence, work(sequence));
        }
        // Other messages are handled while it waits.
        tokio::select! {
            biased;
            () = renewals.run() => panic!("it has not been released"),
            () = std::future::ready(()) => {}
        }
        for _ in 0..2 {
            gate.notify_one();
            renewals.run().await;
        }
        assert!(!renewals.is_running());
        assert_eq!(*done.lock(), [1, 3]);
    }
}
