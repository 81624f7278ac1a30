//! Static tokens.

use std::fmt;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::{
    Authenticator, ClientClaim, Credential, CredentialKey, DenialReason, Denied, Grant, UserName,
    hex,
};

/// Length of the longest token. A longer one takes no more time.
pub const MAX_TOKEN_BYTES: usize = 256;

/// A prefix by which scanners of code find tokens that were published by mistake ("Behind GitHub's new authentication
/// token formats", 2021).
const PREFIX: &str = "adit_";

/// Length of the shortest token. At some thousands of tries a second, a random token of five characters is found within
/// weeks, and one of six within years.
pub const MIN_TOKEN_BYTES: usize = 6;

/// Why a text is an invalid token. The text continues "the token".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// The token is empty.
    #[error("is empty")]
    Empty,
    /// The token is longer than [`MAX_TOKEN_BYTES`].
    #[error("is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// The token begins or ends with white space, usually the end of a line of a file.
    #[error("begins or ends with white space")]
    Surrounded,
    /// The token contains a control character, usually because the text has two lines.
    #[error("contains a line break or another control character")]
    Control,
}

/// Checks a token. Blanks inside are allowed, as in a passphrase.
///
/// # Errors
/// The first problem.
pub fn check_token(token: &str) -> Result<(), TokenProblem> {
    if token.is_empty() {
        Err(TokenProblem::Empty)
    } else if token.len() > MAX_TOKEN_BYTES {
        Err(TokenProblem::TooLong)
    } else if token.trim() != token {
        Err(TokenProblem::Surrounded)
    } else if token.contains(char::is_control) {
        Err(TokenProblem::Control)
    } else {
        Ok(())
    }
}

/// Why a set of tokens is invalid. The error never contains a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenSetError {
    /// The set has no tokens.
    #[error("no token is configured: set auth.token, or let the server generate one")]
    NoTokens,
    /// An invalid token.
    #[error("the token of user {user} {problem}")]
    Bad {
        /// The user of the token.
        user: UserName,
        /// What is wrong with the token.
        problem: TokenProblem,
    },
    /// A token that is too short.
    #[error(
        "the token of user {user} is shorter than {MIN_TOKEN_BYTES} characters: choose a long random one"
    )]
    TooShort {
        /// The user of the token.
        user: UserName,
    },
    /// Two users have the same token.
    #[error("users {first} and {second} have the same token: generate another for one of them")]
    Shared {
        /// The first user.
        first: UserName,
        /// The second user.
        second: UserName,
    },
}

/// Authenticates users by static tokens. A user may have several, so that one can be replaced while both work.
///
/// Only hashes are kept. A fast hash is sufficient for random tokens, which cannot be guessed. A presented token is hashed
/// at a fixed length and compared with all known tokens, so that the time reveals nothing about it.
#[derive(Clone)]
pub struct TokenAuthenticator {
    known: Vec<Known>,
}

#[derive(Clone)]
struct Known {
    hash: [u8; 32],
    user: UserName,
}

impl TokenAuthenticator {
    /// An authenticator of these tokens with their users.
    ///
    /// # Errors
    /// [`TokenSetError`] with the user of the invalid token.
    pub fn new(
        tokens: impl IntoIterator<Item = (UserName, SecretString)>,
    ) -> Result<Self, TokenSetError> {
        let mut known: Vec<Known> = Vec::new();
        for (user, token) in tokens {
            let token = token.expose_secret();
            if let Err(problem) = check_token(token) {
                return Err(TokenSetError::Bad { user, problem });
            }
            if token.len() < MIN_TOKEN_BYTES {
                return Err(TokenSetError::TooShort { user });
            }
            let hash = hash(token.as_bytes());
            match known.iter().find(|known| known.hash == hash) {
                Some(other) if other.user == user => {}
                Some(other) => {
                    return Err(TokenSetError::Shared {
                        first: other.user.clone(),
                        second: user,
                    });
                }
                None => known.push(Known { hash, user }),
            }
        }
        if known.is_empty() {
            return Err(TokenSetError::NoTokens);
        }
        Ok(Self { known })
    }

    /// The known token that was presented. Always compares all known tokens.
    fn owner(&self, presented: &[u8]) -> Option<&Known> {
        let presented = hash(presented);
        let (mut place, mut found) = (0_u64, u64::MAX);
        for known in &self.known {
            found.conditional_assign(&place, known.hash.ct_eq(&presented));
            place += 1;
        }
        self.known.get(usize::try_from(found).ok()?)
    }
}

impl Authenticator for TokenAuthenticator {
    fn authenticate(&self, credential: &Credential, claim: &ClientClaim) -> Result<Grant, Denied> {
        let (presented, otherwise) = match credential {
            Credential::None => ("", DenialReason::NoCredential),
            Credential::Token(token) => match token.expose_secret() {
                "" => ("", DenialReason::EmptyToken),
                long if long.len() > MAX_TOKEN_BYTES => (long, DenialReason::TokenTooLong),
                token => (token, DenialReason::UnknownToken),
            },
        };
        match self.owner(presented.as_bytes()) {
            Some(known) => Ok(Grant::earned_by(
                known.user.clone(),
                claim.clone(),
                Some(CredentialKey(known.hash)),
            )),
            None => Err(Denied::new(otherwise)),
        }
    }

    fn is_valid(&self, grant: &Grant) -> bool {
        self.known.iter().any(|known| {
            known.user == *grant.user() && grant.credential() == Some(CredentialKey(known.hash))
        })
    }
}

impl fmt::Debug for TokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenAuthenticator ")?;
        f.debug_set()
            .entries(self.known.iter().map(|known| &known.user))
            .finish()
    }
}

/// Hashes the length and a block of fixed size that begins with the token: the same work for every token. Longer tokens
/// are cut, and differ from all valid ones by their length.
fn hash(token: &[u8]) -> [u8; 32] {
    let mut block = Zeroizing::new([0; MAX_TOKEN_BYTES]);
    for (to, from) in block.iter_mut().zip(token) {
        *to = *from;
    }
    *blake3::Hasher::new()
        .update(&token.len().to_le_bytes())
        .update(&block[..])
        .finalize()
        .as_bytes()
}

/// A token of these random bytes: `adit_` and 64 hexadecimal digits.
#[must_use]
pub fn generate_token(random: [u8; 32]) -> SecretString {
    let mut text = String::with_capacity(PREFIX.len() + 2 * random.len());
    text.push_str(PREFIX);
    hex::append(&mut text, &random);
    text.into()
}
