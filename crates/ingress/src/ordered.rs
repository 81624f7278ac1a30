//! Taking header lines out without changing the order of the others: [`HeaderMap::remove`] puts the last line into the
//! place of the one that it takes out.

use http::{HeaderMap, HeaderName};

/// Keeps the lines whose name passes, in their order.
pub(crate) fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    if headers.keys().all(&keep) {
        return;
    }
    let all = std::mem::take(headers);
    headers.reserve(all.keys_len());
    let mut kept = None;
    for (name, value) in all {
        // A name stands before the first of its lines only.
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
    use http::HeaderValue;

    use super::*;

    #[test]
    fn lines_that_stay_keep_their_order() {
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
