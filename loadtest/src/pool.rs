//! Visitors that share one schedule: a free visitor takes the next due request.
//!
//! Visitors have no queues of their own, so that a stalled response delays only its own visitor. The time of a request
//! includes what it needs first, such as a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::failure::{Failed, Failure};
use crate::schedule::Schedule;
use crate::tally::Tally;

/// The pause before the next attempt after a refused connection.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// The operations of a visitor of one protocol.
pub(crate) trait Driver: Send + Sync + 'static {
    /// The state that is kept from one exchange to the next.
    type Session: Send;

    /// Opens a session.
    fn open(&self) -> impl Future<Output = Result<Self::Session, Failed>> + Send;

    /// Makes exchange `number` and checks every received byte; returns whether the session may be used again.
    fn exchange(
        &self,
        session: &mut Self::Session,
        number: u64,
    ) -> impl Future<Output = Result<bool, Failed>> + Send;

    /// Ends a session as its protocol requires, and checks the end.
    fn close(&self, session: Self::Session) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// The state that all visitors of a load share.
#[derive(Debug)]
pub(crate) struct Pool<D> {
    pub(crate) driver: D,
    pub(crate) schedule: Arc<Schedule>,
    pub(crate) tally: Arc<Tally>,
    /// A session is closed after this many exchanges; `None` means never.
    pub(crate) per_session: Option<u64>,
    /// An exchange that takes longer, connecting included, has failed.
    pub(crate) timeout: Option<Duration>,
}

impl<D: Driver> Pool<D> {
    /// Starts the given number of visitors. They end when nothing more is due.
    ///
    /// # Cancel safety
    /// Dropping the set closes all connections.
    pub(crate) fn start(self: &Arc<Self>, visitors: usize, tasks: &mut JoinSet<()>) {
        for _ in 0..visitors {
            tasks.spawn(Arc::clone(self).visit());
        }
    }

    /// Runs one visitor: sends requests until none is due.
    async fn visit(self: Arc<Self>) {
        let mut session: Option<(D::Session, u64)> = None;
        while let Some(slot) = self.schedule.next().await {
            match self.bounded(self.send(&mut session, slot.number)).await {
                Ok(ending) => {
                    self.tally.completed(slot.due);
                    if let Some(ending) = ending {
                        self.close(ending).await;
                    }
                }
                Err(failed) => {
                    self.tally.failed(failed);
                    session = None;
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
        if let Some((session, _)) = session {
            self.close(session).await;
        }
    }

    /// Makes one exchange; returns the session, which must be closed, when it has made all its exchanges.
    async fn send(
        &self,
        session: &mut Option<(D::Session, u64)>,
        number: u64,
    ) -> Result<Option<D::Session>, Failed> {
        let (open, served) = match session {
            Some(session) => session,
            None => session.insert((self.driver.open().await?, 0)),
        };
        let reusable = self.driver.exchange(open, number).await?;
        *served += 1;
        if !reusable {
            *session = None;
            return Ok(None);
        }
        let over = self.per_session.is_some_and(|most| *served >= most);
        Ok(session.take_if(|_| over).map(|(session, _)| session))
    }

    async fn close(&self, session: D::Session) {
        if let Err(failed) = self.bounded(self.driver.close(session)).await {
            self.tally.failed(failed);
        }
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        match self.timeout {
            Some(within) => timeout(within, work)
                .await
                .unwrap_or_else(|_| Err(Failure::Timeout.into())),
            None => work.await,
        }
    }
}
