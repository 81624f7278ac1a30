//! Encodes the head of a request, which opens its exchange.

use adit_codec::{
    EncodedHead, GrpcRequestHead, HeadError, HttpRequestHead, Open, ProtocolType,
    WebSocketRequestHead,
};
use adit_link::{Failure, Reason, header_lines};
use adit_trace::TraceContext;
use http::{
    HeaderName,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE, UPGRADE,
    },
};
use tokio::time::Instant;

use crate::forward::{
    deadline::{self, Deadline},
    director::Destination,
    headers::crosses,
    request_meta::{RequestMeta, traceparent},
    session::Session,
};

/// The longest trace header that crosses.
const MAX_TRACE_BYTES: usize = 8 * 1024;

/// The lines of a WebSocket handshake that belong to one hop (P-9.1).
pub(crate) const WEBSOCKET_HOP_LINES: [HeaderName; 5] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
    SEC_WEBSOCKET_ACCEPT,
];

/// The head of a request on its way to one client.
#[derive(Clone, Copy)]
pub(super) struct Head<'r> {
    pub(super) request: &'r RequestMeta,
    /// The service may change to one of the protocols that the request offers.
    pub(super) offers_upgrade: bool,
    pub(super) tunnel: &'r str,
    pub(super) revision: u64,
    /// The deadline of a gRPC call.
    pub(super) deadline: Option<Deadline>,
}

impl Head<'_> {
    /// Encodes the head with the part of the body that fits into its message. `trace` is the context of a request that is
    /// traced here: it replaces the visitor's.
    ///
    /// # Errors
    /// [`Reason::HeaderTooLarge`].
    pub(super) fn encode(
        self,
        trace: Option<TraceContext>,
        body: &[u8],
    ) -> Result<EncodedHead, Failure> {
        let request = self.request;
        let trace = trace.map(|context| context.to_string());
        let received = || {
            let received = traceparent(&request.headers);
            let is_valid =
                received.len() <= MAX_TRACE_BYTES && received.parse::<TraceContext>().is_ok();
            if is_valid { received } else { "" }
        };
        static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
        let baggage = request.headers.get(&BAGGAGE);
        let baggage = baggage.and_then(|value| value.to_str().ok());
        let open = Open {
            request_uuid: request.uuid.into_bytes(),
            tunnel: self.tunnel,
            revision: self.revision,
            visitor: request.visitor.as_str(),
            traceparent: trace.as_deref().unwrap_or_else(received),
            baggage: baggage
                .filter(|baggage| baggage.len() <= MAX_TRACE_BYTES)
                .unwrap_or_default(),
            resumable: false,
        };
        let authority = request.authority_str().as_bytes();
        let path = request.path.as_bytes();
        let head = match request.protocol {
            ProtocolType::WebSocket => {
                let head = WebSocketRequestHead {
                    open: &open,
                    authority,
                    path,
                };
                head.encode(lines_of(request).filter(|(name, _)| crosses_to_websocket(name)))
            }
            // P-8.2, P-8.3
            ProtocolType::Grpc => {
                let head = GrpcRequestHead {
                    open: &open,
                    authority,
                    path,
                    timeout: self.deadline.map(|deadline| deadline.left(Instant::now())),
                };
                head.encode(
                    lines_of(request).filter(|(name, _)| crosses_in_call(name)),
                    body,
                )
            }
            _ => HttpRequestHead {
                open: &open,
                method: request.method.as_str(),
                scheme: request.scheme.as_str(),
                authority,
                path,
            }
            .encode_offer(
                if self.offers_upgrade {
                    &request.upgrade
                } else {
                    b""
                },
                lines_of(request),
                body,
            ),
        };
        head.map_err(|error| too_large(request, &error))
    }
}

/// The header lines of a request that cross.
pub(super) fn lines_of(request: &RequestMeta) -> impl Iterator<Item = (&[u8], &[u8])> {
    header_lines(&request.headers).filter(|(name, _)| crosses(name))
}

/// Whether a line is sent with a WebSocket handshake. Layers remove most of the other lines, but the caller chooses the
/// layers.
fn crosses_to_websocket(name: &[u8]) -> bool {
    let is_of_the_hop = WEBSOCKET_HOP_LINES
        .iter()
        .any(|line| line.as_str().as_bytes() == name);
    !is_of_the_hop && name != b"content-length"
}

/// Whether a line is sent with a gRPC call. The head contains the deadline, and each hop sends its own `te` (P-8.2).
fn crosses_in_call(name: &[u8]) -> bool {
    name != TE.as_str().as_bytes() && name != deadline::HEADER.as_bytes()
}

fn too_large(request: &RequestMeta, error: &HeadError) -> Failure {
    let detail = match error {
        HeadError::TooManyHeaders { .. } => error.to_string(),
        HeadError::TooLong { limit } => {
            let bytes: usize = lines_of(request)
                .map(|(name, value)| name.len() + value.len())
                .sum();
            format!("the header lines have {bytes} bytes; the limit for a whole head is {limit}")
        }
    };
    Failure::new(Reason::HeaderTooLarge, detail)
}

/// The opening message of a session; `traceparent` is empty where it is not traced.
pub(crate) fn open_session<'s>(
    session: &'s Session,
    destination: &'s Destination,
    traceparent: &'s str,
) -> Open<&'s str> {
    Open {
        request_uuid: *session.uuid.as_bytes(),
        tunnel: &destination.tunnel,
        revision: destination.revision,
        visitor: session.visitor.as_str(),
        traceparent,
        ..Open::default()
    }
}
