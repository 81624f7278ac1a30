//! Static tokens: authentication, denials, and hidden secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_auth::{
    Authenticator, ClientClaim, ClientId, Credential, DenialReason, Denied, Grant, GroupId,
    MAX_TOKEN_BYTES, TokenAuthenticator, TokenProblem, TokenSetError, TunnelName, UserName,
    generate_token,
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

fn tokens(pairs: &[(&str, &str)]) -> Result<TokenAuthenticator, TokenSetError> {
    TokenAuthenticator::new(
        pairs
            .iter()
            .map(|(name, token)| (user(name), SecretString::from(*token))),
    )
}

fn token(text: &str) -> Credential {
    Credential::Token(text.into())
}

#[test]
fn a_grant_is_valid_while_its_user_has_its_token() {
    let both = tokens(&[("ann", "first-token"), ("ann", "second-token")]).unwrap();
    let grant = both.authenticate(&token("first-token"), &claim()).unwrap();
    assert!(both.is_valid(&grant));
    assert!(both.is_valid(&grant.for_tunnel(TunnelName::parse("web").unwrap(), 1)));
    let rotated = tokens(&[("ann", "second-token")]).unwrap();
    assert!(!rotated.is_valid(&grant));
    let given_away = tokens(&[("bob", "first-token")]).unwrap();
    assert!(!given_away.is_valid(&grant));
    assert!(!both.is_valid(&Grant::for_link(user("ann"), claim())));
    assert_eq!(
        format!("{:?}", grant.credential()),
        "Some(CredentialKey(..))"
    );
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
        let grant = authenticator.authenticate(&token(text), &claim()).unwrap();
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
        let denied = authenticator
            .authenticate(&credential, &claim())
            .unwrap_err();
        assert_eq!(denied.reason(), reason);
        assert_eq!(denied, Denied::new(reason));
        assert_eq!(
            denied.to_string(),
            "the server did not accept these credentials: check auth_token, auth_token_file or ADIT__TOKEN"
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
    assert!(
        authenticator
            .authenticate(&token(&longest), &claim())
            .is_ok()
    );
    let longer = authenticator.authenticate(&token(&format!("{longest}x")), &claim());
    assert_eq!(longer, Err(Denied::new(DenialReason::TokenTooLong)));
}

#[test]
fn tokens_that_cannot_be_are_refused_by_user() {
    let ann = || user("ann");
    let refused = |pairs: &[_]| tokens(pairs).unwrap_err();
    assert_eq!(refused(&[]), TokenSetError::NoTokens);
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
    assert!(tokens(&[("ann", "the-same"), ("ann", "the-same")]).is_ok());
}

#[test]
fn nothing_shows_a_token() {
    let secret = "correct-horse-battery";
    let authenticator = tokens(&[("ann", secret), ("bob", "another")]).unwrap();
    assert_eq!(
        format!("{authenticator:?}"),
        r#"TokenAuthenticator {"ann", "bob"}"#
    );
    let shown = format!("{:?}", token(secret));
    assert!(shown.starts_with("Token("), "{shown}");
    let denied = authenticator.authenticate(&token("wrong-horse"), &claim());
    let generated = generate_token([0xab; 32]);
    let error = tokens(&[("ann", secret), ("bob", secret)]).unwrap_err();
    let texts = [
        shown,
        format!("{denied:?}"),
        format!("{error:?} {error}"),
        format!("{generated:?}"),
        format!("{:?}", authenticator.authenticate(&token(secret), &claim())),
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
    let authenticator = TokenAuthenticator::new([(user("ann"), generated)]).unwrap();
    assert!(
        authenticator
            .authenticate(&token(&expected), &claim())
            .is_ok()
    );
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
