//! Names that certificates are obtained for.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// A host name, or a wildcard name such as `*.example.com`, in lower case and without a dot at its end. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertName(Arc<str>);

/// A text that is not a name for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no certificate can be obtained for {name:?}: {problem}")]
pub struct CertNameError {
    name: String,
    problem: &'static str,
}

/// The longest name of a host (RFC 1035, 2.3.4), in bytes.
const LONGEST_NAME: usize = 253;

/// The second-level labels below which countries register domains, such as `co.uk`. Below others, and below other endings,
/// the last two labels are the registered domain. A list of all public suffixes would be larger than this crate, and out of
/// date: where this one is wrong, several domains share a bound, and the CA's own limit remains.
const SECOND_LEVEL: [&str; 12] = [
    "ac", "co", "com", "edu", "go", "gob", "gov", "ne", "net", "or", "org", "sch",
];

/// The longest label of a name, in bytes.
const LONGEST_LABEL: usize = 63;

impl CertName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`CertNameError`]: the text is an address, is too long, or has characters that host names do not have.
    pub fn parse(text: &str) -> Result<Self, CertNameError> {
        let invalid = |problem| CertNameError {
            name: text.chars().take(LONGEST_NAME + 1).collect(),
            problem,
        };
        if text.len() > LONGEST_NAME + 1 {
            return Err(invalid("it is longer than 253 bytes"));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > LONGEST_NAME {
            return Err(invalid("it is longer than 253 bytes"));
        }
        if !name.is_ascii() {
            return Err(invalid("write the name in its ASCII form, `xn--…`"));
        }
        let base = name.strip_prefix("*.").unwrap_or(&name);
        if base.parse::<std::net::IpAddr>().is_ok() {
            return Err(invalid("it is an address; expected a host name"));
        }
        for label in base.split('.') {
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return Err(invalid("each part between dots has 1 to 63 characters"));
            }
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if !label.bytes().all(fits) || label.starts_with('-') || label.ends_with('-') {
                return Err(invalid(
                    "expected letters, digits and hyphens, and `*` only as the whole first part",
                ));
            }
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is a wildcard.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without `*.`: the one that the CA validates.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }

    /// The registered domain, by which CAs count certificates: the last two labels, or three below `co.uk` and the like.
    #[must_use]
    pub fn registered_domain(&self) -> &str {
        let base = self.base();
        let mut dots = base.rmatch_indices('.').map(|(at, _)| at);
        let (last, second, third) = (dots.next(), dots.next(), dots.next());
        let after = |dot: Option<usize>| dot.and_then(|dot| base.get(dot + 1..)).unwrap_or(base);
        let is_country = last.is_some() && after(last).len() == 2;
        let label = after(second).split('.').next().unwrap_or_default();
        if is_country && SECOND_LEVEL.contains(&label) {
            after(third)
        } else {
            after(second)
        }
    }

    /// The name of the record of dns-01. A wildcard and its base have the same one.
    #[must_use]
    pub fn record(&self) -> String {
        format!("_acme-challenge.{}", self.base())
    }

    /// The name whose file has this [`file_stem`](Self::file_stem), if it is one of a name.
    pub(crate) fn from_file_stem(stem: &str) -> Option<Self> {
        let name = match stem.strip_prefix("_wildcard.") {
            Some(base) => Self::parse(&format!("*.{base}")),
            None => Self::parse(stem),
        };
        name.ok().filter(|name| name.file_stem() == stem)
    }

    /// The name for files. No host name contains an underscore, so that two names never share a file.
    pub(crate) fn file_stem(&self) -> String {
        if self.is_wildcard() {
            format!("_wildcard.{}", self.base())
        } else {
            self.0.to_string()
        }
    }
}

impl fmt::Display for CertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_wildcard_names_are_accepted() {
        let host = CertName::parse("App.Example.COM.").unwrap();
        assert_eq!(host.as_str(), "app.example.com");
        assert_eq!(host.record(), "_acme-challenge.app.example.com");
        assert!(!host.is_wildcard());
        let wild = CertName::parse("*.example.com").unwrap();
        assert!(wild.is_wildcard());
        assert_eq!(wild.record(), "_acme-challenge.example.com");
        assert_eq!(wild.file_stem(), "_wildcard.example.com");
        assert_ne!(host.file_stem(), wild.file_stem());
    }

    #[test]
    fn a_registered_domain_has_two_labels_or_three_below_those_of_countries() {
        for (text, domain) in [
            ("a.b.example.com", "example.com"),
            ("*.example.com", "example.com"),
            ("example.com", "example.com"),
            ("com", "com"),
            ("shop.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("a.co.example", "co.example"),
            ("a.b.abc.de", "abc.de"),
        ] {
            let name = CertName::parse(text).unwrap();
            assert_eq!(name.registered_domain(), domain, "{text}");
        }
    }

    #[test]
    fn a_name_is_found_by_its_file() {
        for text in ["app.example.com", "*.example.com"] {
            let name = CertName::parse(text).unwrap();
            assert_eq!(CertName::from_file_stem(&name.file_stem()), Some(name));
        }
        for stem in [
            "",
            "_account",
            "*.example.com",
            "A.example.com",
            "a.b.",
            "_wildcard.",
        ] {
            assert_eq!(CertName::from_file_stem(stem), None, "{stem}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused_with_its_reason() {
        let long = format!("{}.example.com", "a.".repeat(150));
        let label = format!("{}.com", "a".repeat(64));
        for (text, problem) in [
            ("192.0.2.1", "address"),
            ("::1", "address"),
            ("", "1 to 63"),
            ("a..b", "1 to 63"),
            (&*label, "1 to 63"),
            (&*long, "253"),
            ("münchen.example", "xn--"),
            ("*.*.example.com", "`*` only"),
            ("a.*.com", "`*` only"),
            ("*", "`*` only"),
            ("-a.com", "hyphens"),
            ("a_b.com", "letters"),
            ("../../etc/passwd", "1 to 63"),
            ("a/b.com", "letters"),
        ] {
            let error = CertName::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
