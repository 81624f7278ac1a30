//! A transport without a network: a client and a server in one process, connected by calls and queues.

use std::{future::pending, sync::Arc};

use adit_link::{
    BoxFuture, Lane,
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
pub struct MemoryTransport {
    server: Arc<dyn ControlServer>,
    lanes: Arc<dyn AcceptLane>,
}

impl MemoryTransport {
    /// Clients register at `server` and open lanes at `lanes`.
    pub const fn new(server: Arc<dyn ControlServer>, lanes: Arc<dyn AcceptLane>) -> Self {
        Self { server, lanes }
    }
}

impl Transport for MemoryTransport {
    type Channel = MemoryChannel;

    fn connect(&self) -> BoxFuture<'_, Result<(MemoryChannel, Driver), ConnectError>> {
        Box::pin(async move {
            let peer = ([192, 0, 2, 7], 4000).into();
            let channel = MemoryChannel {
                server: self.server.clone(),
                lanes: self.lanes.clone(),
                connection: ClientConnection::new(ChannelId::next(), peer),
            };
            let driver: Driver = Box::pin(pending());
            Ok((channel, driver))
        })
    }
}

/// A connection of a [`MemoryTransport`].
#[derive(Clone)]
pub struct MemoryChannel {
    server: Arc<dyn ControlServer>,
    lanes: Arc<dyn AcceptLane>,
    connection: ClientConnection,
}

impl MemoryChannel {
    /// The connection as the server sees it.
    pub const fn connection(&self) -> &ClientConnection {
        &self.connection
    }
}

impl Channel for MemoryChannel {
    type Reader = Pipe;

    fn register(
        &self,
        request: RegisterRequest,
    ) -> BoxFuture<'_, Result<RegisterResponse, CallError>> {
        Box::pin(async move {
            let registered = self.server.register(&self.connection, request).await;
            registered.map_err(CallError::Refused)
        })
    }

    fn open_control<'a>(
        &'a self,
        session: &'a str,
    ) -> BoxFuture<'a, Result<ControlChannel, CallError>> {
        Box::pin(async move {
            let (outbound, queued) = mpsc::channel(16);
            let queued = Box::pin(ReceiverStream::new(queued).map(Ok));
            let opened = self.server.open_control(&self.connection, session, queued);
            let inbound = opened.map_err(CallError::Refused)?;
            Ok(ControlChannel {
                outbound,
                inbound: Box::pin(inbound.map(|message| message.map_err(CallError::Refused))),
            })
        })
    }

    fn sync_config<'a>(
        &'a self,
        session: &'a str,
        request: ConfigSyncRequest,
    ) -> BoxFuture<'a, Result<ConfigSyncResponse, CallError>> {
        Box::pin(async move {
            let synced = self.server.sync_config(session, request);
            synced.map_err(CallError::Refused)
        })
    }

    fn open_lane<'a>(
        &'a self,
        lane: &'a Arc<Lane>,
        request: LaneRequest<'a>,
    ) -> BoxFuture<'a, Result<Pipe, CallError>> {
        Box::pin(async move {
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
        })
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn foreign_peer(&self) -> Option<String> {
        None
    }
}
