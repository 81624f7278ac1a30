//! A program under test, which this program starts, watches and stops.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The interval at which readiness is checked.
const POLL: Duration = Duration::from_millis(5);

/// The time within which a program must be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// The time within which a program must end after SIGTERM: longer than any drain.
const END_WITHIN: Duration = Duration::from_secs(60);

/// The number of log lines that an error shows.
const LOG_TAIL_LINES: usize = 12;

/// A running program whose output is written to files. Dropping it kills the program.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    pid: u32,
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

/// A program could not be started, did not get ready, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The program was not found.
    #[error("cannot start {program}: {source}; run loadtest/compare, which builds what is needed", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The files of the program could not be written or read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The program ended unexpectedly.
    #[error("{name} ended by itself ({status}); its last output:\n{tail}")]
    Ended {
        /// The name of the program.
        name: &'static str,
        /// The exit status of the program.
        status: ExitStatus,
        /// The end of the program's log.
        tail: String,
    },
    /// The program runs, but did not reach the awaited state.
    #[error("{name}: no {what} within {within:?}; its last output:\n{tail}")]
    NotReady {
        /// The name of the program.
        name: &'static str,
        /// The awaited state.
        what: &'static str,
        /// The time limit.
        within: Duration,
        /// The end of the program's log.
        tail: String,
    },
}

impl Process {
    /// Starts `program` with `arguments`; its output is written to files in `dir`.
    ///
    /// # Errors
    /// Returns [`ProcessError::Spawn`] or [`ProcessError::File`].
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &Path)],
        dir: &Path,
    ) -> Result<Self, ProcessError> {
        let create = |path: PathBuf| match File::create(&path) {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(ProcessError::File { path, source }),
        };
        let (out, out_file) = create(dir.join(format!("{name}.out")))?;
        let (log, log_file) = create(dir.join(format!("{name}.log")))?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            // Every program uses its default log settings, independently of the caller's environment.
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(out_file)
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ProcessError::Spawn {
                program: program.to_owned(),
                source,
            })?;
        // A child that has not been awaited has an id.
        let pid = child.id().unwrap_or_default();
        Ok(Self {
            name,
            pid,
            child,
            out,
            log,
        })
    }

    /// The program's name in this comparison.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The process id of the program.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The first line on the program's stdout, once the line is complete.
    pub(crate) fn first_line(&self) -> Option<String> {
        let text = fs::read_to_string(&self.out).ok()?;
        text.split_once('\n').map(|(line, _)| line.to_owned())
    }

    /// # Errors
    ///
    /// Returns [`ProcessError::Ended`] if the program has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(ProcessError::Ended {
                name: self.name,
                status,
                tail: self.tail(),
            }),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Calls `ready` repeatedly until it returns a value.
    ///
    /// # Errors
    /// Returns [`ProcessError::NotReady`] after the time limit, and [`ProcessError::Ended`] as soon as the program
    /// ends.
    pub(crate) async fn until<T>(
        &mut self,
        what: &'static str,
        mut ready: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let begun = Instant::now();
        loop {
            if let Some(value) = ready(self).await {
                return Ok(value);
            }
            self.check_running()?;
            if begun.elapsed() > READY_WITHIN {
                let (name, within, tail) = (self.name, READY_WITHIN, self.tail());
                return Err(ProcessError::NotReady {
                    name,
                    what,
                    within,
                    tail,
                });
            }
            sleep(POLL).await;
        }
    }

    /// Sends SIGTERM and waits until the program has ended.
    ///
    /// # Errors
    /// Returns [`ProcessError::Spawn`] if the signal cannot be sent, and [`ProcessError::NotReady`] if the program does
    /// not end in time.
    pub(crate) async fn terminate(mut self) -> Result<(), ProcessError> {
        let sent = Command::new("kill")
            .args(["-TERM", &self.pid.to_string()])
            .status()
            .await;
        if let Err(source) = sent {
            return Err(ProcessError::Spawn {
                program: "kill".into(),
                source,
            });
        }
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            let (name, tail) = (self.name, self.tail());
            return Err(ProcessError::NotReady {
                name,
                what: "end after SIGTERM",
                within: END_WITHIN,
                tail,
            });
        }
        Ok(())
    }

    /// Kills the program and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        let _ = self.child.kill().await;
    }

    fn tail(&self) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let text = read(&self.out) + &read(&self.log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Process {
        Process::start("shell", Path::new("/bin/sh"), &["-c", script], &[], dir).unwrap()
    }

    #[tokio::test]
    async fn readiness_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(
            dir.path(),
            "printf half; sleep 0.05; echo line; exec sleep 60",
        );
        let line = process
            .until("line", async |process| process.first_line())
            .await
            .unwrap();
        assert_eq!(line, "halfline");
        let pid = process.pid();
        process.stop().await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn an_ended_program_is_an_error_with_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(dir.path(), "echo no port left >&2; exit 3");
        let error = process
            .until("line", async |process| process.first_line())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ProcessError::Ended { status, .. } if status.code() == Some(3)),
            "{error}"
        );
        assert!(error.to_string().contains("no port left"));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            Process::start("x", Path::new("/no/such/program"), &[], &[], dir.path()).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
