//! Host names of visitors and of rules.

use std::{borrow::Cow, fmt, net::Ipv6Addr, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest name in DNS, as text without the final dot (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;
/// The longest label (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Why a text is not a host. Positions count bytes from 0.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// The host is empty, apart from port and final dot.
    #[error("the host is empty; give a name such as app.example.com or an address")]
    Empty,
    /// The host has more than 253 bytes.
    #[error("the host has {length} bytes; DNS allows no more than 253")]
    TooLong {
        /// Bytes without port and final dot.
        length: usize,
    },
    /// Two dots in a row, or one in front.
    #[error("the host has an empty label before byte {position}; remove the extra dot")]
    EmptyLabel {
        /// The position where the label should be.
        position: usize,
    },
    /// A label of more than 63 bytes.
    #[error("the label {label:?} has {} bytes; DNS allows no more than 63", .label.len())]
    LabelTooLong {
        /// The label as it was given.
        label: String,
    },
    /// A character that is not allowed in a host.
    #[error(
        "a host cannot contain {character:?} (byte {position}); use letters, digits, hyphens, \
         underscores and dots, and write an international name as xn--"
    )]
    Character {
        /// The character as it was given.
        character: char,
        /// The position of the character.
        position: usize,
    },
    /// The port is not a number up to 65535.
    #[error("{port:?} is not a port; use a number up to 65535")]
    Port {
        /// The text after the colon.
        port: String,
    },
    /// Brackets without an IPv6 address in them, or an IPv6 address without brackets.
    #[error("{address:?} is not an IPv6 address in brackets, such as [2001:db8::1]")]
    Address {
        /// The text as it was given.
        address: String,
    },
}

/// Converts a `Host` header or an `:authority` to the normal form in which hosts are compared: lower case, no port, no
/// final dot; an IPv6 address in brackets and in its canonical form (RFC 5952). A host that already has this form is
/// not copied.
///
/// Hyphens may stand anywhere in a label and underscores count as letters: names of both kinds are resolved in
/// practice. An empty port (`host:`) is allowed, as in RFC 3986, section 3.2.3.
///
/// # Errors
/// An invalid host, see [`HostError`].
pub fn normalize_host(text: &str) -> Result<Cow<'_, str>, HostError> {
    if text.starts_with('[') {
        return normalize_ipv6(text);
    }
    let name = match text.split_once(':') {
        None => text,
        Some((_, rest)) if rest.contains(':') => {
            return Err(HostError::Address {
                address: text.to_owned(),
            });
        }
        Some((name, port)) => {
            check_port(port)?;
            name
        }
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    check_name(name)?;
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Ok(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Ok(Cow::Borrowed(name))
    }
}

fn normalize_ipv6(text: &str) -> Result<Cow<'_, str>, HostError> {
    let refused = || HostError::Address {
        address: text.to_owned(),
    };
    let end = text.find(']').ok_or_else(refused)?;
    let (bracketed, rest) = text.split_at(end + 1);
    match rest.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(refused()),
    }
    let address: Ipv6Addr = bracketed[1..end].parse().map_err(|_| refused())?;
    let mut written = Buffer::default();
    // A canonical address has at most 39 bytes (41 in brackets), so it fits; the owned form below would be correct as
    // well.
    let fits = fmt::Write::write_fmt(&mut written, format_args!("[{address}]")).is_ok();
    if fits && written.as_bytes() == bracketed.as_bytes() {
        Ok(Cow::Borrowed(bracketed))
    } else {
        Ok(Cow::Owned(format!("[{address}]")))
    }
}

/// Room for one address on the stack, so that comparing does not allocate.
struct Buffer {
    bytes: [u8; 48],
    length: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            bytes: [0; 48],
            length: 0,
        }
    }
}

impl Buffer {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn check_port(port: &str) -> Result<(), HostError> {
    // The digits are checked separately because `parse` also accepts a plus sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_empty() || (digits && port.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err(HostError::Port {
            port: port.to_owned(),
        })
    }
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > LONGEST_NAME {
        return Err(HostError::TooLong { length: name.len() });
    }
    let mut start = 0;
    for label in name.split('.') {
        if label.is_empty() {
            return Err(HostError::EmptyLabel { position: start });
        }
        // Bytes are checked first, which is faster; characters are checked only for the error.
        let invalid = if label.bytes().all(is_label_byte) {
            None
        } else {
            label
                .char_indices()
                .find(|(_, c)| !u8::try_from(*c).is_ok_and(is_label_byte))
        };
        if let Some((offset, character)) = invalid {
            return Err(HostError::Character {
                character,
                position: start + offset,
            });
        }
        if label.len() > LONGEST_LABEL {
            return Err(HostError::LabelTooLong {
                label: label.to_owned(),
            });
        }
        start += label.len() + 1;
    }
    Ok(())
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A host of a rule: one host, or with `*.` in front every host below it.
///
/// Read from text with [`str::parse`]; written back in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    /// In normal form; for a wildcard, the part after `*.`. Shared by the rules of one host.
    name: Arc<str>,
    wildcard: bool,
}

/// Why a text is not a host of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostPatternError {
    /// The host is invalid.
    #[error("host {pattern:?} of a rule: {source}")]
    Host {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with the pattern.
        source: HostError,
    },
    /// The wildcard is not the whole first label, or no name follows it.
    #[error(
        "host {pattern:?} of a rule: a wildcard is a whole first label with a name after it, \
         as in *.example.com; for every host, leave the host out"
    )]
    Wildcard {
        /// The pattern as it was given.
        pattern: String,
    },
}

impl HostPattern {
    /// Whether the pattern matches every host below a name.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The host, or for a wildcard the name below which it matches; in normal form.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as a shared text.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The wildcards that match every host that this pattern matches, other than itself; the longest first.
    pub fn wildcards_above(&self) -> impl Iterator<Item = Self> {
        let dots = self.name.match_indices('.');
        // An address has no subdomains.
        let dots = dots.filter(|_| !is_address(&self.name));
        let names = dots.filter_map(|(dot, _)| self.name.get(dot + 1..));
        names.map(|name| Self {
            name: name.into(),
            wildcard: true,
        })
    }

    /// For a wildcard, the name below which it matches, as a host.
    #[must_use]
    pub fn base(&self) -> Option<Self> {
        self.wildcard.then(|| Self {
            name: Arc::clone(&self.name),
            wildcard: false,
        })
    }

    /// Whether every host that `other` matches is matched by this pattern too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self == other
            || (self.wildcard
                && (self.matches(&other.name) || (other.wildcard && self.name == other.name)))
    }

    /// Whether `host`, in the form of [`normalize_host`], matches. A wildcard matches one label or more, not zero.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if self.wildcard {
            host.strip_suffix(&*self.name)
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty())
        } else {
            host == &*self.name
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    /// Reads `app.example.com`, `*.example.com` or an address. Case, a port and a final dot are ignored.
    ///
    /// # Errors
    /// Any other text, see [`HostPatternError`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad_wildcard = || HostPatternError::Wildcard {
            pattern: text.to_owned(),
        };
        let below = text.strip_prefix("*.");
        if below.unwrap_or(text).contains('*') {
            return Err(bad_wildcard());
        }
        let name = normalize_host(below.unwrap_or(text)).map_err(|source| match source {
            HostError::Empty if below.is_some() => bad_wildcard(),
            source => HostPatternError::Host {
                pattern: text.to_owned(),
                source,
            },
        })?;
        // An address has no subdomains: 10.0.0.1 is not below 0.0.1.
        if below.is_some() && is_address(&name) {
            return Err(bad_wildcard());
        }
        Ok(Self {
            name: name.into(),
            wildcard: below.is_some(),
        })
    }
}

/// A name whose last label is a number can only be an address, or the end of
/// one (the URL standard, "ends in a number").
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    name.starts_with('[') || last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests;
