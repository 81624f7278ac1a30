//! Compares a result with the expected one.

/// Returns an error that states the difference.
pub(super) fn same(what: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?} instead of {expected:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        assert_eq!(same("body", "a", "a"), Ok(()));
        assert_eq!(
            same("body", "a", "b"),
            Err(r#"body: "a" instead of "b""#.into())
        );
    }
}
