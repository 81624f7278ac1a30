//! Every shipped scenario in its smallest form: run by the binary, in process, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit-loadtest"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs a scenario and returns its report and its page; the run must not have failures that the scenario does not
/// allow. The test ignores how fast the run is.
fn smallest(name: &str, seconds: &str, scale: &str) -> (Value, String) {
    let out = tempfile::tempdir().unwrap();
    let output = run(&[
        "run",
        name,
        "--quiet",
        "--duration",
        seconds,
        "--scale",
        scale,
        "--out",
        out.path().to_str().unwrap(),
    ]);
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output_text}");
    let read = |ending: &str| fs::read_to_string(out.path().join(format!("{name}.{ending}")));
    let report = serde_json::from_str(&read("json").unwrap()).unwrap();
    (report, read("html").unwrap())
}

/// Checks what is true of every report: each load was completed, every byte was checked, and the plots exist.
fn check(report: &Value, page: &str) {
    let loads = report["loads"].as_array().unwrap();
    assert!(!loads.is_empty());
    for load in loads {
        let name = load["name"].as_str().unwrap();
        // Exchanges in progress at the end are completed after it.
        assert!(
            load["latency"]["count"].as_u64().unwrap() > 0,
            "{name}: {load}"
        );
        assert!(load["bytes"].as_u64().unwrap() > 0, "{name}: {load}");
        assert!(!load["histogram_v2"].as_str().unwrap().is_empty(), "{name}");
        let wrong = &load["errors"]["wrong_bytes"];
        assert!(
            wrong.is_null() && load["errors"]["sequence"].is_null(),
            "{name}: {load}"
        );
        for plot in ["throughput", "latency"] {
            assert!(page.contains(&format!("{name}: {plot}")), "{name}: {plot}");
        }
    }
    assert_eq!(page.matches("<svg").count(), 1 + 2 * loads.len());
    assert!(!page.contains("href=") && !page.contains("src="));
    assert_eq!(report["problems"], serde_json::json!([]));
}

fn without_errors(name: &str) {
    without_errors_at(name, "0.1");
}

fn without_errors_at(name: &str, scale: &str) {
    let (report, page) = smallest(name, "1", scale);
    check(&report, &page);
    for load in report["loads"].as_array().unwrap() {
        assert_eq!(load["errors"], serde_json::json!({}), "{load}");
    }
}

#[test]
fn small_http() {
    without_errors("small-http");
}

#[test]
fn new_connections() {
    without_errors("new-connections");
}

#[test]
fn mixed_sizes() {
    without_errors("mixed-sizes");
}

#[test]
fn slow_readers() {
    without_errors("slow-readers");
}

#[test]
fn sse_fan_out() {
    without_errors("sse-fan-out");
}

#[test]
fn websocket_echo() {
    without_errors("websocket-echo");
}

#[test]
fn grpc_unary() {
    without_errors("grpc-unary");
}

#[test]
fn grpc_streams() {
    without_errors("grpc-streams");
}

#[test]
fn tcp_bulk() {
    without_errors_at("tcp-bulk", "0.5");
}

#[test]
fn udp() {
    without_errors("udp");
}

#[test]
fn soak() {
    without_errors_at("soak", "0.5");
}

/// F21: the clients of a group are restarted one after the other, and no request fails.
#[test]
fn rolling_restart() {
    let (report, page) = smallest("rolling-restart", "4", "0.2");
    check(&report, &page);
    for load in report["loads"].as_array().unwrap() {
        // A WebSocket message may cross the close frame (1001) to its visitor.
        let only_told = load["kind"] == "websocket"
            && load["errors"]
                .as_object()
                .unwrap()
                .keys()
                .all(|kind| kind == "going_away");
        assert!(
            only_told || load["errors"] == serde_json::json!({}),
            "{load}"
        );
    }
    assert_eq!(report["events"].as_array().unwrap().len(), 3);
}

/// Connections that are cut when a server is killed are counted, and there is no other failure.
#[test]
fn reconnect_storm() {
    // Each kill cuts every connection once: the window must be so long that these are few.
    let (report, page) = smallest("reconnect-storm", "6", "0.2");
    check(&report, &page);
    let events = report["events"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    for event in events {
        assert!(
            event["what"].as_str().unwrap().starts_with("server killed"),
            "{event}"
        );
    }
}

#[test]
fn every_scenario_is_listed_and_has_a_test_here() {
    let output = run(&["list"]);
    assert!(output.status.success());
    let listed = String::from_utf8(output.stdout).unwrap();
    let this = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios.rs"));
    let this = this.unwrap();
    let mut count = 0;
    for line in listed.lines() {
        let name = line.split(' ').next().unwrap().replace('-', "_");
        assert!(this.contains(&format!("fn {name}()")), "{name}");
        count += 1;
    }
    assert_eq!(count, 13);
}
