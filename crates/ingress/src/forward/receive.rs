//! Receives the response of a service, up to its final head.

use adit_codec::{HeaderBlock, HttpResponse, ResponseHead};
use adit_link::{Failure, Part, Reason, RecvHalf, SendHalf};
use bytes::Bytes;

use crate::forward::{interim, options::ForwardOptions, pump::Pump, record::RequestRecord};

/// The final response of a service: its head has arrived, its body follows.
pub(crate) struct UpstreamResponse {
    pub(crate) head: UpstreamHead,
    pub(crate) recv: RecvHalf,
    pub(crate) request: RequestSend,
}

/// The head of a response, in any protocol.
pub(crate) struct UpstreamHead {
    pub(crate) status: u16,
    pub(crate) headers: HeaderBlock,
    /// The protocol that the service has changed to, with status 101 only.
    pub(crate) upgrade: Bytes,
}

/// The request's own direction while the response is received.
pub(crate) enum RequestSend {
    /// The request has been sent.
    Done,
    /// The body is being sent.
    Streaming(Pump),
    /// The response arrived before the body was requested, and the body is not read. This direction must not end as if
    /// the body had been sent: it stays open as long as the response lasts, unless the other side stops it.
    NotRequested(#[expect(dead_code, reason = "its drop ends the direction")] SendHalf),
    /// There is no body, but the direction stays open for a WebSocket or another upgrade, until the service rejects it.
    Open(SendHalf),
}

impl RequestSend {
    /// The failure of the visitor's body.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Streaming(pump) => pump.failure(),
            Self::Done | Self::NotRequested(_) | Self::Open(_) => None,
        }
    }

    /// Whether a part of the visitor's body will never be read.
    pub(crate) fn is_cut(&self) -> bool {
        match self {
            Self::Done | Self::Open(_) => false,
            Self::Streaming(pump) => pump.is_stopped(),
            Self::NotRequested(_) => true,
        }
    }

    /// Called when the response is complete: a body that is being sent may continue to its end.
    pub(crate) fn detach(self) {
        if let Self::Streaming(pump) = self {
            pump.detach();
        }
    }
}

/// A head that has arrived.
pub(super) enum ReceivedHead {
    Final(UpstreamHead),
    /// Status 100 to 199 (P-3.1).
    Interim(Box<HttpResponse>),
}

/// Receives the final response to a request that has been sent completely. Interim responses are passed on.
pub(super) async fn receive(
    record: &RequestRecord,
    options: ForwardOptions<'_>,
    mut recv: RecvHalf,
) -> Result<UpstreamResponse, Failure> {
    loop {
        match head_of(recv.part().await, record.may_switch)? {
            // No body waits for a `100 Continue`.
            ReceivedHead::Interim(head) if head.status == 100 => {}
            ReceivedHead::Interim(head) => {
                let (connection, version) = (record.connection(), record.request.version);
                interim::pass_on(connection.interim(), version, options.interim, &head).await;
            }
            ReceivedHead::Final(head) => {
                return Ok(UpstreamResponse {
                    head,
                    recv,
                    request: RequestSend::Done,
                });
            }
        }
    }
}

/// The head in `part`. `may_switch`: whether the service may switch to another protocol.
pub(super) fn head_of(
    part: Option<Result<Part, Failure>>,
    may_switch: bool,
) -> Result<ReceivedHead, Failure> {
    let (status, headers, upgrade) = match part {
        Some(Ok(Part::Response(ResponseHead::Http(head)))) => match head.status {
            200.. => (head.status, head.headers, Bytes::new()),
            101 if may_switch => (head.status, head.headers, head.upgrade),
            101 => {
                return Err(Failure::new(
                    Reason::ServiceAborted,
                    "upstream changed to another protocol that was not requested",
                ));
            }
            _ => return Ok(ReceivedHead::Interim(head)),
        },
        Some(Ok(Part::Response(ResponseHead::Grpc(head)))) => {
            (head.status, head.metadata, Bytes::new())
        }
        Some(Ok(Part::Response(ResponseHead::WebSocket(head)))) => {
            (head.status, head.headers, Bytes::new())
        }
        Some(Ok(_)) => {
            return Err(Failure::new(
                Reason::ProtocolError,
                "unexpected message type: expected the head of a response",
            ));
        }
        Some(Err(failure)) => return Err(of_peer(failure)),
        None => {
            return Err(Failure::new(
                Reason::ServiceAborted,
                "upstream closed the exchange without a response",
            ));
        }
    };
    Ok(ReceivedHead::Final(UpstreamHead {
        status,
        headers,
        upgrade,
    }))
}

/// A failure of the exchange, while the visitor is still connected: a cancellation was sent by the other side.
pub(crate) fn of_peer(failure: Failure) -> Failure {
    match failure.reason {
        Reason::Cancelled => {
            Failure::new(Reason::ServiceAborted, "the client cancelled the request")
        }
        _ => failure,
    }
}
