//! Tokens from any source: white space around a token is not part of it, and errors do not show the token.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use adit_auth::{MAX_TOKEN_BYTES, check_token};
use secrecy::{SecretString, zeroize::Zeroizing};

use crate::permissions::check_secret;

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
    let text = read(path, warnings)
        .map_err(|error| format!("the token file {} {error}", path.display()))?;
    good(&text).map_err(|problem| format!("{problem}, in the file {}", path.display()))
}

fn read(path: &Path, warnings: &mut Vec<String>) -> Result<Zeroizing<String>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let warning = check_secret(path, &metadata).map_err(|error| format!("is refused: {error}"))?;
    warnings.extend(warning);
    let mut text = Zeroizing::new(String::new());
    file.take(LARGEST_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > LARGEST_FILE_BYTES {
        return Err(format!("is larger than {LARGEST_FILE_BYTES} bytes"));
    }
    Ok(text)
}
