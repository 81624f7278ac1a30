//! A data stream with all of its state.

mod attachment;
mod config;
mod connection;
mod phase;
mod reader;
pub(crate) mod state;
mod upkeep;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use adit_codec::{Compression, EncodedHead};
use adit_flow::Budget;
use adit_mux::{Attachment, Mux, OpenError};

pub use self::{config::LaneConfig, connection::Connection, state::LaneStats};
use self::{phase::OnLoss, state::LaneState};
use crate::{
    dispatch::Dispatch,
    exchange::Exchange,
    failure::{Failure, Reason},
    inbox::Inbox,
    transport::TransportWriter,
};

/// A data stream with its state. The handles on its requests keep that state alive, not the lane itself.
pub struct Lane {
    state: Arc<LaneState>,
    dispatch: Arc<dyn Dispatch>,
}

impl Lane {
    /// A lane that ends with its first connection. Windows beyond the initial ones are charged to `budget`.
    pub fn new(config: LaneConfig, budget: Budget, dispatch: Arc<dyn Dispatch>) -> Arc<Self> {
        Self::with(config, budget, dispatch, OnLoss::Close)
    }

    /// A lane that waits for another connection when one is lost ([`Lane::attach`]), until [`Lane::close`].
    pub fn reattachable(
        config: LaneConfig,
        budget: Budget,
        dispatch: Arc<dyn Dispatch>,
    ) -> Arc<Self> {
        Self::with(config, budget, dispatch, OnLoss::Detach)
    }

    fn with(
        config: LaneConfig,
        budget: Budget,
        dispatch: Arc<dyn Dispatch>,
        on_loss: OnLoss,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Arc::new(LaneState::new(config, budget, on_loss)),
            dispatch,
        })
    }

    /// Opens a request on the peer's side. It fails at `deadline` unless its response has begun.
    ///
    /// # Errors
    /// A [`Failure`] that allows a retry elsewhere when the lane is over or full.
    pub fn open(
        &self,
        head: EncodedHead,
        end: bool,
        deadline: Option<Instant>,
    ) -> Result<Exchange, Failure> {
        let inbox = Arc::new(Inbox::default());
        let opened = self.state.mux.open(head, end, |id| {
            self.state
                .table
                .insert(id.value(), deadline, inbox.clone())
                .is_ok()
        });
        match opened {
            Ok(Some(id)) => Ok(Exchange::new(self.state.clone(), id, inbox, end)),
            Ok(None) => Err(Failure::new(Reason::Refused, "the lane is full or closed")),
            Err(OpenError::BodyTooLong { .. }) => {
                Err(Failure::new(Reason::Internal, "body in head too long"))
            }
            Err(error) => Err(Failure::new(Reason::Refused, error.to_string())),
        }
    }

    /// The mux.
    pub fn mux(&self) -> &Arc<Mux> {
        self.state.mux()
    }

    /// Called when the peer can decompress this algorithm (P-13.1). Nothing is compressed before this call.
    pub fn allow_compression(&self, by: Compression) {
        self.state.allow_compression(by);
    }

    /// Called when the peer has the capability `upgrade`: until then, no request offers to change to another protocol
    /// (P-3.7).
    pub fn allow_upgrades(&self) {
        self.state.allow_upgrades();
    }

    /// Whether a request may offer to change to another protocol.
    pub fn may_upgrade(&self) -> bool {
        self.state.may_upgrade()
    }

    /// Credit of each direction of each request at its start.
    pub fn initial_window(&self) -> u32 {
        self.state.config.mux.initial_window
    }

    /// The writer of the current connection. One writer for each connection.
    pub fn outbound(&self) -> TransportWriter {
        self.connection().writer()
    }

    /// The current connection: a new lane already has its first one. If the lane has none, the result is a connection
    /// that is lost.
    pub fn connection(&self) -> Connection {
        let attachment = self.state.attached().unwrap_or(Attachment::FIRST);
        Connection::new(self.state.clone(), self.dispatch.clone(), attachment)
    }

    /// Gives the lane another connection to the same peer lane. This ends the current one, if there is one: its
    /// requests fail (P-6.4).
    ///
    /// # Errors
    /// The failure that ended the lane: it was closed, or was created by [`Lane::new`] and lost its connection.
    pub fn attach(&self) -> Result<Connection, Failure> {
        let attachment = self.state.attach()?;
        let (state, dispatch) = (self.state.clone(), self.dispatch.clone());
        Ok(Connection::new(state, dispatch, attachment))
    }

    /// Whether the lane has a connection: requests can be opened.
    pub fn is_attached(&self) -> bool {
        self.state.attached().is_some()
    }

    /// Ends the lane: every request fails once with `failure`, nothing is opened any more (P-6.4). Only the first call
    /// counts.
    pub fn close(&self, failure: &Failure) {
        self.state.close(failure);
    }

    /// Whether the lane is over.
    pub fn is_closed(&self) -> bool {
        self.state.is_closed()
    }

    /// Why the lane is over, if it is.
    pub fn closed(&self) -> Option<Failure> {
        self.state.closed()
    }

    /// Waits until the lane is over.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn wait_closed(&self) -> Failure {
        self.state.wait_closed().await
    }

    /// Sends a probe to the peer and waits for any byte, at most `within`.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn probe(&self, within: Duration) -> bool {
        self.state.probe(within).await
    }

    /// Counters and gauges. Iterates over the open requests.
    pub fn stats(&self) -> LaneStats {
        self.state.stats()
    }

    /// Whether the lane lost its connection because the peer was silent (P-6.5).
    pub fn is_silent(&self) -> bool {
        self.state.silent.load(Ordering::Relaxed)
    }

    /// Bytes received over all connections.
    pub fn received_bytes(&self) -> u64 {
        self.state.received_bytes.load(Ordering::Relaxed)
    }

    /// Requests open now.
    pub fn open_requests(&self) -> usize {
        self.state.table.len()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.state, f)
    }
}
