//! The end of a command: one text on standard error, one exit code.

use std::{fmt, process::ExitCode, sync::mpsc, thread, time::Duration};

use rustix::process::Signal;

use crate::errln;

/// How long the end of the process waits until standard error accepts the reason.
const STDERR_WITHIN: Duration = Duration::from_secs(2);

/// An error that ends a command.
#[derive(Debug)]
pub struct Failed {
    code: u8,
    text: String,
}

impl Failed {
    /// The error of an invalid configuration, with exit code 2.
    pub fn config(error: impl fmt::Display) -> Self {
        Self {
            code: 2,
            text: error.to_string(),
        }
    }

    /// A signal, with the exit code of a process that it has ended.
    pub(crate) fn by_signal(signal: Signal) -> Self {
        Self {
            code: u8::try_from(128 + signal.as_raw()).unwrap_or(1),
            text: "ended by a signal".to_owned(),
        }
    }

    /// Any other error, with exit code 1.
    pub fn other(error: impl fmt::Display) -> Self {
        Self {
            code: 1,
            text: error.to_string(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Prints the error, and turns the result into an exit code.
pub fn exit(result: Result<(), Failed>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            let code = failed.code;
            // Another thread prints the error, because a standard error without a reader must not keep the process
            // alive.
            let (done, over) = mpsc::channel();
            let printing = thread::Builder::new().spawn(move || {
                errln!("error: {failed}");
                let _ = done.send(());
            });
            if printing.is_ok() {
                let _ = over.recv_timeout(STDERR_WITHIN);
            }
            ExitCode::from(code)
        }
    }
}
