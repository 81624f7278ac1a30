//! The layers that a configuration can contain.
//!
//! The settings of a side contain a list of them, and so does the announcement of a tunnel (P-1.16). Requests pass the
//! layers in the order of the list, responses in the reverse order. Decision 0029 has the reasons.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::{
    forward::layer::{Layer, Layers},
    layers::{
        access::{Access, AccessConfig, AccessRule, Position, RemoveCopied, access_layers},
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
    /// Decides who may visit.
    Access(AccessConfig),
}

/// A list of a configuration, and the state of its layers.
pub struct LayerList<'c> {
    /// The layers in their order.
    pub layers: &'c [LayerConfig],
    /// The name of the list in logs and in the list of bans: `server`, `tunnel office/web`.
    pub place: &'c str,
    /// The state of the access layers.
    pub access: &'c Arc<Access>,
}

impl LayerList<'_> {
    /// Creates the layers.
    pub fn layers(&self) -> Vec<Box<dyn Layer>> {
        let place: Arc<str> = self.place.into();
        let mut made = Vec::with_capacity(self.layers.len());
        // In front of the others, so that no layer takes the line of a visitor for that of a provider.
        for provider in self.enforced_providers() {
            made.push(Box::new(RemoveCopied {
                provider: provider.into(),
                access: self.access.clone(),
            }) as Box<dyn Layer>);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let later = self.layers.iter().skip(index + 1);
            match layer.clone() {
                LayerConfig::RequestHeaders(edit) => {
                    made.push(Box::new(RequestHeaders(edit)) as Box<dyn Layer>);
                }
                LayerConfig::ResponseHeaders(edit) => made.push(Box::new(ResponseHeaders(edit))),
                LayerConfig::RequireHeader(header) => made.push(Box::new(header)),
                LayerConfig::Redirect(redirect) => made.push(Box::new(redirect)),
                LayerConfig::Respond(respond) => made.push(Box::new(respond)),
                LayerConfig::Access(config) => {
                    let later: Vec<_> = later.filter_map(LayerConfig::access).collect();
                    let position = Position {
                        place: &place,
                        index,
                        later: &later,
                    };
                    made.extend(access_layers(&config, &position, self.access));
                }
            }
        }
        made
    }

    /// The providers of forward auth whose headers reach the service.
    fn enforced_providers(&self) -> impl Iterator<Item = &str> {
        let enforced = { self.layers.iter() }.filter(|layer| match layer {
            LayerConfig::Access(config) => config.enforces(),
            _ => false,
        });
        enforced.filter_map(LayerConfig::provider)
    }

    /// Creates the list.
    pub fn list(&self) -> Layers {
        Layers::new(self.layers())
    }
}

impl LayerConfig {
    /// The access layer, if it is one.
    const fn access(&self) -> Option<&AccessConfig> {
        match self {
            Self::Access(config) => Some(config),
            _ => None,
        }
    }

    /// The name of a provider of forward auth, if the layer has one.
    pub fn provider(&self) -> Option<&str> {
        match self.access()?.rule() {
            AccessRule::ForwardAuth(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the layer is for TCP connections and UDP flows as well, which have no headers.
    pub const fn fits_sessions(&self) -> bool {
        match self {
            Self::Access(config) => config.rule().fits_sessions(),
            Self::RequestHeaders(_)
            | Self::ResponseHeaders(_)
            | Self::RequireHeader(_)
            | Self::Redirect(_)
            | Self::Respond(_) => false,
        }
    }

    /// The key of the layer in a configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::RequestHeaders(_) => "request_headers",
            Self::ResponseHeaders(_) => "response_headers",
            Self::RequireHeader(_) => "require_header",
            Self::Redirect(_) => "redirect",
            Self::Respond(_) => "respond",
            Self::Access(config) => config.rule().kind(),
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
            Self::Access(config) => config.rule().size(),
        }
    }
}
