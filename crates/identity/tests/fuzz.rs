//! Hostile sets of keys cause no panic.
//!
//! With an engine (`cargo bolero test`) this is a fuzz target; without one it runs a bounded number of times.
#![allow(clippy::unwrap_used, missing_docs)]

use adit_identity::{JwksUrl, MAX_KEYS, read_jwks};

#[test]
fn sets_of_any_bytes_are_read() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let wrapped = format!(r#"{{"keys":[{text}]}}"#);
        for text in [&*text, &*wrapped] {
            let keys = read_jwks(text, None, true);
            assert!(
                keys.is_ok_and(|keys| keys.len() <= MAX_KEYS)
                    || read_jwks(text, None, true).is_err()
            );
        }
        let _ = text.parse::<JwksUrl>();
    });
}
