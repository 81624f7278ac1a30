//! A request that can be sent over HTTP/2: of HTTP or of gRPC.

use adit_codec::{GrpcRequest, HeaderBlock, HttpRequest, Open, fields::list_contains};

use crate::{
    forward::{
        record::RequestRecord,
        request_info::{RequestInfo, RequestSummary},
    },
    protocol::interim::InterimResponses,
};

/// The record of a request that is sent over HTTP/2.
pub(crate) type Http2Record = RequestRecord<Http2Head>;

/// The head of a request that can be sent over HTTP/2.
pub(crate) enum Http2Head {
    Http(Box<HttpRequest>),
    Grpc(Box<GrpcRequest>),
}

impl RequestInfo for Http2Head {
    fn summary(&self) -> RequestSummary<'_> {
        match self {
            Self::Http(head) => head.summary(),
            Self::Grpc(head) => head.summary(),
        }
    }
}

impl Http2Head {
    pub(super) fn open(&self) -> &Open {
        match self {
            Self::Http(head) => &head.open,
            Self::Grpc(head) => &head.open,
        }
    }

    pub(super) fn headers(&self) -> &HeaderBlock {
        match self {
            Self::Http(head) => &head.headers,
            Self::Grpc(head) => &head.metadata,
        }
    }

    /// Whether the response has no body because the method is HEAD.
    pub(super) fn is_to_head(&self) -> bool {
        matches!(self, Self::Http(head) if head.method == "HEAD")
    }

    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self, Self::Grpc(_))
    }

    /// Counts the interim responses to the request; `None` for gRPC, whose responses have no interim heads on the wire.
    pub(super) fn interim(&self) -> Option<InterimResponses> {
        let Self::Http(head) = self else {
            return None;
        };
        let expect = head.headers.first(b"expect");
        let expects_continue = expect.is_some_and(|value| list_contains(value, b"100-continue"));
        Some(InterimResponses::new(expects_continue))
    }
}
