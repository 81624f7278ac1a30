//! Changes of header lines that a configuration can contain.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, response::Parts};

use crate::{
    forward::{
        headers::retain,
        layer::{Layer, Verdict},
        request_meta::RequestMeta,
    },
    layers::header_line::{header_name, header_value},
    layers::layer_error::LayerError,
};

/// Header lines that are removed, set and added, in this order. `Debug` hides their values, which may be secrets.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HeaderEdit {
    removed: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    added: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdit {
    /// Removes all lines with this name.
    ///
    /// # Errors
    /// An invalid name, or one that may not be changed.
    pub fn remove(&mut self, name: &[u8]) -> Result<(), LayerError> {
        self.removed.push(header_name(name)?);
        Ok(())
    }

    /// Replaces all lines with this name by one line.
    ///
    /// # Errors
    /// An invalid name or value, or a name that may not be changed.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let name = header_name(name)?;
        let value = header_value(&name, value)?;
        self.set.push((name, value));
        Ok(())
    }

    /// Adds a line after those with this name.
    ///
    /// # Errors
    /// Returns the errors of [`HeaderEdit::set`].
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let name = header_name(name)?;
        let value = header_value(&name, value)?;
        self.added.push((name, value));
        Ok(())
    }

    /// The names whose lines are removed.
    pub fn lines_removed(&self) -> &[HeaderName] {
        &self.removed
    }

    /// The lines that are set.
    pub fn lines_set(&self) -> &[(HeaderName, HeaderValue)] {
        &self.set
    }

    /// The lines that are added.
    pub fn lines_added(&self) -> &[(HeaderName, HeaderValue)] {
        &self.added
    }

    /// Whether the edit changes nothing.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.set.is_empty() && self.added.is_empty()
    }

    fn apply(&self, headers: &mut HeaderMap) {
        if !self.removed.is_empty() {
            retain(headers, |name| !self.removed.contains(name));
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.added {
            headers.append(name, value.clone());
        }
    }
}

impl fmt::Debug for HeaderEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |lines: &[(HeaderName, HeaderValue)]| -> Vec<HeaderName> {
            lines.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("HeaderEdit")
            .field("removed", &self.removed)
            .field("set", &names(&self.set))
            .field("added", &names(&self.added))
            .finish()
    }
}

/// Changes the header lines of requests.
#[derive(Debug, Clone)]
pub struct RequestHeaders(pub HeaderEdit);

impl Layer for RequestHeaders {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        self.0.apply(&mut request.headers);
        Verdict::Continue
    }
}

/// Changes the header lines of responses, including local responses.
#[derive(Debug, Clone)]
pub struct ResponseHeaders(pub HeaderEdit);

impl Layer for ResponseHeaders {
    fn on_response(&self, _: &RequestMeta, response: &mut Parts) {
        self.0.apply(&mut response.headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_removed_set_and_added_in_this_order() {
        let mut edit = HeaderEdit::default();
        edit.add(b"x-added", b"2").unwrap();
        edit.set(b"X-Set", b"new").unwrap();
        edit.set(b"x-back", b"again").unwrap();
        edit.remove(b"x-back").unwrap();
        edit.remove(b"x-gone").unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-set", "a"),
            ("x-added", "1"),
            ("x-gone", "b"),
            ("x-set", "c"),
            ("x-back", "d"),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        edit.apply(&mut headers);
        let lines = headers.iter();
        let lines: Vec<_> = { lines.map(|(n, v)| (n.as_str(), v.to_str().unwrap())) }.collect();
        let expected = [
            ("x-set", "new"),
            ("x-added", "1"),
            ("x-added", "2"),
            ("x-back", "again"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn debug_shows_no_value() {
        let mut edit = HeaderEdit::default();
        edit.set(b"authorization", b"Bearer secret").unwrap();
        edit.add(b"x-key", b"secret").unwrap();
        let text = format!("{edit:?}");
        assert!(text.contains("authorization") && text.contains("x-key"));
        assert!(!text.contains("secret"), "{text}");
    }
}
