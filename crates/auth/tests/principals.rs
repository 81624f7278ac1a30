//! Credentials: authentication, denials, scopes, the end of a grant, and hidden secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_auth::{
    ACCESS_KEY_RANDOM_BYTES, AccessKey, Attempt, CertificateNames, CertificateRules,
    CertificateUser, ClientClaim, ClientId, Credential, CredentialId, DenialReason, Denied, Grant,
    GroupId, KeyKind, Lapsed, MAX_TOKEN_BYTES, NewCredential, Principals, Proof, Records,
    RenewalError, Scopes, StaticToken, TokenProblem, TokenSetError, TunnelName, UserName, Wanted,
    generate_token, hash_token,
};
use secrecy::{ExposeSecret, SecretString};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn claim() -> ClientClaim {
    ClientClaim {
        client_id: ClientId::parse("office-1").unwrap(),
        group_id: GroupId::parse("office").unwrap(),
    }
}

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn tokens(pairs: &[(&str, &str)]) -> Result<Principals, TokenSetError> {
    let tokens: Vec<_> = { pairs.iter() }
        .map(|(name, token)| StaticToken {
            user: user(name),
            token: SecretString::from(*token),
            scopes: Scopes::default(),
        })
        .collect();
    Principals::new(&Records::default(), &tokens)
}

fn attempt(principals: &Principals, credential: &Credential) -> Result<Grant, Denied> {
    attempt_at(principals, credential, NOW)
}

fn attempt_at(principals: &Principals, credential: &Credential, now: u64) -> Result<Grant, Denied> {
    principals.authenticate(&Attempt {
        credential,
        claim: &claim(),
        address: "192.0.2.7".parse().unwrap(),
        now: at(now),
    })
}

fn reason(principals: &Principals, credential: &Credential) -> DenialReason {
    attempt(principals, credential).unwrap_err().reason()
}

fn id(byte: u8) -> CredentialId {
    CredentialId::from_random([byte; 6])
}

fn key(kind: KeyKind, byte: u8) -> AccessKey {
    let mut random = [9; ACCESS_KEY_RANDOM_BYTES];
    random[..6].fill(byte);
    AccessKey::from_random(kind, random)
}

/// Records of the user `ann`, with credential 1, proved in this way.
fn records(proof: Proof, change: impl FnOnce(&mut NewCredential)) -> Records {
    let mut records = Records::default();
    records
        .add_user(user("ann"), Scopes::default(), NOW)
        .unwrap();
    let mut new = NewCredential {
        id: id(1),
        proof,
        label: String::new(),
        expires_at: None,
        scopes: Scopes::default(),
    };
    change(&mut new);
    records.add_credential(user("ann"), new, NOW).unwrap();
    records
}

fn principals(records: &Records) -> Principals {
    Principals::new(records, &[]).unwrap()
}

fn api_key() -> (Proof, Credential) {
    let key = key(KeyKind::Api, 1);
    (Proof::Key(key.hash()), Credential::Token(key.to_text()))
}

fn token(text: &str) -> Credential {
    Credential::Token(text.into())
}

const CA: [u8; 32] = [7; 32];

/// The certificate of a user by its common name, of [`CA`].
fn certificate(name: &str) -> CertificateNames {
    CertificateNames {
        ca: CA,
        common_names: vec![name.to_owned()],
        expires_at: NOW + 600,
        ..CertificateNames::default()
    }
}

/// The user `ann` of the records, and `bob` of the configuration with these scopes.
fn with_certificates(records: &Records, scopes: Scopes) -> Principals {
    let rules = CertificateRules {
        users: [(user("bob"), scopes)].into(),
        ..CertificateRules::default()
    };
    principals(records).with_certificates(&rules, [CA])
}

#[test]
fn p_1_23_a_certificate_of_a_client_ca_is_its_user() {
    let records = records(Proof::Certificate, |_| {});
    let known = with_certificates(&records, Scopes::default());
    let attempt = |names: CertificateNames| attempt(&known, &Credential::ClientCertificate(names));
    for name in ["ann", "bob"] {
        let grant = attempt(certificate(name)).unwrap();
        assert_eq!(grant.user(), &user(name));
        assert!(!grant.has_certificate(), "it is not of the server's own CA");
        assert_eq!(known.check(&grant, at(NOW + 599)), Ok(()));
        assert_eq!(known.check(&grant, at(NOW + 600)), Err(Lapsed::Expired));
    }
    let refused = |names| attempt(names).unwrap_err().reason();
    assert_eq!(refused(certificate("eve")), DenialReason::CertificateUser);
    assert_eq!(refused(certificate("a b")), DenialReason::CertificateName);
    let expired = CertificateNames {
        expires_at: NOW,
        ..certificate("ann")
    };
    assert_eq!(refused(expired), DenialReason::Expired);
    let other_ca = CertificateNames {
        ca: [8; 32],
        ..certificate("ann")
    };
    assert_eq!(refused(other_ca), DenialReason::UnknownCertificate);
    // Without the method, the certificate that every client needs does not authenticate it.
    let off = principals(&records);
    let credential = Credential::ClientCertificate(certificate("ann"));
    assert_eq!(reason(&off, &credential), DenialReason::NoCredential);
}

#[test]
fn p_1_23_a_grant_of_a_certificate_ends_with_its_user_its_scopes_and_its_ca() {
    let mut changed = records(Proof::Certificate, |_| {});
    let known = with_certificates(&changed, Scopes::default());
    let grant =
        |name: &str| attempt(&known, &Credential::ClientCertificate(certificate(name))).unwrap();
    let (ann, bob) = (grant("ann"), grant("bob"));
    let scopes = Scopes {
        max_tunnels: Some(1),
        ..Scopes::default()
    };
    let restricted = with_certificates(&changed, scopes.clone());
    assert_eq!(restricted.check(&bob, at(NOW)), Err(Lapsed::Changed));
    changed.set_user(&user("ann"), scopes).unwrap();
    let restricted = with_certificates(&changed, Scopes::default());
    assert_eq!(restricted.check(&ann, at(NOW)), Err(Lapsed::Changed));
    changed.revoke_user(&user("ann"), NOW).unwrap();
    let removed = with_certificates(&changed, Scopes::default());
    assert_eq!(removed.check(&ann, at(NOW)), Err(Lapsed::Revoked));
    assert_eq!(removed.check(&bob, at(NOW)), Ok(()));
    let rules = CertificateRules {
        users: [(user("bob"), Scopes::default())].into(),
        ..CertificateRules::default()
    };
    let of = |rules: &CertificateRules, cas: [u8; 32]| {
        principals(&Records::default()).with_certificates(rules, [cas])
    };
    assert_eq!(of(&rules, CA).check(&bob, at(NOW)), Ok(()));
    assert_eq!(
        of(&rules, [8; 32]).check(&bob, at(NOW)),
        Err(Lapsed::Revoked)
    );
    let other_name = CertificateRules {
        user: CertificateUser::DnsName,
        ..rules
    };
    assert_eq!(
        of(&other_name, CA).check(&bob, at(NOW)),
        Err(Lapsed::Revoked)
    );
    let gone = principals(&Records::default());
    assert_eq!(gone.check(&bob, at(NOW)), Err(Lapsed::Revoked));
    // The handshake has proved the certificate: no text takes its place.
    let (proof, key) = api_key();
    let by_key = attempt(&principals(&records(proof, |_| {})), &key).unwrap();
    assert_eq!(ann.renew(&by_key), Err(RenewalError::Certificate));
    assert_eq!(by_key.renew(&ann), Err(RenewalError::Certificate));
}

#[test]
fn a_token_is_listed_once() {
    let twice = tokens(&[("ann", "first-token"), ("ann", "first-token")]).unwrap_err();
    assert_eq!(twice, TokenSetError::Repeated { user: user("ann") });
    assert!(!twice.to_string().contains("first-token"), "{twice}");
}

#[test]
fn a_grant_is_valid_while_its_user_has_its_token() {
    let both = tokens(&[("ann", "first-token"), ("ann", "second-token")]).unwrap();
    let grant = attempt(&both, &token("first-token")).unwrap();
    assert!(both.check(&grant, at(NOW)).is_ok());
    assert!(
        both.check(
            &grant.for_tunnel(TunnelName::parse("web").unwrap(), 1),
            at(NOW)
        )
        .is_ok()
    );
    let rotated = tokens(&[("ann", "second-token")]).unwrap();
    assert!(rotated.check(&grant, at(NOW)).is_err());
    let given_away = tokens(&[("bob", "first-token")]).unwrap();
    assert!(given_away.check(&grant, at(NOW)).is_err());
    assert!(
        both.check(&Grant::for_link(user("ann"), claim()), at(NOW))
            .is_err()
    );
    assert_eq!(grant.credential_id(), None);
}

#[test]
fn each_token_lets_its_user_in() {
    let known = [
        ("ann", "first-token"),
        ("bob", "second-token"),
        ("ann", "a third token"),
    ];
    let authenticator = tokens(&known).unwrap();
    for (name, text) in known {
        let grant = attempt(&authenticator, &token(text)).unwrap();
        assert_eq!(grant.user(), &user(name));
        assert_eq!(grant.client().as_str(), "office-1");
        assert_eq!(grant.group().as_str(), "office");
        assert_eq!(grant.tunnel(), None);
        assert_eq!(grant.revision(), 0);
    }
}

#[test]
fn every_denial_has_the_same_text_and_a_logged_cause() {
    let authenticator = tokens(&[("ann", "first-token"), ("bob", "second-token")]).unwrap();
    let longest = "x".repeat(MAX_TOKEN_BYTES);
    let too_long = "x".repeat(MAX_TOKEN_BYTES + 1);
    let cases = [
        (Credential::None, DenialReason::NoCredential),
        (Credential::default(), DenialReason::NoCredential),
        (token(""), DenialReason::EmptyToken),
        (token("first-toke"), DenialReason::UnknownToken),
        (token("first-token "), DenialReason::UnknownToken),
        (token("first-token\0"), DenialReason::UnknownToken),
        (token("First-token"), DenialReason::UnknownToken),
        (token(&longest), DenialReason::UnknownToken),
        (token(&too_long), DenialReason::TokenTooLong),
    ];
    for (credential, reason) in cases {
        let denied = attempt(&authenticator, &credential).unwrap_err();
        assert_eq!(denied.reason(), reason);
        assert_eq!(denied, Denied::new(reason));
        assert_eq!(
            denied.to_string(),
            "the server did not accept these credentials: check auth_token, auth_token_file or ADIT__TOKEN, or the \
             certificate of client.tls, or join again with `adit join`"
        );
    }
}

#[test]
fn causes_read_as_words_in_the_log() {
    let words = [
        (DenialReason::NoCredential, "no credential"),
        (DenialReason::EmptyToken, "empty token"),
        (DenialReason::TokenTooLong, "token too long"),
        (DenialReason::UnknownToken, "unknown token"),
    ];
    for (reason, text) in words {
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn a_token_longer_than_the_longest_is_rejected() {
    let longest = "x".repeat(MAX_TOKEN_BYTES);
    let authenticator = tokens(&[("ann", &longest)]).unwrap();
    assert!(attempt(&authenticator, &token(&longest)).is_ok());
    let longer = attempt(&authenticator, &token(&format!("{longest}x")));
    assert_eq!(longer, Err(Denied::new(DenialReason::TokenTooLong)));
}

#[test]
fn tokens_that_cannot_be_are_refused_by_user() {
    let ann = || user("ann");
    let refused = |pairs: &[_]| tokens(pairs).unwrap_err();
    let too_long = "x".repeat(MAX_TOKEN_BYTES + 1);
    for (text, problem) in [
        ("", TokenProblem::Empty),
        (&*too_long, TokenProblem::TooLong),
        ("first-token\n", TokenProblem::Surrounded),
        (" first-token", TokenProblem::Surrounded),
        ("first-token\u{a0}", TokenProblem::Surrounded),
        ("first\ntoken", TokenProblem::Control),
        ("first\0token", TokenProblem::Control),
    ] {
        let bad = TokenSetError::Bad {
            user: ann(),
            problem,
        };
        assert_eq!(refused(&[("bob", "bobs-token"), ("ann", text)]), bad);
    }
    for text in ["x", "xxxxx"] {
        assert_eq!(
            refused(&[("ann", text)]),
            TokenSetError::TooShort { user: ann() }
        );
    }
    let shared = refused(&[("ann", "the-same"), ("bob", "the-same")]);
    assert_eq!(
        shared,
        TokenSetError::Shared {
            first: ann(),
            second: user("bob")
        }
    );
    assert_eq!(
        shared.to_string(),
        "users ann and bob have the same token: generate another for one of them"
    );
}

#[test]
fn nothing_shows_a_token() {
    let secret = "correct-horse-battery";
    let authenticator = tokens(&[("ann", secret), ("bob", "another")]).unwrap();
    assert_eq!(format!("{authenticator:?}"), r#"Principals {"ann", "bob"}"#);
    let shown = format!("{:?}", token(secret));
    assert!(shown.starts_with("Token("), "{shown}");
    let denied = attempt(&authenticator, &token("wrong-horse"));
    let generated = generate_token([0xab; 32]);
    let error = tokens(&[("ann", secret), ("bob", secret)]).unwrap_err();
    let texts = [
        shown,
        format!("{denied:?}"),
        format!("{error:?} {error}"),
        format!("{generated:?}"),
        format!("{:?}", attempt(&authenticator, &token(secret))),
    ];
    for text in texts {
        for hidden in ["horse", "abab"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}

#[test]
fn a_generated_token_has_the_prefix_and_is_accepted() {
    let mut random = [0xf0; 32];
    random[31] = 0x07;
    let generated = generate_token(random);
    let expected = format!("adit_{}07", "f0".repeat(31));
    assert_eq!(generated.expose_secret(), expected);
    let authenticator = tokens(&[("ann", &expected)]).unwrap();
    assert!(attempt(&authenticator, &token(&expected)).is_ok());
}

#[test]
fn a_grant_for_a_tunnel_keeps_its_link() {
    let link = Grant::for_link(user("ann"), claim());
    let tunnel = TunnelName::parse("web").unwrap();
    let request = link.for_tunnel(tunnel.clone(), 7);
    assert_eq!(request.user(), link.user());
    assert_eq!(request.client(), link.client());
    assert_eq!(request.group(), link.group());
    assert_eq!(request.tunnel(), Some(&tunnel));
    assert_eq!(request.revision(), 7);
    assert_ne!(request, link);
    assert_eq!(request.clone(), request);
}

#[test]
fn a_key_lets_its_user_in() {
    let (proof, credential) = api_key();
    let principals = principals(&records(proof, |_| {}));
    let grant = attempt(&principals, &credential).unwrap();
    assert_eq!(grant.user(), &user("ann"));
    assert_eq!(grant.credential_id(), Some(id(1)));
    assert_eq!(principals.check(&grant, at(NOW)), Ok(()));
}

#[test]
fn a_wrong_key_has_a_cause_for_the_log_only() {
    let (proof, credential) = api_key();
    let known = principals(&records(proof, |_| {}));
    let text = |key: &AccessKey| Credential::Token(key.to_text());
    let mut other = [9; ACCESS_KEY_RANDOM_BYTES];
    other[..6].fill(1);
    other[25] = 8;
    let wrong = AccessKey::from_random(KeyKind::Api, other);
    let Credential::Token(right) = &credential else {
        unreachable!()
    };
    let cut = &right.expose_secret()[..60];
    for (credential, cause) in [
        (text(&key(KeyKind::Api, 2)), DenialReason::UnknownKey),
        (text(&wrong), DenialReason::WrongSecret),
        (
            text(&key(KeyKind::Enrolment, 1)),
            DenialReason::OtherPurpose,
        ),
        (token(cut), DenialReason::DamagedKey),
        (
            Credential::Certificate(id(1)),
            DenialReason::UnknownCertificate,
        ),
        (
            Credential::Certificate(id(2)),
            DenialReason::UnknownCertificate,
        ),
    ] {
        assert_eq!(reason(&known, &credential), cause);
    }
    let by_certificate = principals(&records(Proof::Certificate, |_| {}));
    assert!(attempt(&by_certificate, &Credential::Certificate(id(1))).is_ok());
    assert_eq!(
        reason(&by_certificate, &credential),
        DenialReason::WrongSecret
    );
    // The hash that stands for "none" in a comparison is the hash of no key.
    let none = token(&"0".repeat(64));
    assert_eq!(reason(&by_certificate, &none), DenialReason::UnknownToken);
}

#[test]
fn a_credential_ends_by_time_revocation_and_with_its_user() {
    let (proof, credential) = api_key();
    let mut records = records(proof, |new| new.expires_at = Some(NOW + 10));
    let first = principals(&records);
    let grant = attempt(&first, &credential).unwrap();
    assert_eq!(first.check(&grant, at(NOW + 9)), Ok(()));
    assert_eq!(first.check(&grant, at(NOW + 10)), Err(Lapsed::Expired));
    let late = attempt_at(&first, &credential, NOW + 10).unwrap_err();
    assert_eq!(late.reason(), DenialReason::Expired);
    records.revoke(id(1), NOW).unwrap();
    let second = principals(&records);
    assert_eq!(second.check(&grant, at(NOW)), Err(Lapsed::Revoked));
    assert_eq!(reason(&second, &credential), DenialReason::Revoked);
    let third = Principals::default();
    assert_eq!(third.check(&grant, at(NOW)), Err(Lapsed::Revoked));
}

#[test]
fn an_id_that_returns_with_another_secret_is_another_credential() {
    let (proof, credential) = api_key();
    let grant = attempt(&principals(&records(proof, |_| {})), &credential).unwrap();
    let other = Proof::Key(key(KeyKind::Api, 2).hash());
    let again = principals(&records(other, |_| {}));
    assert_eq!(again.check(&grant, at(NOW)), Err(Lapsed::Revoked));
}

#[test]
fn everything_must_be_allowed_by_user_and_credential() {
    let scopes = |json: &str| serde_json::from_str::<Scopes>(json).unwrap();
    let (proof, credential) = api_key();
    let mut records = records(proof, |new| {
        new.scopes = scopes(r#"{"groups": ["office", "lab"], "max_tunnels": 5}"#);
    });
    records.users[0].scopes = scopes(r#"{"groups": ["lab", "home"], "max_tunnels": 9}"#);
    let known = principals(&records);
    let grant = attempt(&known, &credential).unwrap();
    let allows = |group: &str| grant.allows(Wanted::Group(&GroupId::parse(group).unwrap()));
    assert!(allows("lab").is_ok());
    assert_eq!(
        allows("office").unwrap_err().to_string(),
        "group `office` is outside the scopes of user `ann`: `groups` allows lab, home"
    );
    assert!(allows("home").is_err());
    assert_eq!((grant.max_tunnels(), grant.max_clients()), (Some(5), None));
    records.users[0].scopes.max_tunnels = Some(4);
    let changed = principals(&records);
    assert_eq!(changed.check(&grant, at(NOW)), Err(Lapsed::Changed));
}

#[test]
fn a_credential_may_be_bound_to_addresses() {
    let (proof, credential) = api_key();
    let with = |net: &str| {
        let net = net.parse().unwrap();
        principals(&records(proof.clone(), |new| {
            new.scopes.addresses = Some(vec![net]);
        }))
    };
    assert!(attempt(&with("192.0.2.0/24"), &credential).is_ok());
    let elsewhere = with("198.51.100.0/24");
    assert_eq!(reason(&elsewhere, &credential), DenialReason::Address);
}

#[test]
fn an_unapproved_credential_waits() {
    let (proof, credential) = api_key();
    let mut records = records(proof, |_| {});
    records.credentials[0].awaits_approval = true;
    let waiting = principals(&records);
    assert_eq!(
        reason(&waiting, &credential),
        DenialReason::AwaitsApproval(id(1))
    );
    records.approve(id(1)).unwrap();
    assert!(attempt(&principals(&records), &credential).is_ok());
}

#[test]
fn stored_tokens_stand_beside_those_of_the_configuration() {
    let stored = records(Proof::Token(hash_token("stored-token")), |_| {});
    let configured = StaticToken {
        user: user("bob"),
        token: "configured-token".into(),
        scopes: Scopes::default(),
    };
    let both = Principals::new(&stored, &[configured]).unwrap();
    for (text, name) in [("stored-token", "ann"), ("configured-token", "bob")] {
        assert_eq!(attempt(&both, &token(text)).unwrap().user(), &user(name));
    }
}

#[test]
fn a_removed_user_loses_its_tokens_of_the_configuration() {
    let mut records = Records::default();
    records
        .add_user(user("bob"), Scopes::default(), NOW)
        .unwrap();
    let configured = [StaticToken {
        user: user("bob"),
        token: "configured-token".into(),
        scopes: Scopes::default(),
    }];
    let before = Principals::new(&records, &configured).unwrap();
    let grant = attempt(&before, &token("configured-token")).unwrap();
    records.revoke_user(&user("bob"), NOW).unwrap();
    let after = Principals::new(&records, &configured).unwrap();
    assert_eq!(after.check(&grant, at(NOW)), Err(Lapsed::Revoked));
    assert_eq!(
        reason(&after, &token("configured-token")),
        DenialReason::Revoked
    );
    records
        .add_user(user("bob"), Scopes::default(), NOW)
        .unwrap();
    let again = Principals::new(&records, &configured).unwrap();
    assert_eq!(again.check(&grant, at(NOW)), Ok(()));
}
