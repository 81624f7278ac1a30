//! The layers that a configuration can contain.
//!
//! The settings of a side contain a list of them, and so does the announcement of a tunnel (P-1.16). Requests pass the
//! layers in the order of the list, responses in the reverse order. Decision 0029 has the reasons.

use http::{HeaderName, HeaderValue};

use crate::{
    forward::layer::{Layer, Layers},
    layers::{
        header_edit::{HeaderEdit, RequestHeaders, ResponseHeaders},
        redirect::Redirect,
        required_header::RequiredHeader,
        respond::Respond,
    },
};

/// One layer of a configuration, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerConfig {
    /// Changes header lines of requests.
    RequestHeaders(HeaderEdit),
    /// Changes header lines of responses.
    ResponseHeaders(HeaderEdit),
    /// Responds to requests without a header.
    RequireHeader(RequiredHeader),
    /// Redirects requests to another scheme or host.
    Redirect(Redirect),
    /// Responds to every request.
    Respond(Respond),
}

impl LayerConfig {
    /// Creates the layer.
    pub fn layer(&self) -> Box<dyn Layer> {
        match self.clone() {
            Self::RequestHeaders(edit) => Box::new(RequestHeaders(edit)),
            Self::ResponseHeaders(edit) => Box::new(ResponseHeaders(edit)),
            Self::RequireHeader(header) => Box::new(header),
            Self::Redirect(redirect) => Box::new(redirect),
            Self::Respond(respond) => Box::new(respond),
        }
    }

    /// The bytes of the names, values and body of the layer.
    pub fn size(&self) -> usize {
        let lines = |lines: &[(HeaderName, HeaderValue)]| -> usize {
            let sizes = lines
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len());
            sizes.sum()
        };
        match self {
            Self::RequestHeaders(edit) | Self::ResponseHeaders(edit) => {
                let removed = edit.lines_removed().iter().map(|name| name.as_str().len());
                removed.sum::<usize>() + lines(edit.lines_set()) + lines(edit.lines_added())
            }
            Self::RequireHeader(header) => {
                let values = header.values().iter().map(HeaderValue::len);
                header.name().as_str().len() + values.sum::<usize>()
            }
            Self::Redirect(redirect) => redirect.host().map_or(0, str::len),
            Self::Respond(respond) => lines(respond.headers()) + respond.body().len(),
        }
    }
}

impl<'c> FromIterator<&'c LayerConfig> for Layers {
    fn from_iter<I: IntoIterator<Item = &'c LayerConfig>>(layers: I) -> Self {
        Self::new(layers.into_iter().map(LayerConfig::layer).collect())
    }
}
