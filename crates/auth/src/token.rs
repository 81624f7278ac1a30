//! Static tokens.

use std::fmt;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::{Authenticator, ClientClaim, Credential, DenialReason, Denied, Grant, UserName, hex};

/// No token is longer. A presented one that is costs no more than one that is not.
pub const MAX_TOKEN_BYTES: usize = 256;

/// A prefix by which scanners of code find a token that was published by mistake, as those of GitHub's own
/// ("Behind GitHub's new authentication token formats", 2021).
const PREFIX: &str = "adit_";

/// A server takes no shorter one. At the rate at which wrong tokens can be presented, some thousands a second, a random
/// one of five characters is found within weeks, and of six within years.
pub const MIN_TOKEN_BYTES: usize = 6;

/// Why a text cannot be a token. Reads after "the token".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// Nothing is there.
    #[error("is empty")]
    Empty,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Most often the end of a line, read from a file along with the token.
    #[error("begins or ends with white space")]
    Surrounded,
    /// Most often two lines.
    #[error("contains a line break or another control character")]
    Control,
}

/// Whether a text can be a token. Blanks inside are fine: a passphrase is one.
///
/// # Errors
/// Why not.
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

/// Why tokens were refused. A token itself is never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenSetError {
    /// Nobody could ever come in.
    #[error("no token is configured: set auth.token, or let the server generate one")]
    NoTokens,
    /// A token that could never be presented.
    #[error("the token of user {user} {problem}")]
    Bad {
        /// Whose it is.
        user: UserName,
        /// What is wrong with it.
        problem: TokenProblem,
    },
    /// A token that can be guessed.
    #[error(
        "the token of user {user} is shorter than {MIN_TOKEN_BYTES} characters: choose a long random one"
    )]
    TooShort {
        /// Whose it is.
        user: UserName,
    },
    /// Nobody could say whose link it is.
    #[error("users {first} and {second} have the same token: generate another for one of them")]
    Shared {
        /// Who came first.
        first: UserName,
        /// Who has it too.
        second: UserName,
    },
}

/// Knows users by their static tokens; a user may have several, so that one can be replaced while both work.
///
/// Only hashes are kept. A fast hash is enough where the token is random: there is nothing to guess. A presented token is
/// hashed at a fixed length and compared with each known one to the end, so that time tells neither how near it came nor
/// what is wrong with it.
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
    /// Takes the tokens and whose they are.
    ///
    /// # Errors
    /// [`TokenSetError`] names the user whose token cannot be.
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

    /// Whose token it is. Looks at every known one, whatever it finds.
    fn owner(&self, presented: &[u8]) -> Option<&UserName> {
        let presented = hash(presented);
        let (mut place, mut found) = (0_u64, u64::MAX);
        for known in &self.known {
            found.conditional_assign(&place, known.hash.ct_eq(&presented));
            place += 1;
        }
        let known = self.known.get(usize::try_from(found).ok()?)?;
        Some(&known.user)
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
            Some(user) => Ok(Grant::for_link(user.clone(), claim.clone())),
            None => Err(Denied::new(otherwise)),
        }
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

/// Hashes the length and a block of fixed size with the token at its beginning: the same work for every token. What lies
/// beyond the block is left out, which confuses no two tokens that can be known, as their lengths are hashed with them.
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

/// A token of fresh random bytes: `adit_` and 64 hexadecimal digits.
#[must_use]
pub fn generate_token(random: [u8; 32]) -> SecretString {
    let mut text = String::with_capacity(PREFIX.len() + 2 * random.len());
    text.push_str(PREFIX);
    hex::append(&mut text, &random);
    text.into()
}
