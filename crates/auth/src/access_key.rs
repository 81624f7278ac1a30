//! Keys that adit issues: an id by which they are found, a secret, and a checksum.
//!
//! The text is `adit_key_ID_SECRET` for the key of a client and `adit_join_ID_SECRET` for a key that enrols one. ID has 12
//! hexadecimal digits, SECRET 40 and 8 more of a checksum over all that precedes them: a key that was cut or mistyped is
//! recognized without a server, and scanners of published code find keys by their form ("Behind GitHub's new authentication
//! token formats", 2021).

use std::{fmt, str::FromStr};

use secrecy::{SecretString, zeroize::Zeroizing};
use serde::{Deserialize, Serialize, de};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::hex;

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;

/// Random bytes of a key.
pub const ACCESS_KEY_RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

/// Length of every key.
const TEXT_BYTES: usize =
    "adit_join_".len() + 2 * ID_BYTES + 1 + 2 * (SECRET_BYTES + CHECKSUM_BYTES);

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Authenticates a client.
    Api,
    /// Enrols a client, and does nothing else.
    Enrolment,
}

impl KeyKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Api => "adit_key_",
            Self::Enrolment => "adit_join_",
        }
    }
}

/// Identifies a credential. Not a secret: it is part of logs and lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId([u8; ID_BYTES]);

/// A key.
pub struct AccessKey {
    kind: KeyKind,
    id: CredentialId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// The stored form of a secret: a hash. A fast hash is sufficient for a random secret of 160 bits, which cannot be guessed.
#[derive(Clone, Copy, Eq)]
pub struct SecretHash([u8; 32]);

/// Why a text is not a key. No text contains a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AccessKeyError {
    /// The text does not begin as a key does.
    #[error("not a key of adit: it does not begin with `adit_key_` or `adit_join_`")]
    Prefix,
    /// The text has another length, a wrong character, or a checksum of another text.
    #[error("the key is damaged: copy it again, whole")]
    Damaged,
}

impl AccessKey {
    /// A key of these random bytes.
    #[must_use]
    pub fn from_random(kind: KeyKind, random: [u8; ACCESS_KEY_RANDOM_BYTES]) -> Self {
        let random = Zeroizing::new(random);
        let mut id = [0; ID_BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        let (of_id, of_secret) = random.split_at(ID_BYTES);
        id.copy_from_slice(of_id);
        secret.copy_from_slice(of_secret);
        Self {
            kind,
            id: CredentialId(id),
            secret,
        }
    }

    /// Whether the text begins as a key does. Other texts are tokens.
    #[must_use]
    pub fn is_like(text: &str) -> bool {
        text.starts_with(KeyKind::Api.prefix()) || text.starts_with(KeyKind::Enrolment.prefix())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`AccessKeyError`].
    pub fn parse(text: &str) -> Result<Self, AccessKeyError> {
        let (kind, rest) = if let Some(rest) = text.strip_prefix(KeyKind::Api.prefix()) {
            (KeyKind::Api, rest)
        } else if let Some(rest) = text.strip_prefix(KeyKind::Enrolment.prefix()) {
            (KeyKind::Enrolment, rest)
        } else {
            return Err(AccessKeyError::Prefix);
        };
        let (id_text, secret_text) = rest.split_once('_').ok_or(AccessKeyError::Damaged)?;
        let lengths = (id_text.len(), secret_text.len());
        if lengths != (2 * ID_BYTES, 2 * (SECRET_BYTES + CHECKSUM_BYTES)) {
            return Err(AccessKeyError::Damaged);
        }
        let damaged = |_| AccessKeyError::Damaged;
        let mut id = [0; ID_BYTES];
        hex::decode(id_text.as_bytes(), &mut id).map_err(damaged)?;
        let mut both = Zeroizing::new([0; SECRET_BYTES + CHECKSUM_BYTES]);
        hex::decode(secret_text.as_bytes(), &mut both[..]).map_err(damaged)?;
        let (of_secret, sum) = both.split_at(SECRET_BYTES);
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        secret.copy_from_slice(of_secret);
        let key = Self {
            kind,
            id: CredentialId(id),
            secret,
        };
        if key.checksum()[..] == *sum {
            Ok(key)
        } else {
            Err(AccessKeyError::Damaged)
        }
    }

    /// The text, for the person or the client that receives the key.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let mut text = String::with_capacity(TEXT_BYTES);
        text.push_str(self.kind.prefix());
        hex::append(&mut text, &self.id.0);
        text.push('_');
        hex::append(&mut text, &self.secret[..]);
        hex::append(&mut text, &self.checksum());
        text.into()
    }

    /// What the key is for.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The id of the key.
    #[must_use]
    pub const fn id(&self) -> CredentialId {
        self.id
    }

    /// The hash under which the key is stored.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        let mut hasher = blake3::Hasher::new();
        self.feed(&mut hasher);
        SecretHash(*hasher.finalize().as_bytes())
    }

    fn feed(&self, hasher: &mut blake3::Hasher) {
        hasher
            .update(self.kind.prefix().as_bytes())
            .update(&self.id.0)
            .update(&self.secret[..]);
    }

    fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        // Of another context, so that a checksum is no part of the stored hash.
        let mut hasher = blake3::Hasher::new_derive_key("adit 2026 checksum of a key");
        self.feed(&mut hasher);
        let mut sum = [0; CHECKSUM_BYTES];
        hasher.finalize_xof().fill(&mut sum);
        sum
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SecretHash {
    pub(crate) const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(64);
        hex::append(&mut text, &self.0);
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let invalid = || de::Error::custom("invalid hash, expected 64 hexadecimal digits");
        if text.len() != 64 {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        hex::decode(text.as_bytes(), &mut hash).map_err(|_| invalid())?;
        Ok(Self(hash))
    }
}

impl CredentialId {
    /// An id of these random bytes.
    #[must_use]
    pub const fn from_random(random: [u8; ID_BYTES]) -> Self {
        Self(random)
    }
}

impl FromStr for CredentialId {
    type Err = CredentialIdError;

    fn from_str(text: &str) -> Result<Self, CredentialIdError> {
        let invalid = || CredentialIdError(text.chars().take(2 * ID_BYTES).collect());
        if text.len() != 2 * ID_BYTES {
            return Err(invalid());
        }
        let mut id = [0; ID_BYTES];
        hex::decode(text.as_bytes(), &mut id).map_err(|_| invalid())?;
        Ok(Self(id))
    }
}

/// A text that is not the id of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid id {0:?}, expected 12 hexadecimal digits, as `list` shows them")]
pub struct CredentialIdError(String);

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(2 * ID_BYTES);
        hex::append(&mut text, &self.0);
        f.pad(&text)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CredentialId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CredentialId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn key(kind: KeyKind) -> AccessKey {
        AccessKey::from_random(kind, std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    #[test]
    fn a_key_is_read_as_written() {
        for kind in [KeyKind::Api, KeyKind::Enrolment] {
            let key = key(kind);
            let text = key.to_text();
            let read = AccessKey::parse(text.expose_secret()).unwrap();
            assert_eq!((read.kind(), read.id()), (kind, key.id()));
            assert_eq!(read.hash(), key.hash());
            assert!(text.expose_secret().len() <= TEXT_BYTES);
        }
        assert_ne!(key(KeyKind::Api).hash(), key(KeyKind::Enrolment).hash());
    }

    #[test]
    fn every_changed_character_is_found() {
        let text = key(KeyKind::Api).to_text();
        let text = text.expose_secret();
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(AccessKey::parse(&changed).is_err(), "{changed}");
            assert!(AccessKey::parse(&text[..at]).is_err());
        }
        assert_eq!(
            AccessKey::parse(&format!("{text}0")).unwrap_err(),
            AccessKeyError::Damaged
        );
        assert_eq!(
            AccessKey::parse("a-static-token").unwrap_err(),
            AccessKeyError::Prefix
        );
    }

    #[test]
    fn no_debug_text_shows_the_secret() {
        let key = key(KeyKind::Api);
        let text = key.to_text();
        let secret = &text.expose_secret()["adit_key_000102030405_".len()..];
        let shown = format!("{key:?} {:?} {:?}", key.hash(), key.id());
        assert!(!shown.contains(&secret[..8]), "{shown}");
        assert!(shown.contains("000102030405"), "{shown}");
    }
}
