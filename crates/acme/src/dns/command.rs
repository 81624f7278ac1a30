//! A program that adds and removes records.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

use super::record::{Change, DnsError, Record};

/// Of the output of a program, so many bytes are kept for an error. The rest is read and discarded.
const KEPT_OUTPUT: usize = 2048;

/// How long the output is read after the program has ended, in case a child of it holds it open.
const OUTPUT_TIME: Duration = Duration::from_millis(200);

/// A program that adds and removes records. It is started with these variables beside those of this process, from which
/// those that begin with `ADIT__` are left out, because they may be secrets:
///
/// | variable | value |
/// |---|---|
/// | `ACME_ACTION` | `add` or `remove` |
/// | `ACME_DOMAIN` | the host name, without `*.` |
/// | `ACME_RECORD` | the name of the TXT record, without a dot at its end |
/// | `ACME_VALUE` | its value |
///
/// Other records of the same name must stay. The program succeeds with exit code 0, and is killed with its children when it
/// takes longer than `timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsCommand {
    /// The program, and its arguments.
    pub program: String,
    /// The arguments.
    pub args: Vec<String>,
    /// How long the program may run.
    pub timeout: Duration,
}

impl DnsCommand {
    /// Runs the program. If the future is dropped, the program is killed.
    pub(super) async fn change(
        &self,
        change: Change,
        host: &str,
        record: &Record,
    ) -> Result<(), DnsError> {
        let action = match change {
            Change::Add => "add",
            Change::Remove => "remove",
        };
        let failed = |problem: String| {
            let Self { program, .. } = self;
            DnsError(format!(
                "the DNS command {program:?} failed to {action} the record {}: {problem}",
                record.name
            ))
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("ACME_ACTION", action)
            .env("ACME_DOMAIN", host)
            .env("ACME_RECORD", &record.name)
            .env("ACME_VALUE", &record.value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| name.as_encoded_bytes().starts_with(b"ADIT__")) {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|error| {
            failed(format!(
                "it cannot be started ({error}); check `dns_command`"
            ))
        })?;
        let mut group = Group::of(child);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
        let output = async { tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err)) };
        let status = timeout(self.timeout, async {
            tokio::pin!(output);
            tokio::select! {
                status = group.child.wait() => {
                    let _ = timeout(OUTPUT_TIME, output).await;
                    status
                }
                _ = &mut output => group.child.wait().await,
            }
        });
        let status = status.await;
        group.finished = matches!(status, Ok(Ok(_)));
        drop(group);
        let printed = printable(&err, &out);
        match status {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(format!("{status}; its output: {printed}"))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!(
                "it was killed after {:?}; its output: {printed}",
                self.timeout
            ))),
        }
    }
}

/// The program and its children, which are killed unless the program has finished.
struct Group {
    child: Child,
    id: Option<Pid>,
    finished: bool,
}

impl Group {
    fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            id: id.and_then(Pid::from_raw),
            child,
            finished: false,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id.filter(|_| !self.finished) {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Reads all output and keeps its beginning.
async fn keep(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        let room = KEPT_OUTPUT - kept.len();
        kept.extend(buffer.iter().take(read.min(room)));
    }
}

/// The errors of a program, else its other output, on one line.
fn printable(err: &[u8], out: &[u8]) -> String {
    let chosen = if err.trim_ascii().is_empty() {
        out
    } else {
        err
    };
    let text = String::from_utf8_lossy(chosen.trim_ascii());
    if text.is_empty() {
        return "none".to_owned();
    }
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, timeout: Duration) -> DnsCommand {
        DnsCommand {
            program: "/bin/sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            timeout,
        }
    }

    async fn add(script: &str, timeout: Duration) -> Result<(), String> {
        let record = Record {
            name: "_acme-challenge.example.com".to_owned(),
            value: "value".to_owned(),
        };
        let command = shell(script, timeout);
        let changed = command.change(Change::Add, "example.com", &record).await;
        changed.map_err(|error| error.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_program_receives_the_record_in_its_environment() {
        let script = r#"[ "$ACME_ACTION $ACME_DOMAIN $ACME_RECORD $ACME_VALUE" = "add example.com _acme-challenge.example.com value" ]"#;
        add(script, LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_has_the_exit_code_and_the_output() {
        let error = add("echo no such zone >&2; exit 3", LONG)
            .await
            .unwrap_err();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("no such zone"), "{error}");
        let error = add("head -c 1000000 /dev/zero; exit 1", LONG)
            .await
            .unwrap_err();
        assert!(error.len() < 8 * KEPT_OUTPUT, "{}", error.len());
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let began = Instant::now();
        let error = add(&script, Duration::from_millis(500)).await.unwrap_err();
        assert!(error.contains("killed after 500ms"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
        let pid: i32 = std::fs::read_to_string(&file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_output_open_does_not_delay_the_order() {
        let began = Instant::now();
        add("sleep 600 & exit 0", LONG).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let command = DnsCommand {
            program: "/nonexistent/hook".to_owned(),
            args: Vec::new(),
            timeout: LONG,
        };
        let record = Record {
            name: "r".to_owned(),
            value: "v".to_owned(),
        };
        let error = command.change(Change::Add, "h", &record).await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("/nonexistent/hook") && error.contains("dns_command"),
            "{error}"
        );
    }
}
