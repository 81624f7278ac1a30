//! Requests that can cross HTTP/2.

use adit_codec::{GrpcRequest, HttpRequest};

use crate::{
    fields::has_element,
    protocol::interim::Interim,
    request::asked::{Asked, Told},
};

/// A request that can cross HTTP/2.
pub(crate) enum Head {
    Http(Box<HttpRequest>),
    Grpc(Box<GrpcRequest>),
}

impl Told for Head {
    fn asked(&self) -> Asked<'_> {
        match self {
            Self::Http(head) => head.asked(),
            Self::Grpc(head) => head.asked(),
        }
    }
}

impl Head {
    /// Of what comes before the answer; none of a call, whose answer has no place for it on the wire.
    pub(super) fn interim(&self) -> Option<Interim> {
        let Self::Http(head) = self else {
            return None;
        };
        let expect = head.headers.first(b"expect");
        let expects = expect.is_some_and(|expect| has_element(expect, b"100-continue"));
        Some(Interim::new(expects))
    }
}
