//! The result of one request.

use http::Response;

use crate::forward::response_body::ResponseBody;

/// The result of one request.
pub(crate) enum Served<S> {
    Response(Response<ResponseBody>),
    /// A response without a body, and the session that follows it on the connection or stream.
    Session(Response<()>, S),
}

impl<S> Served<S> {
    pub(super) fn map_session<T>(self, map: impl FnOnce(S) -> T) -> Served<T> {
        match self {
            Self::Response(response) => Served::Response(response),
            Self::Session(head, session) => Served::Session(head, map(session)),
        }
    }
}
