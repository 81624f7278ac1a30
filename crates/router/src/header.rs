//! Header conditions of rules.

use std::fmt;

use thiserror::Error;

/// The longest name or value of a condition: a bound on the cost of one rule.
const LONGEST: usize = 1_024;

/// A condition: a header must have this value. Names are compared without case, values byte by byte; of a repeated
/// header the first line counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The name in lower case.
    name: Box<str>,
    value: Box<str>,
}

/// Why a header condition is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The name is empty, too long or contains a character that is not allowed in a header name.
    #[error(
        "{name:?} is not a header name; use 1 to 1024 letters, digits and hyphens, such as x-env"
    )]
    Name {
        /// The name as it was given.
        name: String,
    },
    /// The value is too long, contains a control character or begins or ends with a blank.
    #[error(
        "{value:?} is not a valid value of the header {name}; use up to 1024 bytes without \
         control characters and without blanks at the ends"
    )]
    Value {
        /// The name as it was given.
        name: String,
        /// The value as it was given.
        value: String,
    },
}

impl HeaderMatch {
    /// The condition that the header `name` has the value `value`.
    ///
    /// # Errors
    /// An invalid name or value, see [`HeaderError`].
    pub fn try_new(name: &str, value: &str) -> Result<Self, HeaderError> {
        if name.is_empty() || name.len() > LONGEST || !name.bytes().all(is_token) {
            return Err(HeaderError::Name {
                name: name.to_owned(),
            });
        }
        let blank_end = value.starts_with(' ') || value.ends_with(' ');
        if value.len() > LONGEST || value.chars().any(char::is_control) || blank_end {
            return Err(HeaderError::Value {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_ascii_lowercase().into(),
            value: value.into(),
        })
    }

    /// The name, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value that the header must have.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// The characters of a header name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_value_and_lowers_its_name() {
        let header = HeaderMatch::try_new("X-Env", "Test a").unwrap();
        assert_eq!((header.name(), header.value()), ("x-env", "Test a"));
        assert_eq!(header.to_string(), "x-env: Test a");
        let longest = "x".repeat(1_024);
        assert!(HeaderMatch::try_new(&longest, &longest).is_ok());
        assert!(HeaderMatch::try_new("a", "").is_ok());
    }

    #[test]
    fn invalid_headers_are_rejected() {
        let long = "x".repeat(1_025);
        for name in ["", "a b", "a:", "\u{e9}", &long] {
            assert_eq!(
                HeaderMatch::try_new(name, "v"),
                Err(HeaderError::Name { name: name.into() })
            );
        }
        for value in [" a", "a ", "a\r\nb", "\t", &long] {
            assert_eq!(
                HeaderMatch::try_new("Name", value),
                Err(HeaderError::Value {
                    name: "Name".into(),
                    value: value.into()
                })
            );
        }
    }
}
