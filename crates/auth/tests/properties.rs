//! Promises for any input:
//! - a token authenticates exactly the user that a map of tokens has for it;
//! - a text is a name exactly if it has the form of the grammar, and is shown unchanged;
//! - a secret of a link is read from its text, and two are equal exactly if their bytes are;
//! - no text for logs shows a secret.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use adit_auth::{
    AccessKey, Attempt, ClientClaim, ClientId, Credential, Denied, Grant, GroupId, InstanceSecret,
    MAX_TOKEN_BYTES, Principals, Records, Scopes, SessionToken, StaticToken, TunnelName, UserName,
    generate_token,
};
use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

fn claim() -> ClientClaim {
    ClientClaim {
        client_id: ClientId::parse("c").unwrap(),
        group_id: GroupId::parse("g").unwrap(),
    }
}

fn principals<'a>(tokens: impl IntoIterator<Item = (&'a str, &'a str)>) -> Principals {
    let tokens: Vec<_> = tokens
        .into_iter()
        .map(|(user, token)| StaticToken {
            user: UserName::parse(user).unwrap(),
            token: SecretString::from(token),
            scopes: Scopes::default(),
        })
        .collect();
    Principals::new(&Records::default(), &tokens).unwrap()
}

fn attempt(principals: &Principals, credential: &Credential) -> Result<Grant, Denied> {
    principals.authenticate(&Attempt {
        credential,
        claim: &claim(),
        address: [127, 0, 0, 1].into(),
        now: UNIX_EPOCH,
    })
}

/// The grammar, implemented in another way.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word =
        |b: &u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".contains(b);
    (1..=64).contains(&bytes.len())
        && word(&bytes[0])
        && bytes.iter().all(|b| word(b) || b"._-".contains(b))
}

fn presented() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,9}", "\\PC{0,300}", ".*"]
}

proptest! {
    #[test]
    fn tokens_agree_with_a_map(
        known in prop::collection::btree_map("[ab]{6,9}", "[a-z]{1,3}", 1..12),
        tries in prop::collection::vec(presented(), 0..24),
    ) {
        let known_principals = principals(known.iter().map(|(token, user)| (&**user, &**token)));
        let oracle: BTreeMap<&str, &str> = known.iter().map(|(token, user)| (token.as_str(), user.as_str())).collect();
        for text in tries.iter().map(String::as_str).chain(oracle.keys().copied()) {
            let outcome = attempt(&known_principals, &Credential::Token(text.into()));
            let user = outcome.as_ref().ok().map(|grant| grant.user().as_str());
            prop_assert_eq!(user, oracle.get(text).copied());
        }
        prop_assert!(attempt(&known_principals, &Credential::None).is_err());
    }

    #[test]
    fn tokens_differ_to_the_last_byte(
        text in "[!-~]{6,256}",
        place in any::<prop::sample::Index>(),
        more in "[!-~\\x00]{1,8}",
    ) {
        let known = principals([("ann", &*text)]);
        let accepts = |text: &str| attempt(&known, &Credential::Token(text.into())).is_ok();
        prop_assert!(accepts(&text));
        let longer = text.clone() + &more;
        let shorter = &text[..text.len() - 1];
        prop_assert!(!accepts(&longer));
        prop_assert!(!accepts(shorter));
        let mut changed = text.clone().into_bytes();
        changed[place.index(text.len())] ^= 1;
        prop_assert!(!accepts(&String::from_utf8(changed).unwrap()));
        prop_assert!(text.len() <= MAX_TOKEN_BYTES);
    }

    #[test]
    fn names_agree_with_the_grammar(text in prop_oneof!["[a-zA-Z0-9._-]{0,70}", "\\PC{0,8}", ".*"]) {
        prop_assert_eq!(ClientId::parse(&text).is_ok(), is_name(&text));
        prop_assert_eq!(GroupId::parse(&text).is_ok(), is_name(&text));
        prop_assert_eq!(UserName::parse(&text).is_ok(), is_name(&text));
        match TunnelName::parse(&text) {
            Ok(name) => prop_assert_eq!(name.as_str(), &text),
            Err(error) => {
                prop_assert!(text.starts_with(&error.name));
                prop_assert!(error.to_string().chars().all(|c| !c.is_control()));
            }
        }
    }

    #[test]
    fn secrets_come_back_and_differ_by_their_bytes(one in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
        let (first, second) = (SessionToken::from_random(one), SessionToken::from_random(other));
        prop_assert_eq!(first == second, one == other);
        prop_assert_eq!(first.key() == second.key(), one == other);
        let text = first.to_text();
        prop_assert_eq!(&SessionToken::parse(text.expose_secret()).unwrap(), &first);
        let instance = InstanceSecret::from_random(one);
        prop_assert_eq!(&InstanceSecret::parse(text.expose_secret()).unwrap(), &instance);
        let start = &text.expose_secret()[..8];
        let generated = generate_token(one);
        for shown in [format!("{first:?}"), format!("{instance:?}"), format!("{text:?}"), format!("{generated:?}"), format!("{:?}", first.key())] {
            prop_assert!(!shown.contains(start), "{shown}");
        }
    }

    #[test]
    fn no_text_panics_a_parser(text in prop_oneof![".*", "adit_(key|join)_[0-9a-fA-F]{12}_\\PC{40,50}", "[0-9a-fA-F]{60,68}", "\\PC{0,64}"]) {
        let is_secret = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        prop_assert_eq!(SessionToken::parse(&text).is_ok(), is_secret);
        prop_assert_eq!(InstanceSecret::parse(&text).is_ok(), is_secret);
        let _ = AccessKey::parse(&text);
    }
}
