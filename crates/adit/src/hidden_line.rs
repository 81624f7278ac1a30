//! A secret that is typed at a terminal, and not shown.

use std::{
    io::{self, BufRead, Read},
    thread,
};

use rustix::{
    process::Signal,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use secrecy::zeroize::Zeroizing;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{errln, report::Failed, runtime::background};

/// Prints `prompt`, and reads a line of at most `longest` bytes from the terminal of standard input, which does not show it.
/// The terminal shows what is typed again afterwards, also if a signal ends the process.
///
/// # Errors
/// The terminal cannot be read, or a signal has come.
pub(crate) fn read(prompt: &str, longest: u64) -> Result<Zeroizing<String>, Failed> {
    background()?.block_on(async {
        let receive = |signal_number: Signal| {
            let received = signal(SignalKind::from_raw(signal_number.as_raw()));
            received.map_err(|error| Failed::other(format!("signals: {error}")))
        };
        // Registered before the terminal is changed, and changed before anything is typed.
        let mut interrupt = receive(Signal::INT)?;
        let mut terminate = receive(Signal::TERM)?;
        let mut quit = receive(Signal::QUIT)?;
        let mut hangup = receive(Signal::HUP)?;
        let _hidden = Hidden::new();
        errln!("{prompt}");
        // Another thread reads: a read from a terminal cannot be cancelled.
        let (done, line) = oneshot::channel();
        let reading = thread::Builder::new().spawn(move || {
            let mut line = Zeroizing::new(String::new());
            let read = io::stdin().lock().take(longest).read_line(&mut line);
            let _ = done.send(read.map(|_| line));
        });
        reading.map_err(|error| Failed::other(format!("cannot read the terminal: {error}")))?;
        let signal_number = tokio::select! {
            line = line => {
                let line = line.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()));
                return line.map_err(|error| Failed::other(format!("cannot read the line: {error}")));
            }
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
            _ = quit.recv() => Signal::QUIT,
            _ = hangup.recv() => Signal::HUP,
        };
        Err(Failed::by_signal(signal_number))
    })
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn new() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else {
            return Self(None);
        };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        match tcsetattr(io::stdin(), OptionalActions::Flush, &hidden) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing else can be done.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}
