//! Tells the service who asked, and how (P-3.4).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    layer::{Layer, Verdict},
    visit::Visit,
};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Adds the visitor's address to `x-forwarded-for`, and sets `x-forwarded-host`, `x-forwarded-proto` and `x-request-id`.
/// What the visitor said in the latter three is not believed. Belongs behind [`crate::layers::HopByHop`], through which
/// a visitor could have these taken out again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forwarded;

impl Layer for Forwarded {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        let before = said_before(&visit.headers);
        let list = if before.is_empty() {
            Some(visit.visitor.ip_value().clone())
        } else {
            let list = [&before, visit.visitor.ip_value().as_bytes()].concat();
            HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).ok()
        };
        if let Some(list) = list {
            visit.headers.insert(FOR, list);
        }
        if let Ok(host) = HeaderValue::from_str(visit.authority.as_str()) {
            visit.headers.insert(HOST, host);
        }
        let proto = HeaderValue::from_static(visit.scheme.as_str());
        visit.headers.insert(PROTO, proto);
        visit.headers.insert(REQUEST_ID, request_id(&visit.uuid));
        Verdict::Continue
    }
}

/// The addresses that proxies before us have added, each followed by a comma.
fn said_before(headers: &HeaderMap) -> Vec<u8> {
    let mut list = Vec::new();
    for said in headers.get_all(FOR) {
        let said = said.as_bytes().trim_ascii();
        if !said.is_empty() {
            list.extend_from_slice(said);
            list.extend_from_slice(b", ");
        }
    }
    list
}

/// A request's UUID as a header value.
pub(crate) fn request_id(uuid: &uuid::Uuid) -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let text = uuid.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are always a value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
