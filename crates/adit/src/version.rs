//! What `--version` prints.

use std::sync::LazyLock;

/// The version, and the commit where the build was told it, in the variable `ADIT_COMMIT`: a measurement asks for it.
/// Without a build script, which would build anew whenever git changes.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| text(env!("CARGO_PKG_VERSION"), option_env!("ADIT_COMMIT")));
    &TEXT
}

fn text(version: &str, commit: Option<&str>) -> String {
    match commit {
        Some(commit) if !commit.is_empty() => format!("{version} (commit {commit})"),
        _ => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_named_where_it_is_known() {
        assert_eq!(text("1.2.3", Some("abc")), "1.2.3 (commit abc)");
        assert_eq!(text("1.2.3", Some("")), "1.2.3");
        assert_eq!(text("1.2.3", None), "1.2.3");
        assert!(long().starts_with(env!("CARGO_PKG_VERSION")));
    }
}
