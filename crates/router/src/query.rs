//! The input of a table.

use std::fmt;

/// The parts of a request that rules match.
#[derive(Clone, Copy)]
pub struct Query<'q> {
    /// The `Host` header or `:authority` as the visitor wrote it, or as [`normalize_host`](crate::normalize_host)
    /// returned it. An invalid host matches only rules without a host.
    pub host: Option<&'q str>,
    /// The request target's path as the visitor wrote it; a query may follow.
    pub path: &'q str,
    /// The value of the first header with a name, which is given in lower case. gRPC rules read `content-type`.
    pub headers: &'q dyn Fn(&str) -> Option<&'q [u8]>,
}

impl<'q> Query<'q> {
    /// A request without headers.
    #[must_use]
    pub fn new(host: Option<&'q str>, path: &'q str) -> Self {
        Self {
            host,
            path,
            headers: &|_| None,
        }
    }

    /// This request with `headers`.
    #[must_use]
    pub fn with_headers(self, headers: &'q dyn Fn(&str) -> Option<&'q [u8]>) -> Self {
        Self { headers, ..self }
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_host_and_path_and_no_header() {
        let headers = |_: &str| Some(&b"secret"[..]);
        let query = Query::new(Some("a"), "/x").with_headers(&headers);
        let shown = format!("{query:?}");
        assert_eq!(shown, r#"Query { host: Some("a"), path: "/x", .. }"#);
    }
}
