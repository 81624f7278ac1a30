//! A terminal or a pipe that is not read does not stop the programs. F39.

use std::{
    fs,
    io::Read as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use adit_e2e::{binary, eventually, get, own_address};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// The capacity of a pipe on Linux by default.
const PIPE_BYTES: usize = 64 * 1024;

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_log_without_a_reader_stops_no_request() {
    let state = tempfile::tempdir().unwrap();
    let config = state.path().join("server.yaml");
    let any = SocketAddr::from((own_address(), 0));
    let text = format!(
        "server:\n  bind_addr: {}\n  bind_port: 0\n  http: {{ bind_port: 0 }}\n  admin: {{ bind: \"{any}\" }}\n  \
         timeouts: {{ startup_grace: 0s }}\n",
        any.ip()
    );
    fs::write(&config, text).unwrap();
    let child = Command::new(binary("adit-server"))
        .arg("--config")
        .arg(&config)
        .env_clear()
        .env("ADIT__STATE_DIR", state.path())
        .env("ADIT__LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let http: SocketAddr = eventually("a server that says where it is", SOON, async || {
        let announced = fs::read(state.path().join("server.json")).ok()?;
        let announced: Value = serde_json::from_slice(&announced).ok()?;
        announced["http_addr"].as_str()?.parse().ok()
    })
    .await;
    for _ in 0..1_000 {
        let response = get(http, "unknown.localhost", "/").await;
        assert_eq!(response.reason(), "no_tunnel");
    }
    // The full pipe does not prevent the end of the program either.
    let kill = Command::new("kill").arg(child.0.id().to_string()).status();
    assert!(kill.unwrap().success());
    let status = eventually("the end of the server", SOON, async || {
        child.0.try_wait().unwrap()
    })
    .await;
    assert!(status.success(), "{status}");
    // The lines in the pipe are complete, and it was full: each of its pages may have unused bytes after the last line.
    let mut log = Vec::new();
    let mut pipe = child.0.stderr.take().unwrap();
    pipe.read_to_end(&mut log).unwrap();
    assert!(log.len() >= PIPE_BYTES * 3 / 4, "{} bytes", log.len());
}
