//! A connection to the server, and the registration on it.

use std::time::Duration;

use adit_link::control::{
    CAPABILITIES, CallError, Channel, ConnectError, ForeignPeer, RefusalReason, Transport,
};
use adit_proto::{Credential, PROTOCOL_VERSION, RegisterRequest, RegisterResponse, credential};
use adit_trace::Printable;
use bytes::Bytes;
use secrecy::ExposeSecret;
use tokio::task::AbortHandle;

use crate::settings::Settings;

/// Why a session could not be set up, or one of its streams could not be opened.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) kind: adit_reconnect::Failure,
    pub(crate) text: String,
    /// The server does not know the session (P-1.5).
    pub(crate) is_stale: bool,
}

/// A connection to the server. Dropping it closes it with all of its streams.
pub(super) struct Connection<C> {
    pub(super) channel: C,
    driver: AbortHandle,
}

impl<C> Drop for Connection<C> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<C: Channel> Connection<C> {
    /// Connects to the server.
    pub(super) async fn open(
        transport: &impl Transport<Channel = C>,
        settings: &Settings,
    ) -> Result<Self, DialError> {
        let addr = settings.server_addr();
        let (channel, driver) = transport.connect().await.map_err(|error| match error {
            ConnectError::Unreachable(error) => {
                transient(format!("cannot reach the server at {addr}: {error}"))
            }
            ConnectError::InvalidHost(error) => fatal(format!(
                "invalid host name `{}`: {error}",
                settings.server_host
            )),
            ConnectError::Proxy(error) => transient(error),
            ConnectError::Tls(error) => transient(format!("{addr}: {error}")),
            ConnectError::Handshake(error) => transient(format!("{addr}: {error}")),
        })?;
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Self { channel, driver })
    }
}

/// Registers the client (P-1.1).
pub(super) async fn register(
    settings: &Settings,
    instance: [u8; 32],
    channel: &impl Channel,
) -> Result<RegisterResponse, DialError> {
    let request = RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
        client_id: settings.client_id.clone(),
        group_id: settings.group_id.clone(),
        instance_secret: Bytes::copy_from_slice(&instance),
        credential: settings.token.as_ref().map(|token| {
            let kind = credential::Kind::Token(token.expose_secret().to_owned());
            Credential { kind: Some(kind) }
        }),
        lanes: settings.lanes,
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let response = channel
        .register(request)
        .await
        .map_err(|error| dial_error(settings, channel, &error))?;
    if response.protocol_version == PROTOCOL_VERSION {
        Ok(response)
    } else {
        Err(fatal(format!(
            "the server has protocol version {}, this client {PROTOCOL_VERSION}; install the same version of adit on both sides",
            response.protocol_version
        )))
    }
}

/// The error text of a call without a response.
pub(super) fn no_response(within: Duration) -> String {
    format!("no response within {within:?}")
}

pub(super) fn transient(text: String) -> DialError {
    DialError {
        kind: adit_reconnect::Failure::Transient,
        text,
        is_stale: false,
    }
}

fn fatal(text: String) -> DialError {
    DialError {
        kind: adit_reconnect::Failure::Refused { fatal: true },
        text,
        is_stale: false,
    }
}

/// The failure of a call, with the address; the text describes the peer when it is not an adit-server.
pub(super) fn dial_error(
    settings: &Settings,
    channel: &impl Channel,
    error: &CallError,
) -> DialError {
    let addr = settings.server_addr();
    match channel.foreign_peer() {
        Some(ForeignPeer::Tls) => {
            return transient(format!(
                "{addr} uses TLS, and this client does not: set `client.tls` to `true`, or to the server's CA by \
                 `ca_file` or `ca_fingerprint`"
            ));
        }
        Some(ForeignPeer::Other(peer)) => {
            return transient(format!(
                "{addr} is not the port for clients of an adit-server: {peer}; name the port that is \
                 `server.bind_port` on the server, 7000 unless it is set"
            ));
        }
        None => {}
    }
    match error {
        CallError::NotAdit(detail) => fatal(format!(
            "{addr} is a gRPC server, but not an adit-server: {}",
            Printable(detail)
        )),
        CallError::Lost(detail) => transient(format!("{addr}: {}", Printable(detail))),
        CallError::Refused(refusal) => DialError {
            kind: match refusal.reason {
                // Another instance holds the name and is alive: an early retry changes nothing (P-1.8).
                RefusalReason::Unauthenticated
                | RefusalReason::Forbidden
                | RefusalReason::ClientIdTaken
                | RefusalReason::GroupTaken => adit_reconnect::Failure::Unauthenticated,
                RefusalReason::Version | RefusalReason::BadRequest => {
                    adit_reconnect::Failure::Refused { fatal: true }
                }
                RefusalReason::StaleSession
                | RefusalReason::Limit
                | RefusalReason::ProtocolError
                | RefusalReason::Internal => adit_reconnect::Failure::Transient,
            },
            text: format!("{addr}: {}", Printable(&refusal.detail)),
            is_stale: refusal.reason == RefusalReason::StaleSession,
        },
    }
}
