//! Requires a header of requests, such as a key that only some visitors have.

use std::fmt;

use http::{HeaderName, HeaderValue, StatusCode};
use subtle::{Choice, ConstantTimeEq};

use crate::{
    forward::{
        layer::{Layer, Verdict},
        local_response::{LocalResponse, PLAIN_TEXT},
        request_meta::RequestMeta,
    },
    layers::{
        header_line::{any_header_name, header_value},
        layer_error::LayerError,
        status::status,
    },
};

/// Responds to requests without a header, or with none of the values that are accepted. `Debug` hides the values, and they
/// are compared in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct RequiredHeader {
    name: HeaderName,
    values: Vec<HeaderValue>,
    status: StatusCode,
}

impl RequiredHeader {
    /// The status of the response if none is configured.
    pub const STATUS: u16 = 403;

    /// Requires the header with any value. A request without it gets the status 400, 403 or 404.
    ///
    /// # Errors
    /// An invalid name or another status.
    pub fn new(name: &[u8], status: u32) -> Result<Self, LayerError> {
        let is_allowed = |status| matches!(status, 400 | 403 | 404);
        Ok(Self {
            name: any_header_name(name)?,
            values: Vec::new(),
            status: self::status(status, is_allowed, "400, 403 or 404")?,
        })
    }

    /// Accepts this value. After the first call, only values that were added in this way are accepted.
    ///
    /// # Errors
    /// An invalid value.
    pub fn accept(&mut self, value: &[u8]) -> Result<(), LayerError> {
        self.values.push(header_value(&self.name, value)?);
        Ok(())
    }

    /// The header.
    pub const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The values that are accepted; empty: any.
    pub fn values(&self) -> &[HeaderValue] {
        &self.values
    }

    /// The status of the response to a request without it.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    fn is_met(&self, request: &RequestMeta) -> bool {
        let mut lines = request.headers.get_all(&self.name).iter();
        if self.values.is_empty() {
            return lines.next().is_some();
        }
        // Every line is compared with every value, so that the time does not depend on which of them are equal.
        let pairs = lines.flat_map(|line| self.values.iter().map(move |value| (line, value)));
        let is_met = pairs.fold(Choice::from(0), |met, (line, value)| {
            met | line.as_bytes().ct_eq(value.as_bytes())
        });
        is_met.into()
    }
}

impl Layer for RequiredHeader {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        if self.is_met(request) {
            return Verdict::Continue;
        }
        let plain = HeaderValue::from_static(PLAIN_TEXT);
        let text = format!("{}\n", self.status);
        Verdict::respond(LocalResponse::new(self.status).with_body(plain, text))
    }
}

impl fmt::Debug for RequiredHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequiredHeader")
            .field("name", &self.name)
            .field("values", &self.values.len())
            .field("status", &self.status)
            .finish()
    }
}
