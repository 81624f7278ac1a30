//! A program under test: started, watched and ended by this one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How often readiness is looked for.
const POLL: Duration = Duration::from_millis(5);

/// How long a program may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a program may take to end after SIGTERM: longer than any drain.
const END_WITHIN: Duration = Duration::from_secs(60);

/// How much of a program's log an error shows.
const LOG_TAIL_LINES: usize = 12;

/// A running program whose output goes to files. Dropped, it is killed.
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
        /// Why.
        source: io::Error,
    },
    /// Files for it could not be written or read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended although it should run.
    #[error("{name} ended by itself ({status}); its last output:\n{tail}")]
    Ended {
        /// Which program.
        name: &'static str,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        tail: String,
    },
    /// It runs, but what was waited for did not come.
    #[error("{name}: no {what} within {within:?}; its last output:\n{tail}")]
    NotReady {
        /// Which program.
        name: &'static str,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        within: Duration,
        /// The end of its log.
        tail: String,
    },
}

impl Process {
    /// Starts `program` with `arguments`; its output goes to files in `dir`.
    ///
    /// # Errors
    /// [`ProcessError::Spawn`], [`ProcessError::File`].
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
            // Every program logs as it does by default, whatever the caller's
            // shell says.
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
        // A child that was never awaited has its id.
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

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The first line it wrote on stdout, once it is whole.
    pub(crate) fn first_line(&self) -> Option<String> {
        let text = fs::read_to_string(&self.out).ok()?;
        text.split_once('\n').map(|(line, _)| line.to_owned())
    }

    /// # Errors
    /// [`ProcessError::Ended`] if it no longer runs.
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

    /// Calls `ready` again and again until it returns something.
    ///
    /// # Errors
    /// [`ProcessError::NotReady`] after a while, [`ProcessError::Ended`] as
    /// soon as the program does.
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

    /// Sends SIGTERM and waits until it has ended.
    ///
    /// # Errors
    /// [`ProcessError::Spawn`] if the signal cannot be sent, [`ProcessError::NotReady`] if it does not end in time.
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

    /// Kills it and waits until it is gone.
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
