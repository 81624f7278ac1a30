//! The secrets by which a link is known, and the keys under which a server files them.
//!
//! A server looks links up by a hash of the secret: how long a look-up takes then says nothing about the secret itself, and
//! what a server keeps is of no use to a thief.

use std::fmt;

use secrecy::{SecretString, zeroize::Zeroizing};
use subtle::ConstantTimeEq;

use crate::hex;

const SECRET_BYTES: usize = 32;

/// Why a text is no secret of a link. The text is not given back: it may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseSecretError {
    /// Cut off, or something else.
    #[error("expected 64 hexadecimal digits, found {found} bytes")]
    Length {
        /// Its length in bytes.
        found: usize,
    },
    /// Damaged.
    #[error("byte {at} is no hexadecimal digit")]
    Digit {
        /// The first wrong byte, from 0.
        at: usize,
    },
}

macro_rules! secret {
    (
        $(#[$doc:meta])* $name:ident,
        $(#[$key_doc:meta])* $key:ident = $context:literal
    ) => {
        $(#[$doc])*
        ///
        /// Compared in constant time, wiped when dropped, hidden from `Debug`.
        #[derive(Clone)]
        pub struct $name(Zeroizing<[u8; SECRET_BYTES]>);

        impl $name {
            /// Made of fresh random bytes.
            #[must_use]
            pub fn from_random(random: [u8; SECRET_BYTES]) -> Self {
                Self(Zeroizing::new(random))
            }

            /// Reads what [`to_text`](Self::to_text) wrote; capital digits are accepted too.
            ///
            /// # Errors
            /// [`ParseSecretError`] when it is not exactly 64 hexadecimal digits.
            pub fn parse(text: &str) -> Result<Self, ParseSecretError> {
                if text.len() != 2 * SECRET_BYTES {
                    return Err(ParseSecretError::Length { found: text.len() });
                }
                let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
                match hex::decode(text.as_bytes(), &mut bytes[..]) {
                    Ok(()) => Ok(Self(bytes)),
                    Err(hex::NotHex { at }) => Err(ParseSecretError::Digit { at }),
                }
            }

            /// 64 hexadecimal digits, for the wire or a file.
            #[must_use]
            pub fn to_text(&self) -> SecretString {
                let mut text = String::with_capacity(2 * SECRET_BYTES);
                hex::append(&mut text, &self.0[..]);
                text.into()
            }

            /// What to file it under.
            #[must_use]
            pub fn key(&self) -> $key {
                $key(blake3::derive_key($context, &self.0[..]))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0[..]).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([REDACTED])"))
            }
        }

        $(#[$key_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $key([u8; 32]);

        impl fmt::Debug for $key {
            /// The first bytes: enough to follow one in a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut start = String::new();
                hex::append(&mut start, &self.0[..4]);
                write!(f, concat!(stringify!($key), "({}..)"), start)
            }
        }
    };
}

secret! {
    /// Names a session in the metadata of its streams: who holds it may open streams for the link.
    SessionToken,
    /// The hash of a [`SessionToken`].
    LinkKey = "adit 2026 session token"
}
secret! {
    /// Made by a client at its first start and kept: proves that a new session is the same instance, which then takes over
    /// from the old one at once.
    InstanceSecret,
    /// The hash of an [`InstanceSecret`].
    InstanceKey = "adit 2026 instance secret"
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_comes_back_from_its_text() -> Result<(), ParseSecretError> {
        let mut bytes = [0xa5; 32];
        bytes[0] = 0x01;
        let token = SessionToken::from_random(bytes);
        let text = token.to_text();
        let expected = format!("01{}", "a5".repeat(31));
        assert_eq!(text.expose_secret(), expected);
        assert_eq!(SessionToken::parse(text.expose_secret())?, token);
        assert_eq!(SessionToken::parse(&expected.to_uppercase())?, token);
        assert_eq!(
            InstanceSecret::parse(&expected)?,
            InstanceSecret::from_random(bytes)
        );
        Ok(())
    }

    #[test]
    fn anything_else_is_refused_without_being_shown() {
        for found in [0, 63, 65, 128] {
            let error = ParseSecretError::Length { found };
            assert_eq!(SessionToken::parse(&"a".repeat(found)), Err(error));
            assert_eq!(InstanceSecret::parse(&"a".repeat(found)), Err(error));
        }
        let damaged = format!("{}g{}", "a".repeat(40), "a".repeat(23));
        let error = ParseSecretError::Digit { at: 40 };
        assert_eq!(InstanceSecret::parse(&damaged), Err(error));
        assert_eq!(error.to_string(), "byte 40 is no hexadecimal digit");
    }

    #[test]
    fn one_bit_makes_another_secret_and_another_key() {
        let token = SessionToken::from_random([0; 32]);
        for byte in 0..32 {
            let mut bytes = [0; 32];
            bytes[byte] = 0x80;
            let other = SessionToken::from_random(bytes);
            assert_ne!(token, other);
            assert_ne!(token.key(), other.key());
        }
        assert_eq!(token.key(), SessionToken::from_random([0; 32]).key());
    }

    #[test]
    fn the_keys_of_both_kinds_differ() {
        let session = SessionToken::from_random([7; 32]).key();
        let instance = InstanceSecret::from_random([7; 32]).key();
        assert_ne!(session.0, instance.0);
        assert_eq!(
            session.0,
            blake3::derive_key("adit 2026 session token", &[7; 32])
        );
    }

    #[test]
    fn debug_shows_a_key_shortly_and_a_secret_never() {
        let token = SessionToken::from_random([0xab; 32]);
        assert_eq!(format!("{token:?}"), "SessionToken([REDACTED])");
        let secret = InstanceSecret::from_random([0xab; 32]);
        assert_eq!(format!("{secret:?}"), "InstanceSecret([REDACTED])");
        assert_eq!(format!("{:?}", LinkKey([0x0c; 32])), "LinkKey(0c0c0c0c..)");
        assert_eq!(
            format!("{:?}", InstanceKey([0x0c; 32])),
            "InstanceKey(0c0c0c0c..)"
        );
    }
}
