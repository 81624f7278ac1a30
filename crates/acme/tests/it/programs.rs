//! Programs that the tests start. `. ci/tools; need_programs` installs them.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// The time that a program may take to start on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Whether these programs are installed. Without them a test is skipped, but in CI, where `ci/test` has installed them, it
/// fails.
pub(crate) fn installed(names: &[&str]) -> bool {
    let Some(missing) = names.iter().find(|name| program(name).is_none()) else {
        return true;
    };
    let text =
        format!("{missing} is not installed: run `. ci/tools; need_programs` in the workspace");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("skipped: {text}");
    false
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places
        .map(|place| place.join(name))
        .find(|file| file.is_file())
}

/// A program that listens on a port. Killed when dropped.
pub(crate) struct Program(Child);

impl Program {
    /// Starts a program and waits until the port accepts connections.
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        Self::start_until(command, port, "")
    }

    /// As [`start`](Self::start), and waits until the program has printed this text.
    pub(crate) fn start_until(command: &mut Command, port: u16, text: &'static str) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .stdin(Stdio::null());
        let mut started = Self(child.spawn().unwrap());
        let stderr = started.0.stderr.take().unwrap();
        // Read to the end, or the program would block; the output helps when a test fails.
        let (printed, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                if line.contains(text) {
                    let _ = printed.send(());
                }
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(
                started.0.try_wait().unwrap().is_none(),
                "{command:?} has ended"
            );
            assert!(
                Instant::now() < deadline,
                "{command:?} does not listen on {address}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        if !text.is_empty() {
            ready.recv_timeout(PATIENCE).expect(text);
        }
        started
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free for TCP and UDP. Programs that cannot listen on port 0 take it.
pub(crate) fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
