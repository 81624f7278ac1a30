//! Key and accept value of the opening handshake (RFC 6455, 1.3).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

/// The only version (RFC 6455, 4.1), the value of `sec-websocket-version`.
pub const VERSION: &str = "13";

/// The suffix that a server appends to the client's key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `sec-websocket-accept` for a key.
pub fn accept(key: &[u8]) -> String {
    let sum = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    STANDARD.encode(sum)
}

/// A key for `sec-websocket-key`, of 16 random bytes.
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Whether a key is valid: 16 bytes in base64 (RFC 6455, 4.2.1).
pub fn is_key(key: &[u8]) -> bool {
    // 24 characters decode to 16, 17 or 18 bytes; longer keys are rejected without decoding.
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_has_its_accept_value() {
        // RFC 6455, 1.3 and 4.2.2.
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key(key([0xff; 16]).as_bytes()));
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ==\n",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25jZSEh",
            "dGhlIHNhbXBsZSBub25jZS==",
            "dGhlIHNhbXBsZSBub25j!Q==",
        ] {
            assert!(!is_key(bad.as_bytes()), "{bad:?}");
        }
    }
}
