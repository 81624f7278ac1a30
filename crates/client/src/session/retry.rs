//! The delays before a lost stream is opened again, by the rules of `reconnect`.

use adit_reconnect::{Action, Config, Event, Failure, Reconnect, StopReason};
use tokio::time::Instant;

/// The reconnect machine of one stream of a session.
pub(super) struct Retry {
    machine: Reconnect,
    epoch: u64,
}

impl Retry {
    /// The machine of a stream that is open.
    pub(super) fn established(config: Config, epoch: u64) -> Self {
        let mut retry = Self {
            machine: Reconnect::new(config),
            epoch,
        };
        retry.on(Event::Start);
        retry.opened();
        retry
    }

    /// Called when the stream is open again.
    pub(super) fn opened(&mut self) {
        let epoch = self.epoch;
        self.on(Event::Established { epoch });
    }

    /// Waits for the first try after a loss.
    ///
    /// # Errors
    /// `reconnect.max_retries` is exhausted.
    pub(super) async fn lost(&mut self) -> Result<(), StopReason> {
        self.wait(Event::Lost).await
    }

    /// Waits for the next try after one that failed.
    ///
    /// # Errors
    /// `reconnect.max_retries` is exhausted, or the failure is final.
    pub(super) async fn failed(&mut self, failure: Failure) -> Result<(), StopReason> {
        self.wait(Event::DialFailed(failure)).await
    }

    async fn wait(&mut self, event: Event) -> Result<(), StopReason> {
        let mut action = self.on(event);
        loop {
            match action {
                Action::Dial | Action::Serve => return Ok(()),
                Action::Wait { until } => {
                    tokio::time::sleep_until(until.into()).await;
                    action = self.on(Event::TimerDue);
                }
                Action::Stop(reason) => return Err(reason),
            }
        }
    }

    fn on(&mut self, event: Event) -> Action {
        let now = Instant::now().into_std();
        let action = self.machine.on_event(event, now, rand::random());
        action.unwrap_or_else(|error| {
            // This would be a defect of the caller: start over instead of waiting forever.
            tracing::error!(%error, "reconnect");
            self.machine = Reconnect::new(self.machine.config().clone());
            Action::Dial
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(max_retries: u32) -> Config {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(1));
        Config::try_new(max_retries, initial, max, 2.0, false).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_until_the_stream_is_open() {
        let mut retry = Retry::established(config(0), 7);
        retry.lost().await.unwrap();
        let mut waits = Vec::new();
        for _ in 0..6 {
            let begun = Instant::now();
            retry.failed(Failure::Transient).await.unwrap();
            waits.push(begun.elapsed());
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits[5], Duration::from_secs(1));
        retry.opened();
        retry.lost().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_bounded_and_final_failures_end_them() {
        let mut retry = Retry::established(config(2), 7);
        retry.lost().await.unwrap();
        retry.failed(Failure::Transient).await.unwrap();
        let exhausted = retry.failed(Failure::Transient).await;
        assert_eq!(exhausted, Err(StopReason::RetriesExhausted { retries: 2 }));
        let mut retry = Retry::established(config(0), 7);
        retry.lost().await.unwrap();
        let fatal = retry.failed(Failure::Refused { fatal: true }).await;
        assert_eq!(fatal, Err(StopReason::Refused));
    }
}
