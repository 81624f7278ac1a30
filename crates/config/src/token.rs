//! Tokens that stand in files of their own.

use std::{fs, path::Path};

use secrecy::SecretString;

use crate::{error::ConfigError, read::Item};

/// Reads the file that `item` names. The end of the line is no part of a token.
pub(crate) fn read(item: &Item<'_>, path: &Path) -> Result<SecretString, ConfigError> {
    read_path(path).map_err(|message| item.error(message))
}

/// As [`read`], for a file that a flag names.
pub(crate) fn read_path(path: &Path) -> Result<SecretString, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!("the token file {} is empty", path.display()));
    }
    Ok(token.to_owned().into())
}
