//! The output of `--version`.

use std::sync::LazyLock;

/// The version, and the commit from the variable `ADIT_COMMIT` at build time, or else `unknown`. Reports of
/// measurements contain it. A build script would be run again at each change in git.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| text(env!("CARGO_PKG_VERSION"), option_env!("ADIT_COMMIT")));
    &TEXT
}

fn text(version: &str, commit: Option<&str>) -> String {
    let commit = commit.filter(|commit| !commit.is_empty());
    format!("{version} (commit {})", commit.unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_names_the_commit_or_unknown() {
        assert_eq!(text("1.2.3", Some("abc")), "1.2.3 (commit abc)");
        assert_eq!(text("1.2.3", Some("")), "1.2.3 (commit unknown)");
        assert_eq!(text("1.2.3", None), "1.2.3 (commit unknown)");
        assert!(long().starts_with(env!("CARGO_PKG_VERSION")));
    }
}
