//! Counts the system calls of running processes with `strace -c`.
//!
//! Tracing makes a process several times slower, so calls are counted in a separate run whose speed is not used.
//! Tracing also changes how much work accumulates between two calls: the count shows batching, and is not a measure of
//! cost.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::generator::RunError;

/// How long strace may take to attach, and how long it may take to write its summary.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running strace of one process.
#[derive(Debug)]
pub(crate) struct Strace {
    child: Child,
    summary: PathBuf,
}

/// The calls could not be counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StraceError {
    /// strace could not be run.
    #[error("cannot run strace: {0}; install it, or leave --strace out")]
    Run(#[from] std::io::Error),
    /// strace is not permitted to trace, or the process has ended.
    #[error("strace could not attach: {0}")]
    Attach(String),
    /// strace wrote no valid summary.
    #[error("strace wrote no summary")]
    NoSummary,
    /// The load could not be sent.
    #[error(transparent)]
    Load(#[from] RunError),
}

impl Strace {
    /// Attaches to all threads of `pid`; the count has started when the function returns.
    ///
    /// # Errors
    /// Returns a [`StraceError`] when the calls cannot be counted.
    pub(crate) async fn attach(pid: u32, dir: &Path) -> Result<Self, StraceError> {
        let summary = dir.join(format!("strace-{pid}"));
        let mut child = Command::new("strace")
            .args(["-c", "-f", "-o"])
            .arg(&summary)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut output = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let mut buffer = [0; 1_024];
            let attached = timeout(PATIENCE, async {
                while !output.contains(" attached") {
                    let read = stderr.read(&mut buffer).await?;
                    if read == 0 {
                        break;
                    }
                    output.push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
                Ok::<_, std::io::Error>(())
            });
            if !matches!(attached.await, Ok(Ok(()))) || !output.contains(" attached") {
                return Err(StraceError::Attach(output));
            }
            // The output is read to its end, so that strace never blocks on a full pipe.
            tokio::spawn(async move { while matches!(stderr.read(&mut buffer).await, Ok(1..)) {} });
        }
        Ok(Self { child, summary })
    }

    /// Detaches and returns the number of calls.
    ///
    /// # Errors
    /// Returns a [`StraceError`] when there is no valid summary.
    pub(crate) async fn finish(mut self) -> Result<u64, StraceError> {
        if let Some(strace) = self.child.id() {
            // After SIGINT strace detaches and writes its summary; SIGKILL would prevent both.
            Command::new("kill")
                .args(["-INT", &strace.to_string()])
                .status()
                .await?;
        }
        timeout(PATIENCE, self.child.wait())
            .await
            .map_err(|_| StraceError::NoSummary)??;
        let text = tokio::fs::read_to_string(&self.summary).await?;
        total_calls(&text).ok_or(StraceError::NoSummary)
    }
}

/// The number of calls in a summary. The summary is empty when there were no calls.
///
/// The number is in the line `100.00 0.0123 4 3021 12 total`: seconds, microseconds per call, calls, errors (missing
/// when there were none).
fn total_calls(summary: &str) -> Option<u64> {
    if summary.trim().is_empty() {
        return Some(0);
    }
    let line = summary
        .lines()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_with_and_without_errors() {
        let with = "% time seconds usecs/call calls errors syscall\n 60.00 0.1 1 77 read\n100.00 0.2 2 3021 12 total\n";
        assert_eq!(total_calls(with), Some(3_021));
        assert_eq!(
            total_calls("100.00    0.000123           2        55           total\n"),
            Some(55)
        );
        assert_eq!(total_calls("nothing"), None);
        assert_eq!(total_calls("\n"), Some(0));
    }
}
