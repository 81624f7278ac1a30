//! Keys and stored records of any bytes: a parser neither panics nor accepts a key that it would write in another way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_auth::{AccessKey, Records};
use secrecy::ExposeSecret;

#[test]
fn keys_are_read_as_written_or_not_at_all() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let with_prefix = format!("adit_key_{text}");
        for text in [&*text, &*with_prefix] {
            if let Ok(key) = AccessKey::parse(text) {
                let written = key.to_text();
                assert_eq!(written.expose_secret(), &text.to_ascii_lowercase());
            }
        }
    });
}

#[test]
fn records_are_read_as_written_or_not_at_all() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(records) = serde_json::from_slice::<Records>(bytes) {
            let written = serde_json::to_vec(&records).unwrap();
            assert_eq!(
                serde_json::from_slice::<Records>(&written).unwrap(),
                records
            );
        }
    });
}
