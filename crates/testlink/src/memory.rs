//! A transport without a network: a client and a server in one process, joined by calls and queues.

use std::{future::pending, sync::Arc};

use adit_link::{
    Lane,
    control::{
        AcceptLane, AcceptedLane, CallError, Channel, ChannelId, ClientConnection, ConnectError,
        ControlChannel, ControlServer, Driver, LaneRequest, Transport,
    },
    drive,
};
use adit_proto::{ConfigSyncRequest, ConfigSyncResponse, RegisterRequest, RegisterResponse};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::link::Pipe;

/// Connects clients to a server in the same process, by the traits of `adit_link::control` alone.
pub struct MemoryTransport<S, A> {
    server: Arc<S>,
    lanes: Arc<A>,
}

impl<S: ControlServer, A: AcceptLane> MemoryTransport<S, A> {
    /// Clients register at `server` and open lanes at `lanes`.
    pub const fn new(server: Arc<S>, lanes: Arc<A>) -> Self {
        Self { server, lanes }
    }
}

impl<S: ControlServer, A: AcceptLane> Transport for MemoryTransport<S, A> {
    type Channel = MemoryChannel<S, A>;

    async fn connect(&self) -> Result<(Self::Channel, Driver), ConnectError> {
        let peer = ([192, 0, 2, 7], 4000).into();
        let channel = MemoryChannel {
            server: self.server.clone(),
            lanes: self.lanes.clone(),
            connection: ClientConnection::new(ChannelId::next(), peer),
        };
        Ok((channel, Box::pin(pending())))
    }
}

/// One connection of a [`MemoryTransport`].
pub struct MemoryChannel<S, A> {
    server: Arc<S>,
    lanes: Arc<A>,
    connection: ClientConnection,
}

impl<S, A> MemoryChannel<S, A> {
    /// The connection as the server sees it.
    pub const fn connection(&self) -> &ClientConnection {
        &self.connection
    }
}

impl<S, A> Clone for MemoryChannel<S, A> {
    fn clone(&self) -> Self {
        Self {
            server: self.server.clone(),
            lanes: self.lanes.clone(),
            connection: self.connection.clone(),
        }
    }
}

impl<S: ControlServer, A: AcceptLane> Channel for MemoryChannel<S, A> {
    type Reader = Pipe;

    async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, CallError> {
        let registered = self.server.register(&self.connection, request).await;
        registered.map_err(CallError::Refused)
    }

    async fn open_control(&self, session: &str) -> Result<ControlChannel, CallError> {
        let (outbound, queued) = mpsc::channel(16);
        let queued = Box::pin(ReceiverStream::new(queued).map(Ok));
        let opened = self.server.open_control(&self.connection, session, queued);
        let inbound = opened.map_err(CallError::Refused)?;
        Ok(ControlChannel {
            outbound,
            inbound: Box::pin(inbound.map(|message| message.map_err(CallError::Refused))),
        })
    }

    async fn sync_config(
        &self,
        session: &str,
        request: ConfigSyncRequest,
    ) -> Result<ConfigSyncResponse, CallError> {
        let synced = self.server.sync_config(session, request);
        synced.map_err(CallError::Refused)
    }

    async fn open_lane(
        &self,
        lane: &Arc<Lane>,
        request: LaneRequest<'_>,
    ) -> Result<Pipe, CallError> {
        let accepted = self.lanes.accept_lane(request, self.connection.channel);
        let AcceptedLane {
            lane: far,
            on_end,
            guard,
        } = accepted.map_err(CallError::Refused)?;
        self.connection.allowance.lift();
        let (to_server, to_client) = (Pipe::from(lane.outbound()), Pipe::from(far.outbound()));
        tokio::spawn(async move {
            let failure = drive(&far, to_server).await;
            on_end(&failure, far.received_bytes());
            drop(guard);
        });
        Ok(to_client)
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn foreign_peer(&self) -> Option<String> {
        None
    }
}
