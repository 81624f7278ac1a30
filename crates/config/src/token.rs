//! Tokens from any source: white space around a token is not part of it, and errors do not show the token.

use std::path::Path;

use adit_auth::{MAX_JWT_BYTES, MAX_TOKEN_BYTES, TokenProblem, check_credential, check_token};
use secrecy::SecretString;

use crate::secret_file;

/// The bound of a token file: room for a token or a JWT and the white space around it. A longer file was given by mistake, or
/// is endless.
const LARGEST_FILE_BYTES: u64 = 4096;
const _: () = assert!(MAX_JWT_BYTES as u64 + 1024 <= LARGEST_FILE_BYTES);

/// Extracts a token that a server accepts from a text.
///
/// # Errors
/// The error, and the expected form.
pub(crate) fn good(text: &str) -> Result<SecretString, String> {
    checked(text, check_token)
}

/// Extracts what a client presents from a text: a token, a key or a JWT.
///
/// # Errors
/// The error, and the expected form.
pub(crate) fn presented(text: &str) -> Result<SecretString, String> {
    checked(text, check_credential)
}

fn checked(
    text: &str,
    check: fn(&str) -> Result<(), TokenProblem>,
) -> Result<SecretString, String> {
    let token = text.trim();
    match check(token) {
        Ok(()) => Ok(token.to_owned().into()),
        Err(problem @ TokenProblem::JwtTooLong) => Err(format!("the token {problem}")),
        Err(problem) => Err(format!(
            "the token {problem}, expected one line of text of at most {MAX_TOKEN_BYTES} bytes"
        )),
    }
}

/// Reads a token that a server accepts from a file, and warns if other users can read the file.
///
/// # Errors
/// The error of the file or the token.
pub(crate) fn read_file(path: &Path, warnings: &mut Vec<String>) -> Result<SecretString, String> {
    read(path, good, warnings)
}

/// Reads what a client presents from a file, and warns if other users can read the file.
///
/// # Errors
/// The error of the file or the token.
pub(crate) fn read_presented(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<SecretString, String> {
    read(path, presented, warnings)
}

fn read(
    path: &Path,
    extract: fn(&str) -> Result<SecretString, String>,
    warnings: &mut Vec<String>,
) -> Result<SecretString, String> {
    let refused = |problem: String| format!("the token file {} {problem}", path.display());
    let bytes = secret_file::read(path, LARGEST_FILE_BYTES, warnings).map_err(refused)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| refused("cannot be read: it is not valid UTF-8".to_owned()))?;
    extract(text).map_err(|problem| format!("{problem}, in the file {}", path.display()))
}
