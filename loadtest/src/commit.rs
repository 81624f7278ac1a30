//! The commit of the measured programs, as their `--version` prints it: the working tree of the current directory may
//! be at another commit.

use std::path::Path;
use std::process::Command;

/// The commit of a program that does not print one.
pub(crate) const UNKNOWN: &str = "unknown";

/// The commit of this program, which is also the commit of an adit that runs in this process.
pub(crate) fn own() -> String {
    let commit = option_env!("ADIT_COMMIT").filter(|commit| !commit.is_empty());
    commit.unwrap_or(UNKNOWN).to_owned()
}

/// The commits that the programs print; one commit if all print the same.
pub(crate) fn of(programs: &[&Path]) -> String {
    let mut commits: Vec<_> = programs.iter().map(|program| of_program(program)).collect();
    commits.dedup();
    commits.join(", ")
}

fn of_program(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    parse(&text.unwrap_or_default())
        .unwrap_or(UNKNOWN)
        .to_owned()
}

/// Parses a version line such as `adit 0.1.0 (commit abc1234)`.
fn parse(version: &str) -> Option<&str> {
    let (_, behind) = version.split_once("(commit ")?;
    let (commit, _) = behind.split_once(')')?;
    (!commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_the_one_that_the_program_prints() {
        assert_eq!(
            parse("adit-server 0.1.0 (commit abc1234-dirty)\n"),
            Some("abc1234-dirty")
        );
        for text in [
            "",
            "adit 0.1.0",
            "adit 0.1.0 (commit )",
            "adit 0.1.0 (commit abc",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_program_without_a_commit_is_unknown() {
        let (silent, missing) = (Path::new("/bin/true"), Path::new("/nonexistent/adit"));
        assert_eq!(of(&[silent]), UNKNOWN);
        assert_eq!(of(&[missing, silent]), UNKNOWN);
    }
}
