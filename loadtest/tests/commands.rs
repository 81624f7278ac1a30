//! The commands of the program: rejected flags, printed output, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use assert_cmd::assert::Assert;
use serde_json::Value;

fn run(arguments: &[&str]) -> Assert {
    assert_cmd::Command::new(env!("CARGO_BIN_EXE_adit-loadtest"))
        .args(arguments)
        .assert()
}

fn printed(assert: &Assert) -> String {
    let output = assert.get_output();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The services as a process. Dropping it kills the process.
struct Serving {
    child: Child,
    addresses: Value,
}

impl Serving {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_adit-loadtest"))
            .args(["serve", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let addresses = serde_json::from_str(&line).unwrap();
        Self { child, addresses }
    }

    fn at(&self, name: &str) -> &str {
        self.addresses[name].as_str().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn services_serve_and_end_cleanly_on_a_signal() {
    let mut serving = Serving::start();
    let mut stream = TcpStream::connect(serving.at("http")).unwrap();
    stream
        .write_all(b"GET /bytes/10 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let sent = Command::new("kill")
        .args(["-TERM", &serving.child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

/// A scenario runs against any tunnel by its addresses; here the target is the service without a tunnel.
#[test]
fn any_target_is_measured_by_its_addresses() {
    let serving = Serving::start();
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("all.yaml");
    let kinds = [
        "http",
        "upload",
        "websocket",
        "grpc_unary",
        "grpc_stream",
        "tcp_echo",
        "udp",
    ];
    let loads: String = kinds
        .iter()
        .map(|kind| format!("  - {{ kind: {kind}, rate: 50, sizes: [{{ bytes: 100 }}] }}\n"))
        .collect();
    let text = format!("name: all\nabout: All.\nwarm_up_s: 0\nduration_s: 0.5\nloads:\n{loads}");
    fs::write(&scenario, text).unwrap();
    let out = dir.path().join("out");
    let assert = run(&[
        "run",
        scenario.to_str().unwrap(),
        "--target",
        "address",
        "--http",
        serving.at("http"),
        "--websocket",
        serving.at("websocket"),
        "--grpc",
        serving.at("grpc"),
        "--tcp",
        serving.at("tcp"),
        "--udp",
        serving.at("udp"),
        "--out",
        out.to_str().unwrap(),
    ])
    .success();
    assert!(printed(&assert).contains("passed"));
    let report: Value = serde_json::from_slice(&fs::read(out.join("all.json")).unwrap()).unwrap();
    for load in report["loads"].as_array().unwrap() {
        assert_eq!(load["errors"], serde_json::json!({}), "{load}");
        assert_eq!(load["latency"]["count"], 25, "{load}");
    }
}

/// Errors that the scenario does not allow cause exit code 1, and the report is still written.
#[test]
fn a_run_with_errors_fails_and_is_reported() {
    let serving = Serving::start();
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("late.yaml");
    // Nothing can be completed within a microsecond.
    let text = "name: late\nabout: Late.\nwarm_up_s: 0\nduration_s: 0.5\nloads:\n  \
                - { kind: http, rate: 20, sizes: [{ bytes: 10 }], limits: { p50_ms: 0.000001 } }\n";
    fs::write(&scenario, text).unwrap();
    let out = dir.path().to_str().unwrap();
    let arguments = [
        "--target",
        "address",
        "--http",
        serving.at("http"),
        "--out",
        out,
    ];
    let all = ["run", scenario.to_str().unwrap()]
        .into_iter()
        .chain(arguments);
    let assert = run(&all.collect::<Vec<_>>()).code(1);
    assert!(
        printed(&assert).contains("FAILED http: p50 is"),
        "{}",
        printed(&assert)
    );
    let page = fs::read_to_string(dir.path().join("late.html")).unwrap();
    assert!(page.contains("Failed.") && page.contains("p50 is"));
}

#[test]
fn errors_are_printed_as_one_sentence() {
    let cases: [(&[&str], &str); 6] = [
        (
            &["run", "smal-http"],
            "no scenario is called \"smal-http\": there are small-http, ",
        ),
        (&["run", "/no/such.yaml"], "cannot read /no/such.yaml"),
        (
            &["run", "udp", "--target", "address"],
            "load \"datagrams\" needs an entry of its protocol: pass --udp",
        ),
        (
            &["run", "rolling-restart", "--target", "compose"],
            "the scenario restarts the client of a target that this program did not start: pass --restart-client",
        ),
        (
            &["run", "udp", "--tcp", "127.0.0.1:1"],
            "--tcp: is for --target compose and address",
        ),
        (
            &[
                "run",
                "udp",
                "--target",
                "binaries",
                "--adit-dir",
                "/no/such/dir",
            ],
            "cannot start /no/such/dir/adit-server",
        ),
    ];
    for (arguments, wanted) in cases {
        let assert = run(arguments).code(1);
        assert!(
            printed(&assert).contains(wanted),
            "{arguments:?}: {}",
            printed(&assert)
        );
    }
}

#[test]
fn help_has_examples() {
    for command in ["run", "serve"] {
        let assert = run(&[command, "--help"]).success();
        let printed = printed(&assert);
        assert!(
            printed.contains("Examples:") && printed.contains("adit-loadtest"),
            "{printed}"
        );
    }
}
