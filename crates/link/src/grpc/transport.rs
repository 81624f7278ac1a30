//! The client's half of the gRPC transport: [`Transport`] and its channel.

use std::{fmt, sync::Arc};

use adit_net::{HostPort, Scheme};
use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, Control, EnrolRequest, EnrolResponse, LANE_METADATA,
    PROXY_PATH, RegisterRequest, RegisterResponse, SESSION_METADATA, tunnel_message::Payload,
    tunnel_service_client::TunnelServiceClient,
};
use adit_tls::Connector;
use http::{HeaderValue, Request, Uri, header::CONTENT_TYPE, uri::PathAndQuery};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, metadata::MetadataValue};

use super::{
    body::{GrpcReader, TunnelBody},
    channel::{GrpcChannel, connect},
    greeting::Greeting,
    message::wire_message,
    proxy::Proxy,
    status::error_of,
};
use crate::{
    boxed::BoxFuture,
    control::{
        CallError, Channel, ConnectError, ControlChannel, ControlMessage, Driver, ForeignPeer,
        LaneRequest, Transport,
    },
    lane::Lane,
};

/// Control messages that may wait to be sent.
const CONTROL_QUEUE: usize = 16;

/// Connects to a server over TCP and HTTP/2, with TLS or without.
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    /// A host name or an address.
    pub host: String,
    /// The port for clients.
    pub port: u16,
    /// The proxy through which the server is reached; `None` is directly.
    pub proxy: Option<Proxy>,
    /// TLS of each new connection.
    pub tls: Connector,
}

impl GrpcTransport {
    fn origin(server: &HostPort, scheme: Scheme) -> Result<Uri, ConnectError> {
        Uri::builder()
            .scheme(scheme.as_str())
            .authority(server.to_string())
            .path_and_query("/")
            .build()
            .map_err(|error| ConnectError::InvalidHost(error.to_string()))
    }
}

impl Transport for GrpcTransport {
    type Channel = GrpcChannel;

    fn connect(&self) -> BoxFuture<'_, Result<(GrpcChannel, Driver), ConnectError>> {
        Box::pin(async move {
            let server = HostPort::new(&self.host, self.port);
            let stream = match &self.proxy {
                Some(proxy) => { proxy.connect(&server).await }
                    .map_err(|error| ConnectError::Proxy(error.to_string()))?,
                None => { adit_net::connect(&server).await }.map_err(ConnectError::Unreachable)?,
            };
            let stream = self.tls.connect(stream, &self.host).await;
            let stream = stream.map_err(ConnectError::Tls)?;
            let origin = Self::origin(&server, stream.scheme())?;
            let connected = connect(stream, origin).await;
            let (channel, connection) =
                connected.map_err(|error| ConnectError::Handshake(error.to_string()))?;
            let driver: Driver = Box::pin(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to the server ended");
                }
            });
            Ok((channel, driver))
        })
    }
}

impl GrpcChannel {
    fn generated(&self) -> TunnelServiceClient<Self> {
        TunnelServiceClient::with_origin(self.clone(), self.origin().clone())
    }
}

impl Channel for GrpcChannel {
    type Reader = GrpcReader;

    fn register(
        &self,
        request: RegisterRequest,
    ) -> BoxFuture<'_, Result<RegisterResponse, CallError>> {
        Box::pin(async move {
            let response = self.generated().register(request).await;
            Ok(response.map_err(error_of)?.into_inner())
        })
    }

    fn enrol(&self, request: EnrolRequest) -> BoxFuture<'_, Result<EnrolResponse, CallError>> {
        Box::pin(async move {
            let response = self.generated().enrol(request).await;
            Ok(response.map_err(error_of)?.into_inner())
        })
    }

    fn open_control<'a>(
        &'a self,
        session: &'a str,
    ) -> BoxFuture<'a, Result<ControlChannel, CallError>> {
        Box::pin(async move {
            let (outbound, queued) = mpsc::channel(CONTROL_QUEUE);
            let messages = ReceiverStream::new(queued).map(wire_message);
            let request = with_session(messages, session)?;
            let response = self.generated().control_stream(request).await;
            let inbound = response.map_err(error_of)?.into_inner();
            let inbound = inbound.map(|message| {
                let message = message.map_err(error_of)?;
                let kind = match message.payload {
                    Some(Payload::Control(Control { kind })) => kind,
                    _ => None,
                };
                Ok(ControlMessage {
                    request_id: message.request_id,
                    kind,
                })
            });
            Ok(ControlChannel {
                outbound,
                inbound: Box::pin(inbound),
            })
        })
    }

    fn sync_config<'a>(
        &'a self,
        session: &'a str,
        request: ConfigSyncRequest,
    ) -> BoxFuture<'a, Result<ConfigSyncResponse, CallError>> {
        Box::pin(async move {
            let request = with_session(request, session)?;
            let response = self.generated().config_sync(request).await;
            Ok(response.map_err(error_of)?.into_inner())
        })
    }

    fn open_lane<'a>(
        &'a self,
        lane: &'a Arc<Lane>,
        request: LaneRequest<'a>,
    ) -> BoxFuture<'a, Result<GrpcReader, CallError>> {
        Box::pin(async move {
            let mut parts = self.origin().clone().into_parts();
            parts.path_and_query = Some(PathAndQuery::from_static(PROXY_PATH));
            let uri = Uri::from_parts(parts).map_err(lost)?;
            let request = Request::post(uri)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
                .header("te", HeaderValue::from_static("trailers"))
                .header(SESSION_METADATA, request.session)
                .header(LANE_METADATA, request.lane)
                .body(TunnelBody::lane(lane.outbound(), false))
                .map_err(lost)?;
            let response = self.send(request).await.map_err(lost)?;
            if let Some(status) = Status::from_header_map(response.headers()) {
                return Err(error_of(status));
            }
            if response.status() != http::StatusCode::OK {
                return Err(lost(format!(
                    "HTTP status {} in response to the data stream",
                    response.status()
                )));
            }
            Ok(GrpcReader::new(response.into_body()))
        })
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn foreign_peer(&self) -> Option<ForeignPeer> {
        self.greeting().map(|greeting| match greeting {
            Greeting::Tls => ForeignPeer::Tls,
            other => ForeignPeer::Other(other.to_string()),
        })
    }
}

fn with_session<T>(message: T, session: &str) -> Result<tonic::Request<T>, CallError> {
    let mut request = tonic::Request::new(message);
    let session: MetadataValue<_> = session
        .parse()
        .map_err(|_| lost("invalid session: not a header value"))?;
    request.metadata_mut().insert(SESSION_METADATA, session);
    Ok(request)
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn lost(error: impl fmt::Display) -> CallError {
    CallError::Lost(error.to_string())
}
