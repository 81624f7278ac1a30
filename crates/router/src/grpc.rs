//! gRPC services and methods of rules.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// The longest pattern: a bound on the cost of one rule.
const LONGEST: usize = 1_024;

/// A gRPC service, `pkg.Service`, or one of its methods, `pkg.Service/Method`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrpcPattern {
    service: Box<str>,
    method: Option<Box<str>>,
}

/// The text is neither a gRPC service nor a method.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{refused:?} is not a gRPC service or method; write pkg.Service or pkg.Service/Method")]
pub struct GrpcError {
    /// The text as it was given.
    pub refused: String,
}

impl GrpcPattern {
    /// The service with its package.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The method; `None` if every method matches.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// Whether a gRPC call to `path`, which is `/service/method`, matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        path.strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(service, method)| {
                service == &*self.service
                    && self
                        .method
                        .as_deref()
                        .map_or_else(|| is_method(method), |wanted| wanted == method)
            })
    }
}

/// Whether a content type is that of gRPC. gRPC-Web has another one, and counts as plain HTTP.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type
        .split_at_checked(GRPC.len())
        .is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(GRPC)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
}

impl FromStr for GrpcPattern {
    type Err = GrpcError;

    /// Reads `pkg.Service` or `pkg.Service/Method`.
    ///
    /// # Errors
    /// Any other text than protobuf identifiers in this form.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, method) = match text.split_once('/') {
            Some((service, method)) => (service, Some(method)),
            None => (text, None),
        };
        let good = text.len() <= LONGEST
            && service.split('.').all(is_identifier)
            && method.is_none_or(is_identifier);
        if good {
            Ok(Self {
                service: service.into(),
                method: method.map(Into::into),
            })
        } else {
            Err(GrpcError {
                refused: text.to_owned(),
            })
        }
    }
}

/// Whether the text may be the name of a method, known or not.
fn is_method(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for GrpcPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        match &self.method {
            Some(method) => write!(f, "/{method}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_methods_match_whole_names() {
        let service: GrpcPattern = "pkg.v1.Echo_2".parse().unwrap();
        assert_eq!(
            (service.service(), service.method()),
            ("pkg.v1.Echo_2", None)
        );
        assert_eq!(service.to_string(), "pkg.v1.Echo_2");
        assert!(service.matches("/pkg.v1.Echo_2/Say"));
        for path in [
            "/pkg.v1.Echo_2",
            "/pkg.v1.Echo_2/",
            "/pkg.v1.Echo_22/Say",
            "pkg.v1.Echo_2/Say",
            "//pkg.v1.Echo_2/Say",
            "/pkg.v1.Echo_2/Say/More",
        ] {
            assert!(!service.matches(path), "{path}");
        }
        let method: GrpcPattern = "Echo/Say".parse().unwrap();
        assert_eq!((method.service(), method.method()), ("Echo", Some("Say")));
        assert_eq!(method.to_string(), "Echo/Say");
        assert!(method.matches("/Echo/Say"));
        assert!(!method.matches("/Echo/SayMore"));
        assert!(!method.matches("/Other/Say"));
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "x".repeat(1_025);
        for text in [
            "",
            "/Echo/Say",
            "a..b",
            ".a",
            "a/",
            "a/b/c",
            "a b",
            "a-b",
            &long,
        ] {
            let error = text.parse::<GrpcPattern>().unwrap_err();
            assert_eq!(error.refused, text);
            assert!(error.to_string().contains("pkg.Service/Method"));
        }
        assert!("x".repeat(1_024).parse::<GrpcPattern>().is_ok());
    }

    #[test]
    fn content_types_of_grpc() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;x=y",
            "application/grpc ;x=y",
        ] {
            assert!(is_grpc(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "application/grpc-web",
            "application/grp",
            "application/json+grpc",
            "",
        ] {
            assert!(!is_grpc(kind.as_bytes()), "{kind}");
        }
    }
}
