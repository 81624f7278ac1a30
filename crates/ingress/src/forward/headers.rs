//! Header lines: adit's own names, lists of tokens, and removal that keeps the order of the rest.

pub(crate) use adit_codec::fields::is_hop_by_hop;
use adit_codec::fields::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The reason of a failure, in local responses (section 7 of the protocol).
pub(crate) const REASON: HeaderName = HeaderName::from_static("adit-reason");
/// The id of the request, in local responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("adit-request-id");

/// The id of a request as a header value.
pub(crate) fn request_id(uuid: &Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = uuid.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are always a valid value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether a line of a request is sent to the service, by its name in lower case. `host` crosses as the authority.
/// Lines are left out while the head is encoded: to remove them from the map in order would rebuild the map.
pub(crate) fn crosses(name: &[u8]) -> bool {
    name != b"host" && (name == b"te" || !is_hop_by_hop(name))
}

/// The elements of a comma-separated list, over all lines with this name.
pub(crate) fn elements<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| list_elements(line.as_bytes()))
}

/// Whether a list has this token, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// Keeps the lines whose name passes, in their order: [`HeaderMap::remove`] moves the last line into the place of the
/// removed one.
pub(crate) fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    if headers.keys().all(&keep) {
        return;
    }
    let all = std::mem::take(headers);
    headers.reserve(all.keys_len());
    let mut kept = None;
    for (name, value) in all {
        // The iterator returns a name only with the first of its lines.
        if let Some(name) = name {
            kept = keep(&name).then_some(name);
        }
        if let Some(name) = &kept {
            headers.append(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_lines_keeps_the_order_of_the_rest() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "h"),
            ("a", "1"),
            ("b", "2"),
            ("a", "3"),
            ("x-drop", "4"),
            ("x-drop", "5"),
            ("c", "6"),
            ("d", "7"),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        retain(&mut headers, |name| {
            name != http::header::HOST && name.as_str() != "x-drop"
        });
        let lines = headers.iter();
        let lines: Vec<_> = { lines.map(|(n, v)| (n.as_str(), v.to_str().unwrap())) }.collect();
        let expected = [("a", "1"), ("a", "3"), ("b", "2"), ("c", "6"), ("d", "7")];
        assert_eq!(lines, expected);
    }
}
