//! Asks another service about each request, before it is forwarded.
//!
//! The service is a *provider* of the server's configuration: a client only names one, so that it cannot make the server
//! send requests to an address of its choice. The sub-request has no body; a response with a 2xx status admits the
//! visitor, and any other is the response to the visitor.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use adit_codec::fields::is_message_control;
use adit_link::{BoxFuture, Reason};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, COOKIE, ORIGIN, REFERER, USER_AGENT,
        WWW_AUTHENTICATE,
    },
};

use crate::{
    forward::{
        denial::Denial,
        headers::{is_hop_by_hop, retain},
        local_response::LocalResponse,
        request_meta::RequestMeta,
        reserved::could_be,
    },
    layers::access::opinion::Opinion,
};

/// The lines of a request that a provider receives, beside those that its configuration names.
const SENT: [HeaderName; 8] = [
    ACCEPT,
    ACCEPT_LANGUAGE,
    AUTHORIZATION,
    COOKIE,
    ORIGIN,
    REFERER,
    USER_AGENT,
    HeaderName::from_static("x-requested-with"),
];

/// A service that decides about requests.
pub trait AuthProvider: Send + Sync + 'static {
    /// The headers of its responses that admitted requests are sent with. Those of visitors are removed.
    fn copied(&self) -> &[HeaderName];

    /// The headers of requests that it receives, beside cookies, credentials and the like.
    fn sent(&self) -> &[HeaderName];

    /// Sends a sub-request with these lines, and reads the response. Bounds the time, and the size of the body.
    ///
    /// # Errors
    /// A text for the log.
    fn ask(&self, lines: HeaderMap) -> BoxFuture<'_, Result<Response<Bytes>, String>>;
}

/// The providers of a configuration, by name.
pub(super) struct Providers(ArcSwap<Known>);

#[derive(Default, Clone)]
struct Known {
    providers: HashMap<String, Arc<dyn AuthProvider>>,
    /// The headers that each provider sets, also those of providers that a reload has removed: a service that has trusted
    /// them must not receive them from a visitor.
    copied: HashMap<String, Arc<[HeaderName]>>,
}

impl Providers {
    pub(super) fn new() -> Self {
        Self(ArcSwap::default())
    }

    pub(super) fn set(&self, providers: HashMap<String, Arc<dyn AuthProvider>>) {
        let mut copied = self.0.load().copied.clone();
        for (name, provider) in &providers {
            copied.insert(name.clone(), provider.copied().into());
        }
        self.0.store(Arc::new(Known { providers, copied }));
    }

    /// The headers that a provider sets, or did before it was removed.
    pub(super) fn copied(&self, name: &str) -> Arc<[HeaderName]> {
        let known = self.0.load();
        known.copied.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<dyn AuthProvider>> {
        self.0.load().providers.get(name).cloned()
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.load().providers.keys())
            .finish()
    }
}

/// The lines of the sub-request for a request.
pub(super) fn lines_for(request: &RequestMeta, provider: &dyn AuthProvider) -> HeaderMap {
    let mut lines = HeaderMap::new();
    for name in SENT.iter().chain(provider.sent()) {
        for value in request.headers.get_all(name) {
            lines.append(name, value.clone());
        }
    }
    let mut set = |name: &'static str, value: &[u8]| {
        // Parts of a request that was read are valid values.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            lines.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-forwarded-method", request.method.as_str().as_bytes());
    set("x-forwarded-proto", request.scheme.as_str().as_bytes());
    set("x-forwarded-host", request.authority_str().as_bytes());
    set("x-forwarded-uri", request.path.as_bytes());
    set("x-forwarded-for", request.visitor.ip_value().as_bytes());
    lines
}

/// The opinion of a provider, and the lines with which an admitted request is sent.
pub(super) fn opinion(
    request: &RequestMeta,
    answer: Result<Response<Bytes>, String>,
    copied: &[HeaderName],
) -> (Opinion, HeaderMap) {
    let (parts, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(_) => return (Opinion::unproven(away()), HeaderMap::new()),
    };
    if parts.status.is_success() {
        let mut lines = HeaderMap::new();
        for name in copied {
            for value in parts.headers.get_all(name) {
                lines.append(name, value.clone());
            }
        }
        return (Opinion::Granted, lines);
    }
    let reason = match parts.status {
        StatusCode::UNAUTHORIZED => Reason::UnauthenticatedVisitor,
        _ => Reason::AccessDenied,
    };
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    let mut response = LocalResponse::new(parts.status);
    if !body.is_empty() {
        let plain = HeaderValue::from_static("application/octet-stream");
        response = response.with_body(content_type.unwrap_or(plain), body);
    }
    let is_challenge =
        |name: &HeaderName| *name == WWW_AUTHENTICATE && !parts.status.is_redirection();
    for (name, value) in &parts.headers {
        let text = name.as_str().as_bytes();
        if is_challenge(name) {
            continue;
        }
        if *name != CONTENT_TYPE && !is_hop_by_hop(text) && !is_message_control(text) {
            response = response.with_header(name.clone(), value.clone());
        }
    }
    let denial = Denial::new(
        reason,
        "the authentication service does not admit the request",
    );
    let mut denial = denial.with_response(response);
    for (name, value) in &parts.headers {
        if is_challenge(name) {
            denial = denial.with_challenge(value.clone());
        }
    }
    // A visitor that is sent to a log-in has done nothing wrong.
    let has_tried = parts.status == StatusCode::FORBIDDEN
        || parts.status == StatusCode::UNAUTHORIZED && request.headers.contains_key(AUTHORIZATION);
    let denial = if has_tried {
        denial
    } else {
        denial.without_ban()
    };
    (Opinion::unproven(denial), HeaderMap::new())
}

/// The denial when the provider does not respond.
pub(super) fn away() -> Denial {
    let text = "the authentication service does not respond";
    Denial::new(Reason::Internal, text)
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
        .retry_after(Duration::from_secs(1))
        .unchecked()
        .without_ban()
}

/// Replaces the lines that a provider sets.
pub(super) fn copy(lines: HeaderMap, copied: &[HeaderName], headers: &mut HeaderMap) {
    retain(headers, |name| {
        !copied.iter().any(|copied| could_be(name, copied))
    });
    let mut name = None;
    for (next, value) in lines {
        // The iterator returns a name only with the first of its lines.
        name = next.or(name);
        if let Some(name) = &name {
            headers.append(name.clone(), value);
        }
    }
}
