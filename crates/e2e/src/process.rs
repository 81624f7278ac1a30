//! A child process that does not outlive its test.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::eventually;

/// A script that raises the limit of descriptors to the maximum, or sets it to `TEST_DESCRIPTORS`, and the soft limit
/// to `TEST_SOFT_DESCRIPTORS`. It then executes the program, so that the program has the pid of the script.
const WITH_DESCRIPTORS: &str = r#"ulimit -n "${TEST_DESCRIPTORS:-65536}" 2>/dev/null || ulimit -n "$(ulimit -H -n)"
[ -z "$TEST_SOFT_DESCRIPTORS" ] || ulimit -S -n "$TEST_SOFT_DESCRIPTORS"
exec "$0" "$@""#;

/// Lines of standard error that a failed test shows.
const SHOWN_LINES: usize = 60;

/// The time that a process may need for a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running child. Killed when dropped; then, if the test has failed, the end of its output is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `program` with exactly the environment `env`; its output is written to files in `logs`.
    ///
    /// # Panics
    /// Panics when the program cannot be started.
    #[must_use]
    pub fn spawn<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: &[A],
        env: &[(String, String)],
        logs: &Path,
    ) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let out = logs.join(format!("{name}.{number}.out"));
        let err = logs.join(format!("{name}.{number}.err"));
        let child = Command::new("sh")
            .args(["-c", WITH_DESCRIPTORS])
            .arg(program)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", logs)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a log file"))
            .stderr(File::create(&err).expect("a log file"))
            .spawn()
            .expect("a child process");
        Self {
            name: name.to_owned(),
            child,
            out,
            err,
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The standard output of the process so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// The standard error of the process so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// The first complete line of the process's output.
    ///
    /// # Panics
    /// Panics when the process ends without a line, or prints nothing.
    pub async fn first_line(&mut self) -> String {
        eventually("a first line of output", PATIENCE, async || {
            let text = self.stdout();
            match text.split_once('\n') {
                Some((line, _)) => Some(line.to_owned()),
                None => {
                    self.assert_running();
                    None
                }
            }
        })
        .await
    }

    /// # Panics
    /// Panics when the process has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("{} has ended: {status}\n{}", self.name, self.stderr());
        }
    }

    /// Whether the process has ended.
    ///
    /// # Panics
    /// Never panics for a process that was started here.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Kills the process, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM to the process.
    ///
    /// # Panics
    /// Panics when the signal cannot be sent.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal to the process, by the name of the signal.
    ///
    /// # Panics
    /// Panics when the signal cannot be sent.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.pid())])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal}");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// Panics when the process does not end within `within`.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, within, async || {
            self.child.try_wait().expect("a child")
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let (out, err) = (self.stdout(), self.stderr());
            let lines: Vec<_> = err.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!(
                "---- output of {}\n{out}---- its log\n{}\n",
                self.name,
                shown.join("\n")
            );
        }
    }
}

/// The result of a command that ended by itself.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a binary to its end.
///
/// # Panics
/// Panics when the binary does not end in time.
pub async fn run(name: &str, args: &[&str], env: &[(&str, &str)], dir: &Path) -> Run {
    run_program(&crate::binary(name), args, env, dir, PATIENCE).await
}

/// Runs a program to its end.
///
/// # Panics
/// Panics when the program does not end within `within`.
pub async fn run_program(
    program: &Path,
    args: &[&str],
    env: &[(&str, &str)],
    dir: &Path,
    within: Duration,
) -> Run {
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut process = Process::spawn(&name, program, args, &env, dir);
    let status = process.exit(within).await;
    Run {
        code: status.code(),
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}
