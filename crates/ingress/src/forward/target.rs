//! Request targets, as visitors send them.
//!
//! In adit a request target may have any byte above 0x20, as in most servers and proxies. hyper reads it into a
//! [`http::Uri`], which rejects or cuts some of them: `"`, `#`, `<`, `>`, a backtick, bytes that are not UTF-8. So the
//! socket replaces these bytes by a [`PLACEHOLDER`] before hyper reads them (`accept/request_line.rs`) and keeps them
//! in `connection.rs`, and [`Target::new`] puts them back.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Uri, uri::PathAndQuery};

/// Replaces a byte that [`http::Uri`] does not accept. The same character in a target is replaced as well, so that each
/// placeholder stands for one replaced byte.
pub(crate) const PLACEHOLDER: u8 = b'^';

/// Whether a byte of a target is replaced before hyper reads it.
pub(crate) const fn is_replaced(byte: u8) -> bool {
    matches!(
        byte,
        b'"' | b'#' | b'<' | b'>' | b'`' | PLACEHOLDER | 0x80..=0xff
    )
}

/// Path and query of a request as the visitor sent them; `*` for `OPTIONS *`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Uri(PathAndQuery),
    /// A target with bytes that a [`PathAndQuery`] cannot contain.
    Raw {
        bytes: Bytes,
        text: Box<str>,
    },
}

impl Target {
    /// The target of a request that hyper read as `uri`, with `replaced` put back. `None` if `uri` does not have as many
    /// placeholders.
    pub(crate) fn new(uri: &Uri, replaced: &[u8]) -> Option<Self> {
        let path = match uri.path_and_query() {
            // A query right after the host: the path is empty, and a request line needs one (RFC 9112, 3.2.1).
            Some(path) if path.as_str().starts_with('?') => {
                PathAndQuery::try_from(format!("/{}", path.as_str())).ok()?
            }
            Some(path) => path.clone(),
            None => PathAndQuery::from_static("/"),
        };
        if replaced.is_empty() {
            return Some(Self(Form::Uri(path)));
        }
        let mut bytes = path.as_str().as_bytes().to_vec();
        let mut replaced = replaced.iter();
        for byte in bytes.iter_mut().filter(|byte| **byte == PLACEHOLDER) {
            *byte = *replaced.next()?;
        }
        if replaced.next().is_some() {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into();
        Some(Self(Form::Raw {
            bytes: bytes.into(),
            text,
        }))
    }

    /// The bytes of the target.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Uri(path) => path.as_str().as_bytes(),
            Form::Raw { bytes, .. } => bytes,
        }
    }

    /// The text of the target, with U+FFFD in place of what is not UTF-8.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Uri(path) => path.as_str(),
            Form::Raw { text, .. } => text,
        }
    }

    /// [`Target::as_str`] without the query.
    pub fn path(&self) -> &str {
        let text = self.as_str();
        let end = text.find(['?', '#']).unwrap_or(text.len());
        text.get(..end).unwrap_or(text)
    }
}

/// The path for a record: as it was sent, if that is known.
pub(crate) fn path_of<'a>(target: Option<&'a Target>, uri: &'a Uri) -> Cow<'a, str> {
    target.map_or_else(|| uri.path().into(), |target| target.path().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_bytes_must_match_the_placeholders() {
        let uri = Uri::from_static("/a^b");
        assert!(Target::new(&uri, b"").is_some());
        assert!(Target::new(&uri, b"xy").is_none());
        assert!(Target::new(&Uri::from_static("/"), b"x").is_none());
    }

    #[test]
    fn a_path_ends_at_a_query_or_a_fragment() {
        let uri = Uri::from_static("/a^b?c");
        let target = |replaced: &[u8]| Target::new(&uri, replaced).unwrap();
        assert_eq!(target(b"#").path(), "/a");
        assert_eq!(target(b"<").path(), "/a<b");
        assert_eq!(target(b"\xff").path(), "/a\u{fffd}b");
        assert_eq!(Target::new(&uri, b"").unwrap().path(), "/a^b");
        let bare = Uri::from_static("http://a");
        assert_eq!(Target::new(&bare, b"").unwrap().as_bytes(), b"/");
    }
}
