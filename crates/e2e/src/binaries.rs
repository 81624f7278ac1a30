//! Finds the binaries of the workspace.

use std::path::PathBuf;

/// The path of a binary of this workspace, built with the profile of the running test.
///
/// # Panics
/// Panics when the binary has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    // The test is target/PROFILE/deps/TEST, and the binaries are in target/PROFILE.
    let profile = test.parent().and_then(|deps| deps.parent());
    let path = profile.expect("a target directory").join(name);
    assert!(
        path.is_file(),
        "{} does not exist; build it first: `cargo build --profile ci --workspace --all-targets`, \
         then run the tests with the same profile",
        path.display()
    );
    path
}
