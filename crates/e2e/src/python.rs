//! Programs in Python: libraries of another language as clients, services and visitors.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Process, run_program};

/// Time limit: the scripts import a gRPC library, which takes some time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The workspace's directory.
///
/// # Panics
/// Panics when the directory does not exist.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace")
}

/// The interpreter in `ADIT_PYTHON`, or `target/python/bin/python`, which `ci/test` creates.
///
/// # Panics
/// Panics when the interpreter does not exist.
#[must_use]
pub fn interpreter() -> PathBuf {
    let python = match std::env::var_os("ADIT_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => workspace().join("target/python/bin/python"),
    };
    assert!(
        python.is_file(),
        "{} is not there; make it with `. ci/tools; need_python` in the workspace, or name one with the same packages in \
         ADIT_PYTHON",
        python.display()
    );
    python
}

/// The path of a script.
#[must_use]
pub fn script(name: &str) -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name);
    place.display().to_string()
}

/// A service in Python. Killed when dropped.
#[derive(Debug)]
pub struct PythonService {
    process: Process,
    /// The address of the service.
    pub addr: SocketAddr,
    dir: TempDir,
}

impl PythonService {
    /// Starts a script that prints its port on the first line.
    ///
    /// # Panics
    /// Panics when the script prints no port.
    pub async fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut process = Process::spawn(name, &interpreter(), &[script(name)], &[], dir.path());
        let port = process.first_line().await.parse().expect("a port");
        Self {
            process,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            dir,
        }
    }

    /// The process of the service.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The directory with the files of the service.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Runs a script that visits `addr` with the host `host` and prints a line for each check that succeeded.
///
/// # Panics
/// Panics when a check fails.
pub async fn visit(name: &str, addr: SocketAddr, host: &str, checks: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let (script, addr) = (script(name), addr.to_string());
    let mut args = vec![script.as_str(), &addr, host];
    args.extend(checks);
    let run = run_program(&interpreter(), &args, &[], dir.path(), PATIENCE).await;
    assert_eq!(run.code, Some(0), "{}\n{}", run.stdout, run.stderr);
    run.stdout.lines().map(str::to_owned).collect()
}
