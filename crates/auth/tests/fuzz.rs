//! Hostile credentials cause no panic and authenticate no client; hostile key sets and stored records cause no panic, and a key
//! is not accepted that would be written in another way.
//!
//! With an engine (`cargo bolero test`) these are fuzz targets; without one they run a bounded number of times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{sync::Arc, time::UNIX_EPOCH};

use adit_auth::{
    AccessKey, Attempt, ClientClaim, ClientId, Credential, GroupId, JwtAlgorithm, JwtIssuer,
    JwtKey, JwtKeyHint, JwtRules, Principals, Records, looks_like_jwt,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use secrecy::ExposeSecret;

const SECRET: &[u8] = b"a secret of thirty-two bytes ...";

fn known() -> Principals {
    let rules = JwtRules {
        audience: vec!["adit".to_owned()],
        ..JwtRules::default()
    };
    let key = JwtKey::from_secret(JwtAlgorithm::Hs256, SECRET).unwrap();
    Principals::new(&Records::default(), &[])
        .unwrap()
        .with_issuers(vec![JwtIssuer::new(rules, Arc::new([key]))])
}

fn is_accepted(principals: &Principals, text: &str) -> bool {
    let attempt = Attempt {
        credential: &Credential::Token(text.into()),
        claim: &ClientClaim {
            client_id: ClientId::parse("c").unwrap(),
            group_id: GroupId::parse("g").unwrap(),
        },
        address: [127, 0, 0, 1].into(),
        now: UNIX_EPOCH,
    };
    principals.authenticate(&attempt).is_ok()
}

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
fn a_text_of_any_bytes_authenticates_no_client() {
    let known = known();
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let _ = JwtKeyHint::of(&text);
        let _ = looks_like_jwt(&text);
        assert!(!is_accepted(&known, &text));
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

#[test]
fn headers_and_claims_of_any_bytes_are_read() {
    let known = known();
    let key = EncodingKey::from_secret(SECRET);
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<u8>, Vec<u8>)>()
        .for_each(|(header, claims, signature)| {
            let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
            let text = |header: &[u8], signature: &str| {
                format!("{}.{}.{signature}", encode(header), encode(claims))
            };
            assert!(!is_accepted(&known, &text(header, &encode(signature))));
            // What the issuer signed is read to its end.
            let signed = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims));
            let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256);
            let _ = is_accepted(&known, &format!("{signed}.{}", signature.unwrap()));
        });
}

#[test]
fn keys_of_any_bytes_are_read() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let _ = JwtKey::from_jwk(&text, None);
        for algorithm in JwtAlgorithm::ALL {
            let _ = JwtKey::from_pem(algorithm, &text);
            let pem = format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                encode_pem(bytes)
            );
            let _ = JwtKey::from_pem(algorithm, &pem);
        }
    });
}

fn encode_pem(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
