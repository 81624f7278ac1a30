//! A response instead of the service's: a maintenance page, a closed path.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

use crate::{
    forward::{
        layer::{Layer, Verdict},
        local_response::{LocalResponse, PLAIN_TEXT},
        request_meta::RequestMeta,
    },
    layers::{
        header_line::{header_name, header_value},
        layer_error::LayerError,
        status::status,
    },
};

/// Responds to every request.
#[derive(Clone, PartialEq, Eq)]
pub struct Respond {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Respond {
    /// Creates a response with a status from 200 to 599, without headers and body.
    ///
    /// # Errors
    /// Any other status.
    pub fn new(status: u32) -> Result<Self, LayerError> {
        let is_allowed = |status| (200..600).contains(&status);
        Ok(Self {
            status: self::status(status, is_allowed, "200 to 599")?,
            headers: Vec::new(),
            body: Bytes::new(),
        })
    }

    /// Adds a header line.
    ///
    /// # Errors
    /// An invalid name or value, or a name that the response may not have.
    pub fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let name = header_name(name)?;
        let value = header_value(&name, value)?;
        self.headers.push((name, value));
        Ok(())
    }

    /// Sets the body: plain text, unless a header sets another type.
    ///
    /// # Errors
    /// The status allows none.
    pub fn set_body(&mut self, body: impl Into<Bytes>) -> Result<(), LayerError> {
        let bodyless = [
            StatusCode::NO_CONTENT,
            StatusCode::RESET_CONTENT,
            StatusCode::NOT_MODIFIED,
        ];
        let body = body.into();
        if bodyless.contains(&self.status) && !body.is_empty() {
            let status = self.status.as_u16();
            return Err(LayerError::Body { status });
        }
        self.body = body;
        Ok(())
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The header lines.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    fn response(&self) -> LocalResponse {
        let mut response = LocalResponse::new(self.status);
        if !self.body.is_empty() {
            let mut types = self.headers.iter();
            let content_type = types.find(|(name, _)| *name == CONTENT_TYPE);
            let content_type = content_type.map(|(_, value)| value.clone());
            let plain = HeaderValue::from_static(PLAIN_TEXT);
            response = response.with_body(content_type.unwrap_or(plain), self.body.clone());
        }
        for (name, value) in &self.headers {
            if *name != CONTENT_TYPE || self.body.is_empty() {
                response = response.with_header(name.clone(), value.clone());
            }
        }
        response
    }
}

impl Layer for Respond {
    fn on_request<'r>(&'r self, _: &'r mut RequestMeta) -> Verdict<'r> {
        Verdict::respond(self.response())
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Respond")
            .field("status", &self.status)
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use adit_codec::ProtocolType;
    use http::{Method, Version};

    use super::*;

    fn rendered(respond: &Respond) -> http::Response<Bytes> {
        let response = respond.response();
        response.render(ProtocolType::Http, &Method::GET, Version::HTTP_11)
    }

    #[test]
    fn body_is_plain_text_unless_a_header_sets_another_type() {
        let mut page = Respond::new(503).unwrap();
        page.set_body("back at noon").unwrap();
        page.add_header(b"retry-after", b"600").unwrap();
        let response = rendered(&page);
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers()[CONTENT_TYPE],
            "text/plain; charset=utf-8"
        );
        assert_eq!(response.headers()["retry-after"], "600");
        assert_eq!(response.body(), "back at noon");
        page.add_header(b"Content-Type", b"text/html").unwrap();
        let response = rendered(&page);
        let mut types = response.headers().get_all(CONTENT_TYPE).iter();
        assert_eq!(
            (types.next().unwrap(), types.next()),
            (&HeaderValue::from_static("text/html"), None)
        );
    }

    #[test]
    fn status_bounds_the_response() {
        for status in [0, 101, 199, 600, 65_736] {
            let error = Respond::new(status).unwrap_err();
            assert!(matches!(error, LayerError::Status { .. }), "{status}");
        }
        let mut empty = Respond::new(204).unwrap();
        assert_eq!(empty.set_body("a"), Err(LayerError::Body { status: 204 }));
        assert_eq!(empty.set_body(""), Ok(()));
    }
}
