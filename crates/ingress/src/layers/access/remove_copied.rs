//! Removes the headers of a provider from requests of visitors.

use std::sync::Arc;

use crate::{
    forward::{
        headers::retain,
        layer::{Layer, Verdict},
        request_meta::RequestMeta,
        reserved::could_be,
    },
    layers::access::state::Access,
};

/// Removes the headers that a provider sets from requests of visitors. It is in front of the list, so that it holds for
/// requests that do not reach the layer of the provider as well.
pub(crate) struct RemoveCopied {
    pub(crate) provider: Arc<str>,
    pub(crate) access: Arc<Access>,
}

impl Layer for RemoveCopied {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let copied = self.access.providers.copied(&self.provider);
        retain(&mut request.headers, |name| {
            !copied.iter().any(|copied| could_be(name, copied))
        });
        request.reserved.add(&copied);
        Verdict::Continue
    }
}
