//! JSON Web Tokens: which are accepted, why the others are not, what they give, and when their grants end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_auth::{
    Attempt, ClientClaim, ClientId, Credential, DenialReason, Denied, Grant, GroupId, JwtAlgorithm,
    JwtIssuer, JwtKey, JwtKeyError, JwtRules, JwtUser, Lapsed, MAX_JWT_BYTES, Principals, Records,
    RenewalError, Scopes, StaticToken, UserName, Wanted, check_credential, looks_like_jwt,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of sixty-four bytes, which is enough for every HMAC ....";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn rules() -> JwtRules {
    JwtRules {
        issuer: Some("https://issuer.example".to_owned()),
        audience: vec!["adit".to_owned()],
        ..JwtRules::default()
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "adit", "sub": "ann",
        "iat": NOW, "nbf": NOW, "exp": NOW + 600,
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims();
    change(&mut claims);
    claims
}

fn hs256() -> JwtKey {
    JwtKey::from_secret(JwtAlgorithm::Hs256, SECRET).unwrap()
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn token(claims: &Value) -> String {
    sign(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(SECRET),
    )
}

fn principals(issuers: Vec<JwtIssuer>) -> Principals {
    let none = Principals::new(&Records::default(), &[]).unwrap();
    none.with_issuers(issuers)
}

fn by(rules: JwtRules, keys: impl IntoIterator<Item = JwtKey>) -> Principals {
    principals(vec![JwtIssuer::new(rules, keys.into_iter().collect())])
}

fn claim() -> ClientClaim {
    ClientClaim {
        client_id: ClientId::parse("office-1").unwrap(),
        group_id: GroupId::parse("office").unwrap(),
    }
}

fn attempt_at(principals: &Principals, text: &str, now: u64) -> Result<Grant, Denied> {
    principals.authenticate(&Attempt {
        credential: &Credential::Token(text.into()),
        claim: &claim(),
        address: "192.0.2.7".parse().unwrap(),
        now: at(now),
    })
}

fn attempt(principals: &Principals, text: &str) -> Result<Grant, Denied> {
    attempt_at(principals, text, NOW)
}

fn reason(principals: &Principals, text: &str) -> DenialReason {
    attempt(principals, text).unwrap_err().reason()
}

/// A key of each kind, made once: RSA takes a while.
struct Pairs {
    rsa: KeyPair,
    p256: KeyPair,
    p384: KeyPair,
    ed: KeyPair,
}

fn pairs() -> &'static Pairs {
    static PAIRS: OnceLock<Pairs> = OnceLock::new();
    PAIRS.get_or_init(|| Pairs {
        rsa: KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
        p256: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        p384: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        ed: KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
    })
}

/// The public key in PEM, and the private one, for an algorithm with both.
fn pair_of(algorithm: JwtAlgorithm) -> (String, EncodingKey) {
    let name = algorithm.as_str();
    let pair = match name {
        "ES256" => &pairs().p256,
        "ES384" => &pairs().p384,
        "EdDSA" => &pairs().ed,
        _ => &pairs().rsa,
    };
    let private = pair.serialize_pem();
    let private = match &name[..2] {
        "ES" => EncodingKey::from_ec_pem(private.as_bytes()),
        "Ed" => EncodingKey::from_ed_pem(private.as_bytes()),
        _ => EncodingKey::from_rsa_pem(private.as_bytes()),
    };
    (pair.public_key_pem(), private.unwrap())
}

/// The key that verifies an algorithm, and the one that signs by it.
fn keys_of(algorithm: JwtAlgorithm) -> (JwtKey, EncodingKey) {
    if algorithm.has_shared_secret() {
        let key = JwtKey::from_secret(algorithm, SECRET).unwrap();
        return (key, EncodingKey::from_secret(SECRET));
    }
    let (public, private) = pair_of(algorithm);
    (JwtKey::from_pem(algorithm, &public).unwrap(), private)
}

fn header(algorithm: JwtAlgorithm) -> Header {
    Header::new(algorithm.as_str().parse().unwrap())
}

#[test]
fn a_token_of_each_algorithm_is_accepted() {
    for algorithm in JwtAlgorithm::ALL {
        let (key, private) = keys_of(algorithm);
        let text = sign(&header(algorithm), &claims(), &private);
        assert!(looks_like_jwt(&text));
        let grant = attempt(&by(rules(), [key]), &text).unwrap();
        assert_eq!(grant.user().as_str(), "ann", "{algorithm}");
        assert_eq!(grant.client().as_str(), "office-1");
        assert_eq!(grant.credential_id(), None);
    }
}

#[test]
fn p_1_21_the_algorithm_is_that_of_the_key() {
    for algorithm in JwtAlgorithm::ALL {
        let (_, private) = keys_of(algorithm);
        let text = sign(&header(algorithm), &claims(), &private);
        for other in JwtAlgorithm::ALL {
            if other == algorithm {
                continue;
            }
            let (key, _) = keys_of(other);
            let reason = reason(&by(rules(), [key]), &text);
            assert_eq!(reason, DenialReason::WrongAlgorithm, "{algorithm} {other}");
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let (public, _) = pair_of(JwtAlgorithm::Rs256);
    let known = by(
        rules(),
        [JwtKey::from_pem(JwtAlgorithm::Rs256, &public).unwrap()],
    );
    // The public key as the secret of HMAC, in the forms in which libraries have confused them.
    let der = pairs().rsa.subject_public_key_info();
    for secret in [public.as_bytes(), public.trim().as_bytes(), &der[..]] {
        let key = EncodingKey::from_secret(secret);
        let text = sign(&Header::new(Algorithm::HS256), &claims(), &key);
        assert_eq!(reason(&known, &text), DenialReason::WrongAlgorithm);
        // With the algorithm of the key in the header, the signature of HMAC remains.
        let mut parts = text.split('.');
        let (_, claims, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let text = format!("{header}.{claims}.{signature}");
        assert_eq!(reason(&known, &text), DenialReason::WrongSignature);
    }
    assert_eq!(
        JwtKey::from_secret(JwtAlgorithm::Hs256, public.as_bytes()).unwrap_err(),
        JwtKeyError::PemAsSecret
    );
    assert_eq!(
        JwtKey::from_secret(JwtAlgorithm::Rs256, SECRET).unwrap_err(),
        JwtKeyError::OtherKind(JwtAlgorithm::Rs256)
    );
    assert_eq!(
        JwtKey::from_pem(JwtAlgorithm::Hs256, &public).unwrap_err(),
        JwtKeyError::OtherKind(JwtAlgorithm::Hs256)
    );
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let known = by(rules(), [hs256()]);
    let claims = URL_SAFE_NO_PAD.encode(claims().to_string());
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS1", "ES256K"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": algorithm }).to_string());
        for signature in ["", "AAAA"] {
            let text = format!("{header}.{claims}.{signature}");
            assert_eq!(
                reason(&known, &text),
                DenialReason::WrongAlgorithm,
                "{text}"
            );
        }
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let text = format!("{header}.{claims}.");
    assert_eq!(reason(&known, &text), DenialReason::WrongSignature);
}

#[test]
fn keys_in_the_header_are_not_used() {
    let known = by(rules(), [hs256()]);
    let own = EncodingKey::from_secret(b"a secret of the attacker, long enough for HMAC");
    let header = json!({
        "alg": "HS256", "jku": "https://attacker.example/keys", "x5u": "https://attacker.example",
        "jwk": { "kty": "oct", "k": URL_SAFE_NO_PAD.encode(b"a secret of the attacker, long enough for HMAC") },
    });
    let signed = [header, claims()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = signed.join(".");
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &own, Algorithm::HS256).unwrap();
    assert_eq!(
        reason(&known, &format!("{signed}.{signature}")),
        DenialReason::WrongSignature
    );
}

#[test]
fn each_claim_is_required_and_checked() {
    let known = by(
        JwtRules {
            required: BTreeMap::from([("org".to_owned(), vec!["a".to_owned(), "b".to_owned()])]),
            ..rules()
        },
        [hs256()],
    );
    let good = with(|claims| claims["org"] = json!("b"));
    attempt(&known, &token(&good)).unwrap();
    let changed = |name: &str, value: Option<Value>| {
        let mut claims = good.clone();
        match value {
            Some(value) => claims[name] = value,
            None => {
                claims.as_object_mut().unwrap().remove(name);
            }
        }
        reason(&known, &token(&claims))
    };
    let refused = [
        ("iss", None, DenialReason::WrongIssuer),
        (
            "iss",
            Some(json!("https://issuer.example/")),
            DenialReason::WrongIssuer,
        ),
        (
            "iss",
            Some(json!(["https://issuer.example"])),
            DenialReason::WrongIssuer,
        ),
        ("aud", None, DenialReason::WrongAudience),
        ("aud", Some(json!("other")), DenialReason::WrongAudience),
        (
            "aud",
            Some(json!(["other", "Adit"])),
            DenialReason::WrongAudience,
        ),
        ("aud", Some(json!([["adit"]])), DenialReason::WrongAudience),
        (
            "aud",
            Some(json!({ "adit": true })),
            DenialReason::WrongAudience,
        ),
        // Beyond the year 9999.
        ("exp", Some(json!(1e30)), DenialReason::DamagedJwt),
        ("exp", Some(json!(u64::MAX)), DenialReason::DamagedJwt),
        (
            "exp",
            Some(json!(253_402_300_800_u64)),
            DenialReason::DamagedJwt,
        ),
        ("exp", None, DenialReason::NoExpiry),
        ("exp", Some(json!("1900000000")), DenialReason::DamagedJwt),
        ("exp", Some(json!(null)), DenialReason::DamagedJwt),
        ("exp", Some(json!(NOW - 60)), DenialReason::Expired),
        ("exp", Some(json!(-1)), DenialReason::Expired),
        ("nbf", Some(json!(NOW + 61)), DenialReason::NotYetValid),
        ("nbf", Some(json!("soon")), DenialReason::DamagedJwt),
        ("iat", Some(json!(NOW + 61)), DenialReason::NotYetValid),
        ("iat", Some(json!(1e300)), DenialReason::NotYetValid),
        ("org", None, DenialReason::RequiredClaim),
        ("org", Some(json!("c")), DenialReason::RequiredClaim),
        ("org", Some(json!(["c"])), DenialReason::RequiredClaim),
        ("org", Some(json!(true)), DenialReason::RequiredClaim),
        ("sub", None, DenialReason::InvalidUser),
        ("sub", Some(json!("")), DenialReason::InvalidUser),
        ("sub", Some(json!("a b")), DenialReason::InvalidUser),
        ("sub", Some(json!(7)), DenialReason::InvalidUser),
        (
            "adit",
            Some(json!({ "group": [] })),
            DenialReason::InvalidScopes,
        ),
        ("adit", Some(json!("all")), DenialReason::InvalidScopes),
    ];
    for (name, value, expected) in refused {
        assert_eq!(changed(name, value.clone()), expected, "{name} {value:?}");
    }
    for (name, value) in [
        ("aud", json!(["other", "adit"])),
        ("exp", json!(NOW - 59)),
        ("exp", json!(1_800_000_000.5)),
        ("exp", json!(253_402_300_799_u64)),
        ("nbf", json!(NOW + 60)),
        ("iat", json!(NOW + 60)),
        ("org", json!(["c", "a"])),
        ("extra", json!({ "deep": [1, 2, 3] })),
    ] {
        let claims = with(|claims| {
            claims["org"] = json!("a");
            claims[name] = value;
        });
        attempt(&known, &token(&claims)).unwrap();
    }
}

#[test]
fn every_denial_of_a_token_has_the_same_text() {
    let known = by(rules(), [hs256()]);
    let wrong = [
        token(&with(|claims| claims["aud"] = json!("other"))),
        token(&with(|claims| claims["exp"] = json!(1))),
        token(&claims()) + "A",
        "eyJh.eyJh.eyJh".to_owned(),
        format!("{}.e30.", "ey".repeat(MAX_JWT_BYTES)),
        "a-static-token".to_owned(),
    ];
    let texts: Vec<String> = { wrong.iter() }
        .map(|text| attempt(&known, text).unwrap_err().to_string())
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert!(!texts[0].contains("JWT"));
}

#[test]
fn an_audience_is_never_optional() {
    let known = by(
        JwtRules {
            audience: Vec::new(),
            ..rules()
        },
        [hs256()],
    );
    for audience in [json!(null), json!("adit"), json!([])] {
        let text = token(&with(|claims| claims["aud"] = audience));
        assert_eq!(reason(&known, &text), DenialReason::WrongAudience);
    }
}

#[test]
fn a_key_is_found_by_its_id() {
    let other = JwtKey::from_secret(JwtAlgorithm::Hs256, &[7; 32]).unwrap();
    let known = by(rules(), [other.with_id("old"), hs256().with_id("new")]);
    let named = |id: Option<&str>| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = id.map(str::to_owned);
        sign(&header, &claims(), &EncodingKey::from_secret(SECRET))
    };
    attempt(&known, &named(Some("new"))).unwrap();
    attempt(&known, &named(None)).unwrap();
    assert_eq!(
        reason(&known, &named(Some("old"))),
        DenialReason::WrongSignature
    );
    assert_eq!(
        reason(&known, &named(Some("newer"))),
        DenialReason::UnknownSigningKey
    );
    // A key from PEM has no id.
    attempt(&by(rules(), [hs256()]), &named(Some("any"))).unwrap();
    assert_eq!(
        reason(&by(rules(), []), &named(None)),
        DenialReason::UnknownSigningKey
    );
}

#[test]
fn the_number_of_signatures_is_bounded() {
    let others = (0..8_u8).map(|byte| JwtKey::from_secret(JwtAlgorithm::Hs256, &[byte; 32]));
    let others: Vec<_> = others.collect::<Result<_, _>>().unwrap();
    let known = by(rules(), others.iter().cloned().chain([hs256()]));
    assert_eq!(
        reason(&known, &token(&claims())),
        DenialReason::WrongSignature
    );
    let known = by(rules(), others.into_iter().skip(1).chain([hs256()]));
    attempt(&known, &token(&claims())).unwrap();
}

#[test]
fn issuers_are_kept_apart() {
    let entry = |name: &str, prefix: &str, secret: &[u8]| {
        let rules = JwtRules {
            issuer: Some(name.to_owned()),
            user: JwtUser::Claim {
                name: "name".to_owned(),
                prefix: prefix.to_owned(),
            },
            ..rules()
        };
        let key = JwtKey::from_secret(JwtAlgorithm::Hs256, secret).unwrap();
        JwtIssuer::new(rules, Arc::new([key]))
    };
    let known = principals(vec![entry("a", "a-", SECRET), entry("b", "b-", &[7; 32])]);
    let text = |issuer: &str| {
        token(&with(|claims| {
            claims["iss"] = json!(issuer);
            claims["name"] = json!("ann");
        }))
    };
    assert_eq!(
        attempt(&known, &text("a")).unwrap().user().as_str(),
        "a-ann"
    );
    // Signed by the key of the other issuer.
    assert_eq!(reason(&known, &text("b")), DenialReason::WrongSignature);
    assert_eq!(reason(&known, &text("c")), DenialReason::WrongIssuer);
}

#[test]
fn an_unknown_key_counts_more_than_a_wrong_signature() {
    let rotated = JwtIssuer::new(rules(), Arc::new([hs256().with_id("old")]));
    let fixed = JwtKey::from_secret(JwtAlgorithm::Hs256, &[7; 32]).unwrap();
    let fixed = JwtIssuer::new(rules(), Arc::new([fixed]));
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("new".to_owned());
    let text = sign(&header, &claims(), &EncodingKey::from_secret(SECRET));
    for order in [vec![rotated.clone(), fixed.clone()], vec![fixed, rotated]] {
        assert_eq!(
            reason(&principals(order), &text),
            DenialReason::UnknownSigningKey
        );
    }
}

#[test]
fn scopes_of_user_entry_and_token_apply_together() {
    let mut records = Records::default();
    let scopes = |json: Value| serde_json::from_value::<Scopes>(json).unwrap();
    let of_user = scopes(json!({ "groups": ["office", "lab"] }));
    let ann = UserName::parse("ann").unwrap();
    records.add_user(ann, of_user, NOW).unwrap();
    let entry = |entry: Value| {
        let rules = JwtRules {
            scopes: scopes(entry),
            ..rules()
        };
        let principals = Principals::new(&records, &[]).unwrap();
        principals.with_issuers(vec![JwtIssuer::new(rules, Arc::new([hs256()]))])
    };
    let known = entry(json!({ "hosts": ["*.example.com"] }));
    let text = token(&with(|claims| {
        claims["adit"] = json!({ "hosts": ["a.example.com", "a.example.org"] });
    }));
    let grant = attempt(&known, &text).unwrap();
    let allows = |host: &str| grant.allows(Wanted::Host(host)).is_ok();
    assert!(allows("a.example.com"));
    assert!(!allows("b.example.com"), "outside the token's");
    assert!(!allows("a.example.org"), "outside the entry's");
    let group = |name: &str| GroupId::parse(name).unwrap();
    assert!(grant.allows(Wanted::Group(&group("lab"))).is_ok());
    assert!(grant.allows(Wanted::Group(&group("shop"))).is_err());
    assert_eq!(known.check(&grant, at(NOW)), Ok(()));
    let changed = entry(json!({ "hosts": ["*.example.org"] }));
    assert_eq!(changed.check(&grant, at(NOW)), Err(Lapsed::Changed));
    let freed = entry(json!({}));
    assert_eq!(freed.check(&grant, at(NOW)), Err(Lapsed::Changed));

    let elsewhere = token(&with(|claims| {
        claims["adit"] = json!({ "addresses": ["198.51.100.0/24"] });
    }));
    assert_eq!(reason(&known, &elsewhere), DenialReason::Address);
}

#[test]
fn a_grant_ends_with_its_token_its_key_and_its_rules() {
    let known = by(rules(), [hs256()]);
    let grant = attempt(&known, &token(&claims())).unwrap();
    let end = NOW + 600 + 60;
    assert_eq!(known.check(&grant, at(end - 1)), Ok(()));
    assert_eq!(known.check(&grant, at(end)), Err(Lapsed::Expired));
    assert_eq!(
        attempt_at(&known, &token(&claims()), end)
            .unwrap_err()
            .reason(),
        DenialReason::Expired
    );
    let other = JwtKey::from_secret(JwtAlgorithm::Hs256, &[7; 32]).unwrap();
    let both = by(rules(), [other.clone(), hs256().with_id("renamed")]);
    assert_eq!(both.check(&grant, at(NOW)), Ok(()));
    assert_eq!(
        by(rules(), [other]).check(&grant, at(NOW)),
        Err(Lapsed::Revoked)
    );
    let same_secret = JwtKey::from_secret(JwtAlgorithm::Hs384, SECRET).unwrap();
    assert_eq!(
        by(rules(), [same_secret]).check(&grant, at(NOW)),
        Err(Lapsed::Revoked)
    );
    let stricter = JwtRules {
        audience: vec!["another".to_owned()],
        ..rules()
    };
    assert_eq!(
        by(stricter, [hs256()]).check(&grant, at(NOW)),
        Err(Lapsed::Revoked)
    );
    assert_eq!(
        principals(Vec::new()).check(&grant, at(NOW)),
        Err(Lapsed::Revoked)
    );
}

#[test]
fn a_grant_follows_a_changed_leeway() {
    let with_leeway = |seconds| {
        let leeway = Duration::from_secs(seconds);
        by(JwtRules { leeway, ..rules() }, [hs256()])
    };
    let (long, short) = (with_leeway(300), with_leeway(0));
    let grant = attempt(&long, &token(&claims())).unwrap();
    assert_eq!(long.check(&grant, at(NOW + 899)), Ok(()));
    assert_eq!(short.check(&grant, at(NOW + 599)), Ok(()));
    assert_eq!(
        short.check(&grant, at(NOW + 600)),
        Err(Lapsed::Expired),
        "a shorter leeway"
    );
    let grant = attempt(&short, &token(&claims())).unwrap();
    assert_eq!(long.check(&grant, at(NOW + 899)), Ok(()), "a longer leeway");
}

#[test]
fn a_grant_ends_when_another_claim_has_the_scopes() {
    let known = by(rules(), [hs256()]);
    let text = token(&with(|claims| {
        claims["adit2"] = json!({ "groups": ["office"] });
    }));
    let grant = attempt(&known, &text).unwrap();
    assert!(grant.allows(Wanted::Host("a.example")).is_ok());
    let scopes_claim = "adit2".to_owned();
    let changed = by(
        JwtRules {
            scopes_claim,
            ..rules()
        },
        [hs256()],
    );
    assert!(changed.check(&grant, at(NOW)).is_err());
}

#[test]
fn a_grant_is_judged_by_the_entry_that_would_accept_its_token() {
    let entry = |leeway, groups: Option<&str>| {
        let groups = groups.map(|group| vec![group.parse().unwrap()]);
        let scopes = Scopes {
            groups,
            ..Scopes::default()
        };
        let rules = JwtRules {
            leeway: Duration::from_secs(leeway),
            scopes,
            ..rules()
        };
        JwtIssuer::new(rules, Arc::new([hs256()]))
    };
    // Two entries for the same tokens: the first one is strict about the clock.
    let both = principals(vec![entry(0, Some("office")), entry(300, Some("late"))]);
    let late = attempt_at(&both, &token(&claims()), NOW + 700).unwrap();
    assert_eq!(both.check(&late, at(NOW + 701)), Ok(()));
    assert_eq!(both.check(&late, at(NOW + 900)), Err(Lapsed::Expired));
    // What the first one has accepted is of the second one once it has expired there: its scopes are others.
    let grant = attempt(&both, &token(&claims())).unwrap();
    assert_eq!(both.check(&grant, at(NOW + 599)), Ok(()));
    assert_eq!(both.check(&grant, at(NOW + 600)), Err(Lapsed::Changed));
}

#[test]
fn a_key_without_an_id_does_not_hide_that_another_one_is_unknown() {
    let nameless = JwtKey::from_secret(JwtAlgorithm::Hs256, &[7; 32]).unwrap();
    let known = by(rules(), [nameless, hs256().with_id("old")]);
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("new".to_owned());
    let key = EncodingKey::from_secret(SECRET);
    let text = sign(&header, &claims(), &key);
    assert_eq!(reason(&known, &text), DenialReason::UnknownSigningKey);
    header.kid = Some("old".to_owned());
    attempt(&known, &sign(&header, &claims(), &key)).unwrap();
}

#[test]
fn a_renewal_moves_the_end_of_the_grant() {
    let known = by(rules(), [hs256()]);
    let grant = attempt(&known, &token(&claims())).unwrap();
    let of_request = grant.for_tunnel("web".parse().unwrap(), 1);
    let longer = token(&with(|claims| claims["exp"] = json!(NOW + 6000)));
    let new = attempt(&known, &longer).unwrap();
    assert_ne!(grant, new);
    grant.renew(&new).unwrap();
    assert_eq!(grant, new);
    for one in [&grant, &of_request] {
        assert_eq!(known.check(one, at(NOW + 6059)), Ok(()));
        assert_eq!(known.check(one, at(NOW + 6060)), Err(Lapsed::Expired));
    }
}

#[test]
fn a_renewal_changes_nothing_but_the_credential() {
    let known = by(rules(), [hs256()]);
    let grant = attempt(&known, &token(&claims())).unwrap();
    let bob = token(&with(|claims| claims["sub"] = json!("bob")));
    let bob = attempt(&known, &bob).unwrap();
    assert_eq!(grant.renew(&bob), Err(RenewalError::User));
    let scoped = token(&with(|claims| claims["adit"] = json!({ "groups": [] })));
    let scoped = attempt(&known, &scoped).unwrap();
    assert_eq!(grant.renew(&scoped), Err(RenewalError::Scopes));
    assert_eq!(scoped.renew(&grant), Err(RenewalError::Scopes));
    let elsewhere = ClientClaim {
        group_id: GroupId::parse("lab").unwrap(),
        ..claim()
    };
    let elsewhere = Grant::for_link(UserName::parse("ann").unwrap(), elsewhere);
    assert_eq!(grant.renew(&elsewhere), Err(RenewalError::Client));
    assert_eq!(known.check(&grant, at(NOW)), Ok(()));
}

#[test]
fn a_static_token_in_the_form_of_a_jwt_is_one() {
    let text = "eyJhbGciOiJub25lIn0.e30.c2ln";
    let tokens = [StaticToken {
        user: UserName::parse("ann").unwrap(),
        token: text.into(),
        scopes: Scopes::default(),
    }];
    let known = Principals::new(&Records::default(), &tokens).unwrap();
    let known = known.with_issuers(vec![JwtIssuer::new(rules(), Arc::new([hs256()]))]);
    assert_eq!(attempt(&known, text).unwrap().user().as_str(), "ann");
}

#[test]
fn a_client_may_present_a_token_of_three_kibibytes() {
    let text = token(&with(|claims| claims["pad"] = json!("x".repeat(1900))));
    assert!((2500..=MAX_JWT_BYTES).contains(&text.len()));
    assert_eq!(check_credential(&text), Ok(()));
    attempt(&by(rules(), [hs256()]), &text).unwrap();
    let text = token(&with(|claims| claims["pad"] = json!("x".repeat(2500))));
    assert!(check_credential(&text).is_err());
    assert_eq!(
        reason(&by(rules(), [hs256()]), &text),
        DenialReason::TokenTooLong
    );
    assert!(check_credential(&"x".repeat(257)).is_err());
}

#[test]
fn keys_of_the_wrong_kind_are_refused() {
    let pem = |algorithm, pem: &str| JwtKey::from_pem(algorithm, pem).unwrap_err();
    let p256 = pairs().p256.public_key_pem();
    assert_eq!(
        pem(JwtAlgorithm::Rs256, &p256),
        JwtKeyError::Pem(JwtAlgorithm::Rs256)
    );
    assert_eq!(
        pem(JwtAlgorithm::Es384, &p256),
        JwtKeyError::Pem(JwtAlgorithm::Es384)
    );
    assert_eq!(
        pem(JwtAlgorithm::EdDsa, &p256),
        JwtKeyError::Pem(JwtAlgorithm::EdDsa)
    );
    let private = pairs().rsa.serialize_pem();
    assert_eq!(pem(JwtAlgorithm::Rs256, &private), JwtKeyError::PrivateKey);
    let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    assert_eq!(
        pem(JwtAlgorithm::Es256, &certificate.cert.pem()),
        JwtKeyError::Certificate
    );
    assert_eq!(
        pem(JwtAlgorithm::Es256, "no PEM"),
        JwtKeyError::Pem(JwtAlgorithm::Es256)
    );
    for (algorithm, least) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        let algorithm: JwtAlgorithm = algorithm.parse().unwrap();
        let secret = &SECRET[..least - 1];
        let error = JwtKey::from_secret(algorithm, secret).unwrap_err();
        let found = least - 1;
        let expected = JwtKeyError::ShortSecret {
            algorithm,
            least,
            found,
        };
        assert_eq!(error, expected);
        JwtKey::from_secret(algorithm, &SECRET[..least]).unwrap();
    }
}

/// The public keys of `pairs` as JWK, without `alg` and `kid`.
fn jwk(algorithm: JwtAlgorithm) -> Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match algorithm.as_str() {
        "HS256" | "HS384" | "HS512" => json!({ "kty": "oct", "k": encode(SECRET) }),
        "ES256" | "ES384" => {
            let (pair, crv) = match algorithm {
                JwtAlgorithm::Es256 => (&pairs().p256, "P-256"),
                _ => (&pairs().p384, "P-384"),
            };
            let (x, y) = pair.public_key_raw()[1..].split_at((pair.public_key_raw().len() - 1) / 2);
            json!({ "kty": "EC", "crv": crv, "x": encode(x), "y": encode(y) })
        }
        "EdDSA" => {
            let x = encode(pairs().ed.public_key_raw());
            json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
        }
        _ => {
            let (_, private) = pair_of(JwtAlgorithm::Rs256);
            let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&private, Algorithm::RS256);
            let mut jwk = serde_json::to_value(jwk.unwrap()).unwrap();
            jwk.as_object_mut().unwrap().remove("alg");
            jwk
        }
    }
}

#[test]
fn a_jwk_of_each_algorithm_verifies() {
    for algorithm in JwtAlgorithm::ALL {
        let mut jwk = jwk(algorithm);
        jwk["alg"] = json!(algorithm.as_str());
        jwk["kid"] = json!("k1");
        jwk["use"] = json!("sig");
        jwk["x5c"] = json!(["ignored"]);
        let key = JwtKey::from_jwk(&jwk.to_string(), None).unwrap();
        assert_eq!((key.id(), key.algorithm()), (Some("k1"), algorithm));
        let (_, private) = keys_of(algorithm);
        let mut header = header(algorithm);
        header.kid = Some("k1".to_owned());
        let text = sign(&header, &claims(), &private);
        attempt(&by(rules(), [key]), &text).unwrap();
    }
}

#[test]
fn a_jwk_has_one_algorithm() {
    let read = |jwk: &Value, algorithm| JwtKey::from_jwk(&jwk.to_string(), algorithm);
    let rsa = jwk(JwtAlgorithm::Rs256);
    let chosen = |algorithm| read(&rsa, algorithm).map(|key| key.algorithm());
    assert_eq!(chosen(None), Ok(JwtAlgorithm::Rs256));
    assert_eq!(chosen(Some(JwtAlgorithm::Ps512)), Ok(JwtAlgorithm::Ps512));
    assert_eq!(
        chosen(Some(JwtAlgorithm::Hs256)),
        Err(JwtKeyError::OtherKind(JwtAlgorithm::Hs256))
    );
    let with = |name: &str, value: Value| {
        let mut jwk = rsa.clone();
        jwk[name] = value;
        jwk
    };
    let refused = |jwk: &Value| read(jwk, None).unwrap_err();
    assert_eq!(
        read(&with("alg", json!("RS256")), Some(JwtAlgorithm::Rs512)).unwrap_err(),
        JwtKeyError::OtherAlgorithm(JwtAlgorithm::Rs512)
    );
    assert_eq!(
        refused(&with("alg", json!("HS256"))),
        JwtKeyError::OtherKind(JwtAlgorithm::Hs256)
    );
    for (name, value) in [("alg", "none"), ("alg", "RSA-OAEP"), ("kty", "oct2")] {
        assert_eq!(refused(&with(name, json!(value))), JwtKeyError::Unsupported);
    }
    assert_eq!(
        refused(&with("use", json!("enc"))),
        JwtKeyError::OtherPurpose
    );
    assert_eq!(
        refused(&with("key_ops", json!(["encrypt"]))),
        JwtKeyError::OtherPurpose
    );
    assert_eq!(
        refused(&with("n", json!(URL_SAFE_NO_PAD.encode([1; 128])))),
        JwtKeyError::RsaLength
    );
    assert!(matches!(
        refused(&with("n", json!("!"))),
        JwtKeyError::Jwk(_)
    ));
    assert!(matches!(
        refused(&json!({ "kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ" })),
        JwtKeyError::Jwk(_)
    ));
    assert!(matches!(refused(&json!([])), JwtKeyError::Jwk(_)));
}

#[test]
fn no_debug_text_shows_a_key_or_a_token() {
    let known = by(rules(), [hs256().with_id("k1")]);
    let text = token(&claims());
    let grant = attempt(&known, &text).unwrap();
    let signature = text.rsplit('.').next().unwrap();
    let shown = format!("{:?} {known:?} {:?} {grant:?}", hs256(), known.issuers());
    for hidden in [signature, "sixty-four", "97, 32, 115"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(shown.contains("k1"), "{shown}");
}

proptest! {
    #[test]
    fn no_changed_token_is_accepted(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let known = by(rules(), [hs256()]);
        let text = token(&claims());
        let mut changed = text.clone().into_bytes();
        let place = place.index(changed.len());
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
        changed[place] = alphabet[usize::from(byte) % alphabet.len()];
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(attempt(&known, &changed).is_ok(), changed == text);
    }

    #[test]
    fn a_token_is_accepted_exactly_within_its_times(
        exp in NOW - 200..NOW + 200,
        nbf in NOW - 200..NOW + 200,
        iat in NOW - 200..NOW + 200,
        leeway in 0_u64..150,
    ) {
        let known = by(JwtRules { leeway: Duration::from_secs(leeway), ..rules() }, [hs256()]);
        let text = token(&with(|claims| {
            claims["exp"] = json!(exp);
            claims["nbf"] = json!(nbf);
            claims["iat"] = json!(iat);
        }));
        let valid = NOW < exp + leeway && nbf <= NOW + leeway && iat <= NOW + leeway;
        prop_assert_eq!(attempt(&known, &text).is_ok(), valid);
    }

    #[test]
    fn no_claims_panic_and_none_but_signed_ones_are_accepted(
        header in prop_oneof!["\\PC{0,60}", r#"\{"alg":"[A-Za-z0-9]{0,6}"(,"kid":"[a-z]{0,3}")?\}"#],
        claims in prop_oneof!["\\PC{0,80}", r#"\{"(aud|exp|iss)":("[a-z]{0,5}"|[0-9.e-]{1,9}|null|\[\])\}"#],
        signature in "[A-Za-z0-9_-]{0,60}",
    ) {
        let text = format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        prop_assert!(attempt(&by(rules(), [hs256()]), &text).is_err());
        // Signed by the issuer, but with any claims: never a panic.
        let signed = text.rsplit_once('.').unwrap().0;
        let key = EncodingKey::from_secret(SECRET);
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        let _ = attempt(&by(rules(), [hs256()]), &format!("{signed}.{signature}"));
    }
}
