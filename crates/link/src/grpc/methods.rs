//! The generated methods of the service (all but `Proxy`) over a [`ControlServer`].

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, Control, ENROL_PATH, EnrolRequest, EnrolResponse,
    REGISTER_PATH, RegisterRequest, RegisterResponse, SESSION_METADATA, TunnelMessage,
    tunnel_message::Payload,
    tunnel_service_server::{TunnelService, TunnelServiceServer},
};
use http::{Request, Response};
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming, codegen::Service};

use super::{
    message::wire_message,
    status::{read_error_of, status_of},
};
use crate::control::{ClientConnection, ControlInbound, ControlMessage, ControlServer};

/// The longest call of a client that is not authenticated yet: names, a credential, an instance secret (P-1.1).
const FIRST_CALL_BYTES: usize = 4 * 1024;

/// The longest message of a control stream (P-2.1).
const CONTROL_BYTES: usize = adit_codec::MAX_MESSAGE_BYTES;

/// Serves the generated methods of all connections. Clones share the server.
#[derive(Clone)]
pub struct Methods {
    first: TunnelServiceServer<Adapter>,
    others: TunnelServiceServer<Adapter>,
}

impl Methods {
    /// Passes the calls on to `server`.
    pub fn new(server: Arc<dyn ControlServer>) -> Self {
        let adapter = Arc::new(Adapter(server));
        let methods =
            |bytes| TunnelServiceServer::from_arc(adapter.clone()).max_decoding_message_size(bytes);
        Self {
            first: methods(FIRST_CALL_BYTES),
            others: methods(CONTROL_BYTES),
        }
    }
}

impl Service<Request<tonic::body::Body>> for Methods {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = <TunnelServiceServer<Adapter> as Service<Request<tonic::body::Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        if [REGISTER_PATH, ENROL_PATH].contains(&request.uri().path()) {
            self.first.call(request)
        } else {
            self.others.call(request)
        }
    }
}

/// The generated trait on a [`ControlServer`].
pub struct Adapter(Arc<dyn ControlServer>);

#[tonic::async_trait]
impl TunnelService for Adapter {
    async fn register(
        &self,
        request: tonic::Request<RegisterRequest>,
    ) -> Result<tonic::Response<RegisterResponse>, Status> {
        let connection = connection_of(&request)?;
        let registered = self.0.register(&connection, request.into_inner()).await;
        registered.map(tonic::Response::new).map_err(status_of)
    }

    async fn enrol(
        &self,
        request: tonic::Request<EnrolRequest>,
    ) -> Result<tonic::Response<EnrolResponse>, Status> {
        let connection = connection_of(&request)?;
        let enrolled = self.0.enrol(&connection, request.into_inner()).await;
        enrolled.map(tonic::Response::new).map_err(status_of)
    }

    type ControlStreamStream = Pin<Box<dyn Stream<Item = Result<TunnelMessage, Status>> + Send>>;

    async fn control_stream(
        &self,
        request: tonic::Request<Streaming<TunnelMessage>>,
    ) -> Result<tonic::Response<Self::ControlStreamStream>, Status> {
        let connection = connection_of(&request)?;
        let session = session_of(&request).to_owned();
        let inbound = request.into_inner().map(|message| match message {
            Ok(message) => Ok(ControlMessage {
                request_id: message.request_id,
                kind: match message.payload {
                    Some(Payload::Control(Control { kind })) => kind,
                    _ => None,
                },
            }),
            Err(status) => Err(read_error_of(status)),
        });
        let inbound: ControlInbound = Box::pin(inbound);
        let outbound = self.0.open_control(&connection, &session, inbound);
        let outbound = outbound.map_err(status_of)?;
        let outbound = outbound.map(|message| message.map(wire_message).map_err(status_of));
        Ok(tonic::Response::new(Box::pin(outbound)))
    }

    async fn config_sync(
        &self,
        request: tonic::Request<ConfigSyncRequest>,
    ) -> Result<tonic::Response<ConfigSyncResponse>, Status> {
        let session = session_of(&request).to_owned();
        let synced = self.0.sync_config(&session, request.into_inner());
        synced.map(tonic::Response::new).map_err(status_of)
    }
}

/// The connection of a call. The endpoint stores it in the extensions of each call.
#[allow(clippy::result_large_err)] // tonic's own type, on a path that runs once per call
fn connection_of<T>(request: &tonic::Request<T>) -> Result<ClientConnection, Status> {
    let connection = request.extensions().get().cloned();
    connection.ok_or_else(|| Status::internal("the call has no connection"))
}

/// The session that the metadata of a call names; empty when it names none.
fn session_of<T>(request: &tonic::Request<T>) -> &str {
    let session = request.metadata().get(SESSION_METADATA);
    let text = session.and_then(|session| std::str::from_utf8(session.as_bytes()).ok());
    text.unwrap_or_default()
}
