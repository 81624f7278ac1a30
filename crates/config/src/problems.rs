//! Collects all errors of a configuration, not only the first.
//!
//! Reading stops at the first error, which keeps every reader simple. To find the next one, the rejected value is
//! removed from the tree and the tree is read again. An error that is only caused by the removed value is not reported.

use crate::{
    document::Node,
    error::{ConfigError, Kind, Origin},
};

/// The most errors that are reported at a time.
const MOST: usize = 20;

/// Each reading costs as much as a start does, so that a file with very many errors is not read to its end.
const MOST_READINGS: usize = 4 * MOST;

/// Reads a tree. `found` are the errors so far.
///
/// # Errors
/// All errors, up to a bound, in the order of the file.
pub(crate) fn read_all<T>(
    mut root: Node,
    mut found: Vec<ConfigError>,
    read: impl Fn(&Node) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let mut refused: Vec<Refused> = Vec::new();
    for _ in 0..MOST_READINGS {
        let error = match read(&root) {
            Ok(value) if found.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let (kind, path) = (error.kind(), error.key().to_owned());
        if !follows(kind, &path, &refused) && (found.is_empty() || !is_last(kind)) {
            found.push(error);
        }
        if found.len() >= MOST || path.is_empty() || !root.refuse(&path) {
            break;
        }
        refused.push(Refused { kind, path });
    }
    let most = found.len() >= MOST;
    found.sort_by_key(|error| match *error.origin() {
        Origin::File { line, column, .. } => (0, line, column),
        _ => (1, 0, 0),
    });
    let mut found = found.into_iter();
    let first = found.next();
    let mut others: Vec<_> = found.collect();
    if most {
        let message = format!("only {MOST} errors are shown, there may be more");
        others.push(ConfigError::new(Origin::Default, "", message));
    }
    Err(first.unwrap_or_else(unread).with_others(others))
}

struct Refused {
    kind: Kind,
    path: String,
}

/// Whether the error may only be caused by a removed value.
fn follows(kind: Kind, path: &str, refused: &[Refused]) -> bool {
    match kind {
        Kind::Value | Kind::Unknown | Kind::Lacking | Kind::NoServer => false,
        Kind::Missing => refused.iter().any(|refused| {
            let rest = refused.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.starts_with(['.', '[']))
        }),
        Kind::Together => refused.iter().any(|refused| {
            refused.kind != Kind::Unknown || section(&refused.path) == section(path)
        }),
    }
}

/// Whether the error is reported only without others.
fn is_last(kind: Kind) -> bool {
    matches!(kind, Kind::Lacking | Kind::NoServer)
}

/// The section of a key.
fn section(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(section, _)| section)
}

/// The error of a case that cannot occur: reading without an error returns a value.
fn unread() -> ConfigError {
    ConfigError::new(Origin::Default, "", "the configuration cannot be read")
}
