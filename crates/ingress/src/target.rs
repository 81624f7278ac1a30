//! Request targets, as visitors send them.
//!
//! A request target is bytes above 0x20 here, as it is for most servers and proxies. hyper reads it into a
//! [`http::Uri`], which refuses or cuts some of them: `"`, `#`, `<`, `>`, a backtick, bytes that are not UTF-8. So the
//! socket replaces these bytes by a [`PLACEHOLDER`] before hyper sees them ([`RequestLine`]) and keeps them apart, and
//! [`Target::new`] puts them back.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Uri, uri::PathAndQuery};

/// Stands for a byte that [`http::Uri`] does not take, and for itself: each one in a target has its byte among those
/// that were replaced.
const PLACEHOLDER: u8 = b'^';

/// Whether a byte of a target crosses beside the [`http::Uri`].
const fn is_replaced(byte: u8) -> bool {
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
    /// With bytes that a [`PathAndQuery`] does not hold.
    Raw {
        bytes: Bytes,
        text: Box<str>,
    },
}

impl Target {
    /// The target of a request that hyper read as `uri`, where `replaced` are the bytes that it did not see. `None` if
    /// the two do not belong together.
    pub(crate) fn new(uri: &Uri, replaced: &[u8]) -> Option<Self> {
        let path = match uri.path_and_query() {
            // A query right behind the host: the path is empty, and a request line needs one (RFC 9112, 3.2.1).
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

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Uri(path) => path.as_str().as_bytes(),
            Form::Raw { bytes, .. } => bytes,
        }
    }

    /// Its text, where U+FFFD stands for what is not UTF-8.
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

/// Follows the bytes of one request line and takes those out of its target that hyper would refuse.
#[derive(Debug, Default, Clone)]
pub(crate) struct RequestLine {
    part: Part,
    replaced: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Method,
    Target,
    Version,
}

impl RequestLine {
    /// Takes bytes up to the end of the line. Says how many those are, and whether the line has ended.
    pub(crate) fn on_bytes(&mut self, bytes: &mut [u8]) -> (usize, bool) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            match (self.part, *byte) {
                (_, b'\n') => {
                    self.part = Part::Method;
                    return (index + 1, true);
                }
                (Part::Method, b' ') => self.part = Part::Target,
                (Part::Target, b' ') => self.part = Part::Version,
                (Part::Target, replaced) if is_replaced(replaced) => {
                    self.replaced.push(replaced);
                    *byte = PLACEHOLDER;
                }
                _ => {}
            }
        }
        (bytes.len(), false)
    }

    /// What has been replaced in the line that has ended.
    pub(crate) fn take_replaced(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replaced)
    }
}

/// The bytes that are replaced in the target of one request: its number on the connection, from 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) head: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A path for a record: the one that was sent, if it is known.
pub(crate) fn path_of<'a>(target: Option<&'a Target>, uri: &'a Uri) -> Cow<'a, str> {
    target.map_or_else(|| uri.path().into(), |target| target.path().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line as hyper sees it, and what was replaced, when it comes in pieces of `step`.
    fn follow(line: &[u8], step: usize) -> (Vec<u8>, Vec<u8>) {
        let mut line = line.to_vec();
        let mut watch = RequestLine::default();
        let mut ended = false;
        for piece in line.chunks_mut(step) {
            assert!(!ended);
            let (taken, end) = watch.on_bytes(piece);
            assert_eq!(taken, piece.len());
            ended = end;
        }
        assert!(ended);
        (line, watch.take_replaced())
    }

    #[test]
    fn every_byte_of_a_target_comes_back_as_it_was() {
        let all: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect();
        let target = [b"/", &all[..], b"?", &all[..]].concat();
        for target in [&target[..], b"/?key=\"a\"", b"/caf\xe9", b"/^^", b"/a#b"] {
            let line = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
            for step in [1, 7, line.len()] {
                let (seen, replaced) = follow(&line, step);
                assert_eq!(seen.len(), line.len());
                let uri = &seen[4..4 + target.len()];
                let uri = Uri::try_from(uri).unwrap();
                let found = Target::new(&uri, &replaced).unwrap();
                assert_eq!(found.as_bytes(), target);
            }
        }
    }

    #[test]
    fn only_the_target_of_a_line_is_changed() {
        let (seen, replaced) = follow(b"G\"T /a HTTP\"1.1\r\n", 3);
        assert_eq!(
            (&seen[..], &replaced[..]),
            (&b"G\"T /a HTTP\"1.1\r\n"[..], &b""[..])
        );
    }

    #[test]
    fn bytes_that_do_not_belong_to_a_target_give_none() {
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
