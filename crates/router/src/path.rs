//! Path prefixes of rules.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

use crate::{UnclearPath, reading::other_reading};

/// The longest prefix of a rule: much longer than any in use, and a bound on the cost of one rule.
const LONGEST_PREFIX: usize = 2_048;

/// A path and everything below it: `/api` matches `/api`, `/api/` and `/api/x`, but not `/apix`.
///
/// Compared byte by byte with the path as the visitor wrote it: case counts, percent-encoding is not decoded. Slashes
/// at the end are ignored. A prefix is in its plain form: no service reads it as another path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix {
    /// The path without slashes at its end, so that `/`, which matches every path, is empty. Shared by the rules of one
    /// path.
    prefix: Arc<str>,
}

/// Why a text is not a path prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// The path does not begin with a slash.
    #[error("path {path:?} of a rule does not begin with a slash; write /{path}")]
    NoSlash {
        /// The path as it was given.
        path: String,
    },
    /// The path contains a character that is not allowed in a request path.
    #[error(
        "path {path:?} of a rule contains {character:?}, which is not allowed in a request path; write it percent-encoded, and without query or fragment"
    )]
    Character {
        /// The path as it was given.
        path: String,
        /// The first such character.
        character: char,
    },
    /// The path ends in a wildcard.
    #[error("path {path:?} of a rule ends in a wildcard; leave it out, everything below matches")]
    Wildcard {
        /// The path as it was given.
        path: String,
    },
    /// A service may read the path as another one.
    #[error("path {path:?} of a rule can be read as {plain}; write {plain}")]
    NotPlain {
        /// The path as it was given.
        path: String,
        /// The path as a service may read it.
        plain: String,
    },
    /// Services read the path in several ways.
    #[error(
        "path {path:?} of a rule has a segment . or .., or a slash after a `;`; write the path that it leads to"
    )]
    Unclear {
        /// The path as it was given.
        path: String,
    },
    /// The path is longer than the bound.
    #[error("a path of a rule has {length} bytes; no more than 2048 are allowed")]
    TooLong {
        /// The length of the path in bytes.
        length: usize,
    },
}

impl PathPrefix {
    /// `/`, which matches every path.
    #[must_use]
    pub fn root() -> Self {
        Self {
            prefix: Arc::default(),
        }
    }

    /// Whether `path`, with or without a query, is the prefix or below it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let path = without_query(path);
        ends_segment(path, self.prefix.len()) && path.starts_with(&*self.prefix)
    }

    /// Whether `path` is one of the prefixes or below it, however a service reads it.
    ///
    /// # Errors
    /// A service could read the path as one that is, or is not, below the prefixes.
    pub fn any_matches(prefixes: &[Self], path: &str) -> Result<bool, UnclearPath> {
        if prefixes.iter().any(Self::is_root) {
            return Ok(true);
        }
        let any = |path: &str| prefixes.iter().any(|prefix| prefix.matches(path));
        let found = any(path);
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        match other_reading(path)? {
            Some(reading) if any(&reading) != found => Err(UnclearPath::OtherRule),
            _ => Ok(found),
        }
    }

    /// Whether the prefix matches every path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.prefix.is_empty()
    }

    /// The bytes of the prefix, without a slash at the end; empty for `/`.
    pub(crate) fn trimmed(&self) -> &str {
        &self.prefix
    }

    /// The bytes of the prefix without a slash at the end, as a shared text.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.prefix)
    }
}

/// The path of a request target, which a query or fragment may follow.
pub(crate) fn without_query(path: &str) -> &str {
    path.find(['?', '#'])
        .and_then(|end| path.get(..end))
        .unwrap_or(path)
}

/// Whether a prefix of `length` bytes ends at the end of a segment of `path`. The empty prefix always does: it also
/// matches targets that are not paths, such as the `*` of OPTIONS.
pub(crate) fn ends_segment(path: &str, length: usize) -> bool {
    length == 0 || path.len() == length || path.as_bytes().get(length) == Some(&b'/')
}

impl FromStr for PathPrefix {
    type Err = PathError;

    /// Reads `/api`, `/api/` (the same) or `/`.
    ///
    /// # Errors
    /// An invalid prefix, see [`PathError`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = || text.to_owned();
        if text.len() > LONGEST_PREFIX {
            return Err(PathError::TooLong { length: text.len() });
        }
        if !text.starts_with('/') {
            return Err(PathError::NoSlash { path: path() });
        }
        let invalid = text
            .chars()
            .find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#'));
        if let Some(character) = invalid {
            return Err(PathError::Character {
                path: path(),
                character,
            });
        }
        if text.ends_with("/*") {
            return Err(PathError::Wildcard { path: path() });
        }
        let prefix = text.trim_end_matches('/');
        match other_reading(prefix) {
            Ok(None) => {}
            // The empty prefix of `/` has nothing to read.
            Ok(Some(_)) if prefix.is_empty() => {}
            Ok(Some(plain)) => {
                return Err(PathError::NotPlain {
                    path: path(),
                    plain,
                });
            }
            Err(_) => return Err(PathError::Unclear { path: path() }),
        }
        Ok(Self {
            prefix: prefix.into(),
        })
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.prefix.is_empty() {
            "/"
        } else {
            &self.prefix
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for path in ["/api", "/api/", "/api/x", "/api?x", "/api#x", "/api/x?y"] {
            assert!(prefix("/api").matches(path), "{path}");
            assert!(prefix("/api/").matches(path), "{path}");
        }
        for path in [
            "/", "", "/ap", "/apix", "/API", "/x/api", "/x?/api", "//api",
        ] {
            assert!(!prefix("/api").matches(path), "{path}");
        }
        assert!(!prefix("/a").matches("/\u{e9}"));
    }

    #[test]
    fn the_root_has_everything_below_it() {
        for path in ["/", "", "*", "/x", "?x"] {
            assert!(prefix("/").matches(path), "{path}");
        }
    }

    #[test]
    fn a_slash_at_the_end_does_not_count() {
        assert_eq!(prefix("/api/"), prefix("/api"));
        assert_eq!(prefix("/api/").to_string(), "/api");
        assert_eq!(prefix("/").to_string(), "/");
        assert_eq!(prefix("//").to_string(), "/");
    }

    #[test]
    fn prefixes_match_only_what_every_service_reads_below_them() {
        let of = |path: &str| PathPrefix::any_matches(&[prefix("/api"), prefix("/b")], path);
        assert_eq!(of("/api/x?y=/../z"), Ok(true));
        assert_eq!(of("/api/a%2Fb;c//d"), Ok(true));
        assert_eq!(of("/c"), Ok(false));
        assert_eq!(of("//api"), Err(UnclearPath::OtherRule));
        assert_eq!(of("/api/../c"), Err(UnclearPath::DotSegment));
        assert_eq!(of("/api#/../c"), Err(UnclearPath::Fragment));
        assert_eq!(PathPrefix::any_matches(&[prefix("/")], "/a/../b"), Ok(true));
    }

    #[test]
    fn invalid_prefixes_are_rejected() {
        let path = |text: &str| text.to_owned();
        let parse = |text: &str| text.parse::<PathPrefix>().unwrap_err();
        assert_eq!(parse("api"), PathError::NoSlash { path: path("api") });
        assert_eq!(parse(""), PathError::NoSlash { path: path("") });
        assert_eq!(
            parse("/api/*"),
            PathError::Wildcard {
                path: path("/api/*")
            }
        );
        for (text, character) in [
            ("/a b", ' '),
            ("/a?b", '?'),
            ("/a#b", '#'),
            ("/\u{e9}", '\u{e9}'),
            ("/\n", '\n'),
        ] {
            assert_eq!(
                parse(text),
                PathError::Character {
                    path: path(text),
                    character
                }
            );
        }
        for (text, plain) in [
            ("//api", "/api"),
            ("/%61pi/", "/api"),
            ("/a;b", "/a"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%2Fb", "/a/b"),
        ] {
            let plain = path(plain);
            let path = path(text);
            assert_eq!(parse(text), PathError::NotPlain { path, plain });
        }
        for text in ["/a/../b", "/./a", "/a/..", "/%2e%2E/b", "/a;%2fb"] {
            assert_eq!(parse(text), PathError::Unclear { path: path(text) });
        }
        let longest = format!("/{}", "x".repeat(2_047));
        assert_eq!(prefix(&longest).to_string(), longest);
        assert_eq!(
            parse(&format!("{longest}x")),
            PathError::TooLong { length: 2_049 }
        );
    }
}
