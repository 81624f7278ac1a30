//! Who signed a token.

use std::fmt;

/// Identifies a key, and the rules under which it signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignerId([u8; 32]);

impl SignerId {
    /// The identity of a key by its fingerprint, under rules.
    pub(super) fn new(rules: &[u8; 32], key: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("adit 2026 signer of JWT");
        hasher.update(rules).update(key);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignerId(..)")
    }
}
