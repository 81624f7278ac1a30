//! Reads files that hold secrets: bounded, with a look at their permissions.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use secrecy::zeroize::Zeroizing;

use crate::permissions::check_secret;

/// Reads a whole file of at most `largest` bytes, and warns if other users can read it.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence about it.
pub(crate) fn read(
    path: &Path,
    largest: u64,
    warnings: &mut Vec<String>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let warning = check_secret(path, &metadata).map_err(|error| format!("is refused: {error}"))?;
    warnings.extend(warning);
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(largest + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > largest {
        return Err(format!("is larger than {largest} bytes"));
    }
    Ok(bytes)
}
