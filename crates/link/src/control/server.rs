//! The traits that a server implements for the transports of its clients.

use std::{any::Any, sync::Arc};

use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, EnrolRequest, EnrolResponse, RegisterRequest,
    RegisterResponse,
};

use super::{
    connection::{ChannelId, ClientConnection},
    message::{ControlInbound, ControlOutbound},
    refusal::Refusal,
};
use crate::{boxed::BoxFuture, failure::Failure, lane::Lane};

/// Serves the calls of clients, except those for lanes. One value serves all connections.
pub trait ControlServer: Send + Sync + 'static {
    /// Registers a client (P-1.1). Lifts the allowance of the connection when the credential is valid.
    ///
    /// # Errors
    /// The [`Refusal`] for the client.
    fn register<'a>(
        &'a self,
        connection: &'a ClientConnection,
        request: RegisterRequest,
    ) -> BoxFuture<'a, Result<RegisterResponse, Refusal>>;

    /// Makes a credential for a client with an enrolment key (P-1.19).
    ///
    /// # Errors
    /// The [`Refusal`] for the client.
    fn enrol<'a>(
        &'a self,
        connection: &'a ClientConnection,
        request: EnrolRequest,
    ) -> BoxFuture<'a, Result<EnrolResponse, Refusal>>;

    /// Opens the control stream of a session (P-1.5). Reads `inbound` until it ends or the result is dropped, which the
    /// transport does when the stream or the connection is over. Lifts the allowance of the connection when the session
    /// is live.
    ///
    /// # Errors
    /// The [`Refusal`] for the client.
    fn open_control(
        &self,
        connection: &ClientConnection,
        session: &str,
        inbound: ControlInbound,
    ) -> Result<ControlOutbound, Refusal>;

    /// The configuration that a client may see (P-12.1).
    ///
    /// # Errors
    /// The [`Refusal`] for the client.
    fn sync_config(
        &self,
        session: &str,
        request: ConfigSyncRequest,
    ) -> Result<ConfigSyncResponse, Refusal>;
}

/// Names the lane that a data stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneRequest<'r> {
    /// The session, as `Register` returned it; empty when the call names none.
    pub session: &'r str,
    /// The number of the lane, below the agreed number of lanes.
    pub lane: u32,
}

/// Receives the reason for which a data stream ended, and the bytes received by then.
pub type OnEnd = Box<dyn FnOnce(&Failure, u64) + Send>;

/// A lane that a data stream was admitted to.
pub struct AcceptedLane {
    /// The lane.
    pub lane: Arc<Lane>,
    /// Called at the end of the data stream.
    pub on_end: OnEnd,
    /// Dropped when the data stream is over.
    pub guard: Box<dyn Any + Send>,
}

/// Admits data streams to lanes.
pub trait AcceptLane: Send + Sync + 'static {
    /// The lane for a data stream. The transport drives it with [`crate::drive`] and lifts the allowance of the
    /// connection.
    ///
    /// # Errors
    /// The [`Refusal`] for the client.
    fn accept_lane(
        &self,
        request: LaneRequest<'_>,
        channel: ChannelId,
    ) -> Result<AcceptedLane, Refusal>;
}
