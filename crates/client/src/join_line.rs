//! The line with which a client joins a server: address, trust and enrolment key.
//!
//! `adit-server join` prints it and `adit join` reads it: `HOST:PORT/KEY/TRUST`, where TRUST is the fingerprint of the
//! server's own CA, `public` for a certificate that the system trusts, or `clear` for a server without TLS. It has no
//! character that a shell treats as special, and contains a secret that is used up by the first client.

use std::{fmt, str::FromStr};

use adit_auth::{AccessKey, AccessKeyError, KeyKind};
use adit_net::{HostPort, HostPortError};
use adit_tls::{Fingerprint, FingerprintError};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// How a client that joins trusts the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinTrust {
    /// By the fingerprint of the server's own CA.
    OwnCa(Fingerprint),
    /// By the trust store of the system.
    Public,
    /// Not at all: the connection is in clear text.
    Clear,
}

/// The parts of the line.
#[derive(Debug)]
pub struct JoinLine {
    /// The address of the server for clients.
    pub server: HostPort,
    /// The enrolment key.
    pub key: AccessKey,
    /// How the server is trusted.
    pub trust: JoinTrust,
}

/// Why a text is not such a line. No text contains a part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinLineError {
    /// The text does not have three parts.
    #[error("expected the line of `adit-server join`: HOST:PORT/KEY/TRUST")]
    Form,
    /// The address is invalid.
    #[error("the line of `adit-server join` begins with an invalid address: {0}")]
    Address(#[from] HostPortError),
    /// The key is invalid.
    #[error("in the line of `adit-server join`: {0}")]
    Key(#[from] AccessKeyError),
    /// The key authenticates a client, and enrols none.
    #[error(
        "the line has the key of a client; set it as auth_token, or ask for the line of `adit-server join`"
    )]
    ApiKey,
    /// The fingerprint is invalid.
    #[error("the line of `adit-server join` ends with an invalid fingerprint: {0}")]
    Trust(#[from] FingerprintError),
}

impl JoinLine {
    /// The line, which contains the key.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let key = self.key.to_text();
        format!("{}/{}/{}", self.server, key.expose_secret(), self.trust).into()
    }
}

impl fmt::Display for JoinTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnCa(fingerprint) => fingerprint.fmt(f),
            Self::Public => f.write_str("public"),
            Self::Clear => f.write_str("clear"),
        }
    }
}

impl FromStr for JoinLine {
    type Err = JoinLineError;

    fn from_str(text: &str) -> Result<Self, JoinLineError> {
        let mut parts = text.trim().split('/');
        let (Some(server), Some(key), Some(trust), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoinLineError::Form);
        };
        let key = AccessKey::parse(key)?;
        if key.kind() != KeyKind::Enrolment {
            return Err(JoinLineError::ApiKey);
        }
        Ok(Self {
            server: server.parse()?,
            key,
            trust: match trust {
                "public" => JoinTrust::Public,
                "clear" => JoinTrust::Clear,
                fingerprint => JoinTrust::OwnCa(fingerprint.parse()?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use adit_auth::ACCESS_KEY_RANDOM_BYTES;

    use super::*;

    fn line(host: &str, trust: JoinTrust) -> JoinLine {
        JoinLine {
            server: HostPort::new(host, 7000),
            key: AccessKey::from_random(KeyKind::Enrolment, [7; ACCESS_KEY_RANDOM_BYTES]),
            trust,
        }
    }

    #[test]
    fn a_line_is_read_as_written() {
        let pinned = JoinTrust::OwnCa("ab".repeat(32).parse().unwrap());
        for host in ["tunnel.example.com", "192.0.2.1", "2001:db8::1"] {
            for trust in [pinned, JoinTrust::Public, JoinTrust::Clear] {
                let text = line(host, trust).to_text();
                let text = text.expose_secret();
                let read: JoinLine = format!(" {text}\n").parse().unwrap();
                assert_eq!(read.to_text().expose_secret(), text);
                assert_eq!(read.trust, trust);
                assert!(
                    !text.contains([' ', '?', '&', '*', '#', '\'', '"']),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_wrong_line_is_rejected_without_its_key() {
        let text = line("a.example", JoinTrust::Public).to_text();
        let text = text.expose_secret();
        let secret = &text["a.example:7000/adit_join_".len()..][13..];
        let api = AccessKey::from_random(KeyKind::Api, [7; ACCESS_KEY_RANDOM_BYTES]).to_text();
        let api = format!("a.example:7000/{}/public", api.expose_secret());
        for (wrong, expected) in [
            ("", "HOST:PORT/KEY/TRUST"),
            ("a.example:7000", "HOST:PORT/KEY/TRUST"),
            (&*format!("{text}/more"), "HOST:PORT/KEY/TRUST"),
            (&*text.replace(":7000", ""), "invalid address"),
            (&*text.replace("join_07", "join_08"), "damaged"),
            (&*text.replace("adit_join", "adit"), "does not begin with"),
            (&*text.replace("public", "abc"), "invalid fingerprint"),
            (&*api, "set it as auth_token"),
        ] {
            let error = wrong.parse::<JoinLine>().unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
            assert!(!error.contains(&secret[..8]), "{error}");
        }
    }
}
