//! Responses that adit itself makes, not a service: one value that is rendered for HTTP or for gRPC.

use std::borrow::Cow;

use adit_codec::ProtocolType;
use adit_link::{Failure, GRPC_CONTENT_TYPE, GrpcStatus, encode_grpc_message};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};
use uuid::Uuid;

/// The content type of texts.
pub(crate) const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A response that is made here: by a layer ([`crate::Verdict::Respond`]), or for a failure.
///
/// A call of gRPC receives it as a status: code, message and headers take the place of HTTP status and body.
#[derive(Debug, Clone)]
pub struct LocalResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    call_status: CallStatus,
    close: bool,
}

/// The status for a call of gRPC.
#[derive(Debug, Clone)]
enum CallStatus {
    Failure(GrpcStatus),
    Other(u16, Cow<'static, str>),
}

impl LocalResponse {
    /// A response without a body. The status for a call of gRPC follows from the HTTP status
    /// (grpc/grpc, doc/http-grpc-status-mapping.md).
    pub fn new(status: StatusCode) -> Self {
        let message = status.canonical_reason().unwrap_or_default();
        let call_status = CallStatus::Other(grpc_code(status), message.into());
        Self::with_call_status(status, call_status)
    }

    /// The response to a failure of a call (P-8.4).
    pub(crate) fn for_call(failure: &Failure, uuid: &Uuid) -> Self {
        let status = StatusCode::from_u16(failure.reason.http_status());
        let call_status = CallStatus::Failure(GrpcStatus::of_failure(failure, uuid));
        Self::with_call_status(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            call_status,
        )
    }

    fn with_call_status(status: StatusCode, call_status: CallStatus) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            call_status,
            close: false,
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Sets a header line, which replaces those with its name.
    #[must_use]
    pub(crate) fn with_only_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body and its content type.
    #[must_use]
    pub fn with_body(mut self, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, content_type);
        self.body = body.into();
        self
    }

    /// Sets the status for a call of gRPC.
    #[must_use]
    pub fn with_grpc_status(mut self, code: u16, message: impl Into<Cow<'static, str>>) -> Self {
        self.call_status = CallStatus::Other(code, message.into());
        self
    }

    /// Closes the connection after the response, if it is HTTP/1.
    #[must_use]
    pub fn with_close(mut self, close: bool) -> Self {
        self.close |= close;
        self
    }

    /// The status for HTTP.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Renders the response to a request with this protocol, method and version.
    pub(crate) fn render(
        self,
        protocol: ProtocolType,
        method: &Method,
        version: Version,
    ) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        if protocol == ProtocolType::Grpc {
            let kind = HeaderValue::from_static(GRPC_CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().extend(self.into_trailers());
            return response;
        }
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if self.close && version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if *method != Method::HEAD {
            *response.body_mut() = self.body;
        }
        response
    }

    /// The trailers that end a call of gRPC with this response.
    pub(crate) fn into_trailers(self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(5 + self.headers.len());
        match &self.call_status {
            CallStatus::Failure(status) => {
                for (name, value) in status.lines() {
                    // Visible ASCII is always a valid value.
                    if let Ok(value) = HeaderValue::from_str(value) {
                        trailers.insert(HeaderName::from_static(name), value);
                    }
                }
            }
            CallStatus::Other(code, message) => {
                trailers.insert(GRPC_STATUS, (*code).into());
                if let Ok(message) = HeaderValue::try_from(encode_grpc_message(message)) {
                    trailers.insert(GRPC_MESSAGE, message);
                }
            }
        }
        let mut headers = self.headers;
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
        trailers.extend(headers);
        trailers
    }
}

/// The code that stands for an HTTP status.
const fn grpc_code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use adit_link::Reason;
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    fn unauthorized() -> LocalResponse {
        LocalResponse::new(StatusCode::UNAUTHORIZED)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))
            .with_body(HeaderValue::from_static("text/plain"), "log in")
            .with_close(true)
    }

    #[test]
    fn http_response_has_status_headers_and_body() {
        let render = |method, version| unauthorized().render(ProtocolType::Http, &method, version);
        let response = render(Method::GET, Version::HTTP_11);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(response.body(), "log in");
        assert!(render(Method::HEAD, Version::HTTP_11).body().is_empty());
        let http2 = render(Method::GET, Version::HTTP_2);
        assert!(!http2.headers().contains_key(CONNECTION));
    }

    #[test]
    fn grpc_response_is_a_status_with_the_headers() {
        let render = |response: LocalResponse| {
            response.render(ProtocolType::Grpc, &Method::POST, Version::HTTP_2)
        };
        let response = render(unauthorized());
        assert_eq!(
            (response.status().as_u16(), response.body().len()),
            (200, 0)
        );
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        assert_eq!(response.headers()[GRPC_STATUS], "16");
        assert_eq!(response.headers()[GRPC_MESSAGE], "Unauthorized");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic");
        let response = render(unauthorized().with_grpc_status(7, "50 %"));
        assert_eq!(response.headers()[GRPC_STATUS], "7");
        assert_eq!(response.headers()[GRPC_MESSAGE], "50 %25");
    }

    #[test]
    fn p_8_4_failed_call_is_a_response_of_trailers_only() {
        let failure = Failure::new(Reason::NoClient, "no client");
        let response = LocalResponse::for_call(&failure, &Uuid::from_u128(7));
        let response = response.render(ProtocolType::Grpc, &Method::POST, Version::HTTP_2);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let code = Reason::NoClient.grpc_status().to_string();
        assert_eq!(response.headers()[GRPC_STATUS], code);
        assert_eq!(response.headers()["adit-reason"], "no_client");
    }
}
