//! Secrets that are typed at a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    process::{Child, Command, Stdio},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use tempfile::TempDir;

/// `adit ARGS` at a terminal, which has printed its prompt.
struct AtTerminal {
    process: Child,
    prompt: String,
    /// Where the user types.
    keyboard: File,
    terminal: File,
    _state: TempDir,
}

impl AtTerminal {
    fn new(args: &[&str]) -> Self {
        let keyboard: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let name = std::ffi::OsStr::from_bytes(name.as_bytes());
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let state = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(args)
            .env("ADIT__STATE_DIR", state.path())
            .env_remove("ADIT__JOIN")
            .stdin(terminal.try_clone().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut prompt = String::new();
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        errors.read_line(&mut prompt).unwrap();
        Self {
            process,
            prompt,
            keyboard: keyboard.into(),
            terminal,
            _state: state,
        }
    }

    fn shows_what_is_typed(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    }
}

#[test]
fn a_password_is_not_shown_while_it_is_typed() {
    let mut adit = AtTerminal::new(&["hash-password"]);
    assert!(adit.prompt.contains("password"), "{}", adit.prompt);
    assert!(!adit.shows_what_is_typed());
    adit.keyboard.write_all(b"correct horse\n").unwrap();
    let mut hash = String::new();
    let mut output = adit.process.stdout.take().unwrap();
    output.read_to_string(&mut hash).unwrap();
    assert!(adit.process.wait().unwrap().success());
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    assert!(adit.shows_what_is_typed());
}

#[test]
fn a_terminal_shows_what_is_typed_after_an_interrupt() {
    for args in [&["hash-password"][..], &["join"]] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let mut adit = AtTerminal::new(args);
            assert!(!adit.shows_what_is_typed());
            let pid = Pid::from_child(&adit.process);
            kill_process(pid, signal).unwrap();
            assert_eq!(adit.process.wait().unwrap().code(), Some(code));
            assert!(adit.shows_what_is_typed(), "{args:?}");
        }
    }
}
