//! Challenges by which a certificate authority validates a host over HTTP (RFC 8555, 8.3).

use std::{collections::HashMap, fmt, sync::Arc};

use http::{HeaderValue, Method, StatusCode};
use parking_lot::RwLock;

use crate::forward::{
    layer::{Layer, Verdict},
    local_response::LocalResponse,
    request_meta::{RequestMeta, Scheme},
};

/// The path of a challenge, before its token.
const PATH: &[u8] = b"/.well-known/acme-challenge/";

/// The challenges that are answered here, by token. Clones share them. Requests for other tokens continue: a service may
/// have certificates of its own.
#[derive(Clone, Default)]
pub struct HttpChallenges(Arc<RwLock<HashMap<Box<str>, Box<str>>>>);

/// Whether a target is that of a challenge.
pub(super) fn is_challenge(target: &[u8]) -> bool {
    target.starts_with(PATH)
}

impl HttpChallenges {
    /// No challenges.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers requests for this token with the key authorization, until it is removed.
    pub fn insert(&self, token: &str, key_authorization: &str) {
        self.0
            .write()
            .insert(token.into(), key_authorization.into());
    }

    /// Answers no more requests for this token.
    pub fn remove(&self, token: &str) {
        self.0.write().remove(token);
    }

    fn answer(&self, target: &[u8]) -> Option<Box<str>> {
        let token = target.strip_prefix(PATH)?;
        let token = std::str::from_utf8(token).ok()?;
        self.0.read().get(token).cloned()
    }
}

impl Layer for HttpChallenges {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let is_asked = request.scheme == Scheme::Http
            && is_challenge(request.path.as_bytes())
            && matches!(request.method, Method::GET | Method::HEAD);
        match is_asked
            .then(|| self.answer(request.path.as_bytes()))
            .flatten()
        {
            Some(answer) => Verdict::respond(
                LocalResponse::new(StatusCode::OK)
                    .with_body(HeaderValue::from_static("text/plain"), answer.into_string()),
            ),
            None => Verdict::Continue,
        }
    }
}

impl fmt::Debug for HttpChallenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpChallenges")
            .field(&self.0.read().len())
            .finish()
    }
}
