//! Static tokens.

use secrecy::{SecretString, zeroize::Zeroizing};

use crate::{
    SecretHash, UserName, hex,
    jwt::{MAX_JWT_BYTES, looks_like_jwt},
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
    /// The token is a JWT, and longer than [`MAX_JWT_BYTES`].
    #[error("is a JWT of more than {MAX_JWT_BYTES} bytes")]
    JwtTooLong,
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

/// Checks what a client presents: a token, a key or a JWT.
///
/// # Errors
/// The first problem.
pub fn check_credential(text: &str) -> Result<(), TokenProblem> {
    if !looks_like_jwt(text) {
        check_token(text)
    } else if text.len() > MAX_JWT_BYTES {
        Err(TokenProblem::JwtTooLong)
    } else {
        Ok(())
    }
}

/// Why a set of tokens cannot be used together. The error never contains a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenSetError {
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
    /// A user has the same token twice, perhaps with different scopes.
    #[error("the same token of user {user} is listed twice: remove one of the entries")]
    Repeated {
        /// The user.
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

/// The hash under which a token is stored. It is of the length and of a block of fixed size that begins with the token: the
/// same work for every token. Longer tokens are cut, and differ from all valid ones by their length.
#[must_use]
pub fn hash_token(token: &str) -> SecretHash {
    let mut block = Zeroizing::new([0; MAX_TOKEN_BYTES]);
    for (to, from) in block.iter_mut().zip(token.as_bytes()) {
        *to = *from;
    }
    let hash = blake3::Hasher::new()
        .update(&token.len().to_le_bytes())
        .update(&block[..])
        .finalize();
    SecretHash::new(*hash.as_bytes())
}

/// A token of these random bytes: `adit_` and 64 hexadecimal digits.
#[must_use]
pub fn generate_token(random: [u8; 32]) -> SecretString {
    let mut text = String::with_capacity(PREFIX.len() + 2 * random.len());
    text.push_str(PREFIX);
    hex::append(&mut text, &random);
    text.into()
}
