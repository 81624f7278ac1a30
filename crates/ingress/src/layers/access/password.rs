//! A password of a visitor, as a hash.

use std::fmt;

use argon2::{
    Argon2, Params, PasswordHash as Phc, PasswordHasher, PasswordVerifier,
    password_hash::phc::Output,
};

use crate::layers::layer_error::LayerError;

/// The longest text of a hash.
const LONGEST_TEXT: usize = 512;
/// The shortest password.
const SHORTEST: usize = 8;
/// The longest password: a longer one would be a way to use up time.
const LONGEST: usize = 512;
/// The most memory that a check may take, in KiB, and the most passes and lanes: a hash may be that of another user.
const MOST_MEMORY_KIB: u32 = 64 * 1024;
const MOST_PASSES: u32 = 10;
const MOST_LANES: u32 = 4;

/// The hash of a password, by Argon2, in the form of PHC: `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Phc);

impl PasswordHash {
    /// Reads a hash.
    ///
    /// # Errors
    /// Another form, another function, or a hash whose check would take too much memory or time.
    pub fn parse(text: &str) -> Result<Self, LayerError> {
        let invalid = |problem| LayerError::PasswordHash { problem };
        if text.len() > LONGEST_TEXT {
            return Err(invalid("it is too long"));
        }
        let parsed = Phc::new(text).map_err(|_| invalid("it has another form"))?;
        if !matches!(
            parsed.algorithm.as_str(),
            "argon2id" | "argon2i" | "argon2d"
        ) {
            return Err(invalid("it is of another function"));
        }
        let params =
            Params::try_from(&parsed).map_err(|_| invalid("its parameters are invalid"))?;
        if params.m_cost() > MOST_MEMORY_KIB
            || params.t_cost() > MOST_PASSES
            || params.p_cost() > MOST_LANES
        {
            return Err(invalid(
                "its check would take more than 64 MiB, 10 passes or 4 lanes",
            ));
        }
        let is_long = |hash: &Output| hash.len() >= 16;
        if parsed.salt.is_none() || !parsed.hash.as_ref().is_some_and(is_long) {
            return Err(invalid("it has no salt, or a hash of less than 16 bytes"));
        }
        Ok(Self(parsed))
    }

    /// The hash of a password with a random salt.
    ///
    /// # Errors
    /// The password is shorter than 8 bytes, or longer than 512.
    ///
    /// # Cost
    /// 19 MiB and some 20 ms.
    pub fn random(password: &str) -> Result<Self, LayerError> {
        Self::salted(password, &rand::random::<[u8; 16]>())
    }

    /// The hash of a password with a salt that follows from the user's name: all clients of a group announce the same
    /// hash for the same file.
    ///
    /// # Errors
    /// Those of [`PasswordHash::random`].
    pub fn of_user(user: &str, password: &str) -> Result<Self, LayerError> {
        let salt = blake3::derive_key("adit 2026 basic_auth salt of a user", user.as_bytes());
        let (salt, _) = salt.split_at(16);
        Self::salted(password, salt)
    }

    fn salted(password: &str, salt: &[u8]) -> Result<Self, LayerError> {
        if !(SHORTEST..=LONGEST).contains(&password.len()) {
            return Err(LayerError::Password {
                shortest: SHORTEST,
                longest: LONGEST,
            });
        }
        let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), salt);
        // The default parameters and a salt of 16 bytes are valid.
        hash.map(Self).map_err(|_| LayerError::PasswordHash {
            problem: "it cannot be made",
        })
    }

    /// Whether this is the hash of the password.
    ///
    /// # Cost
    /// That of the parameters of the hash: at most 64 MiB and 10 passes.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        password.len() <= LONGEST && Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// Whether checks of both take the same time.
    pub(super) fn costs_as_much_as(&self, other: &Self) -> bool {
        let params = |hash: &Self| Params::try_from(&hash.0).ok();
        self.0.algorithm == other.0.algorithm
            && self.0.version == other.0.version
            && params(self) == params(other)
    }
}

impl fmt::Display for PasswordHash {
    /// The form of PHC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hash that is cheap to check.
    pub(crate) const CHEAP: &str =
        "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHRzYWx0$wg2bBGqlA+0Vn3DnLRLAxuDIiqTYyOnL5bvHjFFc1U4";

    #[test]
    fn a_hash_is_of_its_password_alone() {
        let hash = PasswordHash::of_user("alice", "correct horse").unwrap();
        assert!(hash.is_of(b"correct horse"));
        assert!(!hash.is_of(b"correct horse "));
        assert!(!hash.is_of(b""));
        let read = PasswordHash::parse(&hash.to_string()).unwrap();
        assert_eq!(read, hash);
        assert_eq!(
            hash,
            PasswordHash::of_user("alice", "correct horse").unwrap()
        );
        assert_ne!(hash, PasswordHash::of_user("bob", "correct horse").unwrap());
        let random = PasswordHash::random("correct horse").unwrap();
        assert!(random != hash && random.is_of(b"correct horse"));
        assert!(!format!("{hash:?}").contains("argon2"));
        for bad in ["short", &"x".repeat(513)] {
            let error = PasswordHash::random(bad).unwrap_err();
            assert!(matches!(error, LayerError::Password { .. }));
        }
    }

    proptest! {
        /// A hash comes from a client: any text is read or rejected, and what is read is bounded.
        #[test]
        fn any_text_is_a_bounded_hash_or_an_error(
            text in r"\$?(argon2(id|i|d)?)?(\$v=[0-9]{1,3})?(\$[mtp]=[0-9]{1,11}(,[mtp]=[0-9]{1,11}){0,4})?(\$[A-Za-z0-9+/]{0,60}){0,3}",
        ) {
            if let Ok(hash) = PasswordHash::parse(&text) {
                let params = Params::try_from(&hash.0).unwrap();
                prop_assert!(params.m_cost() <= MOST_MEMORY_KIB && params.t_cost() <= MOST_PASSES);
                prop_assert!(hash.costs_as_much_as(&hash));
                prop_assert_eq!(PasswordHash::parse(&hash.to_string()), Ok(hash));
            }
        }
    }

    #[test]
    fn costly_and_foreign_hashes_are_rejected() {
        PasswordHash::parse(CHEAP).unwrap();
        for (bad, problem) in [
            ("hunter42hunter42", "another form"),
            ("$2b$12$abcdefghijklmnopqrstuv", "form"),
            (&CHEAP.replace("m=16", "m=4194304"), "64 MiB"),
            (&CHEAP.replace("t=1", "t=11"), "64 MiB"),
            (&CHEAP.replace("m=16,t=1,p=1", "m=64,t=1,p=8"), "64 MiB"),
            (&CHEAP.replace("argon2id", "scrypt"), "another function"),
            ("$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHRzYWx0", "no salt"),
            (&"$argon2id".repeat(100), "too long"),
        ] {
            let error = PasswordHash::parse(bad).unwrap_err().to_string();
            assert!(error.contains(problem), "{bad}: {error}");
            assert!(!error.contains(bad), "{error}");
        }
    }
}
