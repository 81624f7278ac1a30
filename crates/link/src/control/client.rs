//! The traits that a transport implements for a client.

use std::{io, pin::Pin, sync::Arc};

use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, EnrolRequest, EnrolResponse, RegisterRequest,
    RegisterResponse,
};
use adit_tls::TlsError;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::{message::ControlMessage, refusal::CallError, server::LaneRequest};
use crate::{boxed::BoxFuture, lane::Lane, transport::TransportReader};

/// Runs one connection; completes when the connection is over. Dropping it closes the connection.
pub type Driver = BoxFuture<'static, ()>;

/// Connects to one server.
pub trait Transport: Send + Sync + 'static {
    /// The client's end of one connection.
    type Channel: Channel;

    /// Connects. The caller polls the [`Driver`], usually in a task of its own.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    fn connect(&self) -> BoxFuture<'_, Result<(Self::Channel, Driver), ConnectError>>;
}

/// Why a connection cannot be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address does not accept connections, or cannot be resolved.
    #[error("cannot reach the server: {0}")]
    Unreachable(#[source] io::Error),
    /// The proxy does not connect to the server: the text states what to change.
    #[error("{0}")]
    Proxy(String),
    /// The host name cannot be part of an address of this transport.
    #[error("invalid host name: {0}")]
    InvalidHost(String),
    /// The TLS handshake failed: the text of the error states what to change.
    #[error(transparent)]
    Tls(TlsError),
    /// The connection was established and then failed.
    #[error("{0}")]
    Handshake(String),
}

/// The client's end of one connection. Clones use the same connection.
pub trait Channel: Clone + Send + Sync + 'static {
    /// Receives the bytes of a lane.
    type Reader: TransportReader + 'static;

    /// Registers the client (P-1.1).
    ///
    /// # Errors
    /// [`CallError`].
    fn register(
        &self,
        request: RegisterRequest,
    ) -> BoxFuture<'_, Result<RegisterResponse, CallError>>;

    /// Gets the first credential of a client (P-1.19).
    ///
    /// # Errors
    /// [`CallError`].
    fn enrol(&self, request: EnrolRequest) -> BoxFuture<'_, Result<EnrolResponse, CallError>>;

    /// Opens the control stream of a session.
    ///
    /// # Errors
    /// [`CallError`].
    fn open_control<'a>(
        &'a self,
        session: &'a str,
    ) -> BoxFuture<'a, Result<ControlChannel, CallError>>;

    /// Fetches the configuration that the client may see.
    ///
    /// # Errors
    /// [`CallError`].
    fn sync_config<'a>(
        &'a self,
        session: &'a str,
        request: ConfigSyncRequest,
    ) -> BoxFuture<'a, Result<ConfigSyncResponse, CallError>>;

    /// Opens the data stream of a lane. The result is for [`crate::drive`].
    ///
    /// # Errors
    /// [`CallError`].
    fn open_lane<'a>(
        &'a self,
        lane: &'a Arc<Lane>,
        request: LaneRequest<'a>,
    ) -> BoxFuture<'a, Result<Self::Reader, CallError>>;

    /// Whether the connection is over.
    fn is_closed(&self) -> bool;

    /// The peer, once it has sent bytes of another protocol.
    fn foreign_peer(&self) -> Option<ForeignPeer>;
}

/// A peer that does not speak the protocol of the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForeignPeer {
    /// A server of TLS, which this end has addressed in clear text.
    Tls,
    /// Another program, with its description.
    Other(String),
}

/// An open control stream. Dropping it ends the stream.
pub struct ControlChannel {
    /// The queue to the server. Bounded: a full queue means that the server does not read.
    pub outbound: mpsc::Sender<ControlMessage>,
    /// The messages from the server. Ends with the stream; an error is the last item.
    pub inbound: Pin<Box<dyn Stream<Item = Result<ControlMessage, CallError>> + Send>>,
}
