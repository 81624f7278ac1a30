//! Users with passwords (RFC 7617).

use std::fmt;

use adit_link::Reason;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::{
    forward::{denial::Denial, headers::retain, reserved::USER},
    layers::{
        access::{opinion::Opinion, password::PasswordHash},
        layer_error::{LayerError, start_of},
    },
};

/// Users of one layer.
const MOST_USERS: usize = 100;
/// Different parameters of the hashes of one layer: a check takes the time of all of them.
const MOST_PARAMETERS: usize = 4;
/// The longest name of a user, and the longest realm.
const LONGEST_NAME: usize = 128;
/// The longest credentials in base64.
const LONGEST_CREDENTIALS: usize = 2 * 1024;

/// Users with passwords: a visitor has to be one of them (P-15.6).
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    users: Vec<(String, PasswordHash)>,
    /// A hash for each of the different parameters of the users' hashes.
    decoys: Vec<PasswordHash>,
    realm: String,
    keep: bool,
}

impl BasicAuth {
    /// The realm without a configured one.
    pub const REALM: &str = "restricted";

    /// Users in a realm, which browsers show. With `keep` the service receives the credentials.
    ///
    /// # Errors
    /// No users, or too many; an invalid name or realm; a name twice; hashes with too many different parameters.
    pub fn new(
        users: Vec<(String, PasswordHash)>,
        realm: &str,
        keep: bool,
    ) -> Result<Self, LayerError> {
        if !(1..=MOST_USERS).contains(&users.len()) {
            return Err(LayerError::Users { most: MOST_USERS });
        }
        let is_name = |name: &str| {
            let is_part = |char: char| !char.is_control() && char != ':';
            !name.is_empty()
                && name.len() <= LONGEST_NAME
                && name.trim().len() == name.len()
                && name.chars().all(is_part)
        };
        for (at, (name, _)) in users.iter().enumerate() {
            let mut earlier = users.iter().take(at);
            if !is_name(name) || earlier.any(|(other, _)| other == name) {
                let name = start_of(name.as_bytes());
                return Err(LayerError::User { name });
            }
        }
        let mut decoys: Vec<PasswordHash> = Vec::new();
        for (_, hash) in &users {
            if !decoys.iter().any(|decoy| decoy.costs_as_much_as(hash)) {
                decoys.push(hash.clone());
            }
        }
        if decoys.len() > MOST_PARAMETERS {
            let most = MOST_PARAMETERS;
            return Err(LayerError::Parameters { most });
        }
        let is_part = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if realm.len() > LONGEST_NAME || !realm.bytes().all(is_part) {
            let realm = start_of(realm.as_bytes());
            return Err(LayerError::Realm { realm });
        }
        Ok(Self {
            users,
            decoys,
            realm: realm.to_owned(),
            keep,
        })
    }

    /// Names and hashes.
    pub fn users(&self) -> &[(String, PasswordHash)] {
        &self.users
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether the service receives the credentials.
    pub const fn keeps(&self) -> bool {
        self.keep
    }

    /// The check of a password: that of a known user, or one that fails. Both take the same time, for every user: one check
    /// for each of the different parameters of the hashes.
    pub(super) fn check(&self, user: &[u8]) -> Check {
        let known = self.users.iter().find(|(name, _)| name.as_bytes() == user);
        let known = known.map(|(_, hash)| hash);
        let hashes = self.decoys.iter().map(|decoy| {
            let of_user = known.filter(|hash| hash.costs_as_much_as(decoy));
            (of_user.unwrap_or(decoy).clone(), of_user.is_some())
        });
        Check(hashes.collect())
    }

    /// Changes the request of a verified user: the service receives the name, and no credentials.
    pub(super) fn admit(&self, user: &[u8], headers: &mut HeaderMap) {
        self.remove_credentials(headers);
        if let Ok(user) = HeaderValue::from_bytes(user) {
            headers.insert(USER, user);
        }
    }

    /// Removes credentials of this scheme.
    pub(super) fn remove_credentials(&self, headers: &mut HeaderMap) {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        if !self.keep && lines.any(|line| scheme_of(line).is_some()) {
            retain(headers, |name| *name != AUTHORIZATION);
        }
    }

    /// The opinion about a visitor whose credentials are missing, or wrong.
    pub(super) fn unproven(&self, is_wrong: bool) -> Opinion {
        let detail = if is_wrong {
            "wrong user name or password"
        } else {
            "authentication is required"
        };
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm);
        let mut denial = Denial::new(Reason::UnauthenticatedVisitor, detail);
        // A realm of visible ASCII is always a valid value.
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            denial = denial.with_challenge(challenge);
        }
        Opinion::unproven(if is_wrong {
            denial
        } else {
            denial.without_ban()
        })
    }
}

/// The check of one password: hashes, and which of them is that of the user.
pub(super) struct Check(Vec<(PasswordHash, bool)>);

impl Check {
    /// Whether the password is that of the user.
    pub(super) fn run(&self, password: &[u8]) -> bool {
        let check = |is_right, (hash, is_of_user): &(PasswordHash, bool)| {
            (hash.is_of(password) & *is_of_user) | is_right
        };
        self.0.iter().fold(false, check)
    }
}

/// User and password of a visitor.
pub(super) struct Credentials {
    decoded: Vec<u8>,
    colon: usize,
}

impl Credentials {
    /// Reads the one line of `authorization`; `None` if it is missing or malformed.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let encoded = scheme_of(line)?;
        if encoded.len() > LONGEST_CREDENTIALS {
            return None;
        }
        let decoded = STANDARD.decode(encoded).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Some(Self { decoded, colon })
    }

    pub(super) fn user(&self) -> &[u8] {
        self.decoded.get(..self.colon).unwrap_or_default()
    }

    pub(super) fn password(&self) -> &[u8] {
        self.decoded.get(self.colon + 1..).unwrap_or_default()
    }
}

/// The credentials behind the scheme `Basic`.
fn scheme_of(line: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = line.as_bytes().split_at_checked(6)?;
    scheme
        .eq_ignore_ascii_case(b"basic ")
        .then(|| rest.trim_ascii())
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.users.iter().map(|(name, _)| name).collect();
        f.debug_struct("BasicAuth")
            .field("users", &names)
            .field("realm", &self.realm)
            .field("keep", &self.keep)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layers::access::password::tests::CHEAP;

    fn parsed(line: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, line.parse().unwrap());
        let read = Credentials::of(&headers)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Some((text(read.user()), text(read.password())))
    }

    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let line = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parsed(&line("alice:a:b")), pair("alice", "a:b"));
        assert_eq!(parsed(&line("jürgen:")), pair("jürgen", ""));
        assert_eq!(
            parsed(&line("x:y").replace("Basic", "bAsIc")),
            pair("x", "y")
        );
        assert_eq!(parsed(&line("no colon")), None);
        assert_eq!(parsed("Basic"), None);
        assert_eq!(parsed("Basic ???"), None);
        assert_eq!(parsed("Bearer YTpi"), None);
        assert_eq!(parsed(&line(&"x:".repeat(2_000))), None);
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, line("a:b").parse().unwrap());
        twice.append(AUTHORIZATION, line("a:b").parse().unwrap());
        assert!(Credentials::of(&twice).is_none());
    }

    proptest! {
        #[test]
        fn any_line_has_credentials_or_none(
            scheme in "[Bb]asic ?|Basic|Bearer ", rest in prop::collection::vec(32_u8.., 0..80),
        ) {
            let line = [scheme.as_bytes(), &rest].concat();
            if let Ok(line) = HeaderValue::from_bytes(&line) {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, line)]);
                if let Some(read) = Credentials::of(&headers) {
                    prop_assert!(!read.user().contains(&b':'));
                    prop_assert_eq!(read.user().len() + 1 + read.password().len(), read.decoded.len());
                }
            }
        }
    }

    #[test]
    fn names_and_realms_are_bounded() {
        let hash = PasswordHash::of_user("a", "password").unwrap();
        let make = |names: &[&str], realm: &str| {
            let users = names.iter().map(|name| ((*name).to_owned(), hash.clone()));
            BasicAuth::new(users.collect(), realm, false)
        };
        let good = make(&["a", "jürgen"], "the office").unwrap();
        assert!(!format!("{good:?}").contains("argon2"));
        for names in [
            &[][..],
            &[""],
            &["a:b"],
            &["a", "a"],
            &["a\n"],
            &[" a"],
            &[&*"a".repeat(129)],
        ] {
            make(names, "").unwrap_err();
        }
        make(&["a"], "a \"b\"").unwrap_err();
        make(&["a"; 101], "").unwrap_err();
    }

    #[test]
    fn an_unknown_user_costs_a_check_and_fails() {
        let hash = PasswordHash::of_user("a", "password").unwrap();
        let basic = BasicAuth::new(vec![("a".to_owned(), hash)], "", false).unwrap();
        assert!(basic.check(b"a").run(b"password"));
        let unknown = basic.check(b"b");
        assert!(unknown.0.len() == 1 && !unknown.run(b"password"));
    }

    /// Otherwise a user whose hash is cheaper than that of another is answered sooner than an unknown one.
    #[test]
    fn p_15_6_users_with_different_parameters_cost_the_same() {
        let hash = |cost: &str| {
            let text = CHEAP.replace("m=16,t=1", cost);
            PasswordHash::parse(&text).unwrap()
        };
        let user = |(number, hash): (usize, PasswordHash)| (format!("user {number}"), hash);
        let users = |hashes: Vec<PasswordHash>| -> Vec<_> {
            hashes.into_iter().enumerate().map(user).collect()
        };
        let own = PasswordHash::of_user("alice", "correct horse").unwrap();
        let mut all = users(vec![hash("m=16,t=1"), hash("m=16,t=2"), hash("m=16,t=1")]);
        all.push(("alice".to_owned(), own));
        let basic = BasicAuth::new(all, "", false).unwrap();
        let costs = |user: &str| {
            let Check(hashes) = basic.check(user.as_bytes());
            let known = hashes.iter().filter(|(_, is_of_user)| *is_of_user).count();
            let same = { hashes.iter().zip(&basic.decoys) }
                .all(|((hash, _), decoy)| hash.costs_as_much_as(decoy));
            (hashes.len(), same, known)
        };
        for user in ["user 0", "user 1", "user 2", "alice"] {
            assert_eq!(costs(user), (3, true, 1), "{user}");
        }
        assert_eq!(costs("nobody"), (3, true, 0));
        assert!(basic.check(b"alice").run(b"correct horse"));
        assert!(!basic.check(b"user 0").run(b"correct horse"));
        let many = (1..=5).map(|passes| hash(&format!("m=16,t={passes}")));
        let error = BasicAuth::new(users(many.collect()), "", false).unwrap_err();
        assert_eq!(error, LayerError::Parameters { most: 4 });
    }
}
