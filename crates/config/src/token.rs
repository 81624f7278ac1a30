//! Tokens from any source: white space around a token is not part of it, and errors do not show the token.

use std::path::Path;

use adit_auth::{MAX_TOKEN_BYTES, check_token};
use secrecy::SecretString;

use crate::secret_file;

/// The bound of a token file: room for a token and the white space around it. A longer file was given by mistake, or is
/// endless.
const LARGEST_FILE_BYTES: u64 = 16 * MAX_TOKEN_BYTES as u64;

/// Extracts the token from a text.
///
/// # Errors
/// The error, and the expected form.
pub(crate) fn good(text: &str) -> Result<SecretString, String> {
    let token = text.trim();
    check_token(token)
        .map(|()| token.to_owned().into())
        .map_err(|problem| {
            format!(
                "the token {problem}, expected one line of text of at most {MAX_TOKEN_BYTES} bytes"
            )
        })
}

/// Reads the token from a file, and warns if other users can read the file.
///
/// # Errors
/// The error of the file or the token.
pub(crate) fn read_file(path: &Path, warnings: &mut Vec<String>) -> Result<SecretString, String> {
    let refused = |problem: String| format!("the token file {} {problem}", path.display());
    let bytes = secret_file::read(path, LARGEST_FILE_BYTES, warnings).map_err(refused)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| refused("cannot be read: it is not valid UTF-8".to_owned()))?;
    good(text).map_err(|problem| format!("{problem}, in the file {}", path.display()))
}
