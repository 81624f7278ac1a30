//! A stock gRPC library in another language is enough to be a client: `python/full_client.py`, with only grpcio and the
//! committed proto file. F01, F02, P-1.1 to P-1.8, P-2.3, P-4.1 to P-4.6, P-6.5.
//!
//! Needs the interpreter that `ADIT_PYTHON` names, or `target/python/bin/python`, which `ci/test` creates.

use std::time::Duration;

use adit_e2e::{
    Process, Server, Visitor, body_of, count, eventually, get, post,
    python::{interpreter, script, workspace},
    stays, within,
};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};

const SOON: Duration = Duration::from_secs(60);
const HOST: &str = "py.localhost";
const TEN_MIB: usize = 10 << 20;

/// Starts the client; the server's state directory keeps its output.
fn python(server: &Server, kind: &str) -> Process {
    let args = [
        script("full_client.py"),
        kind.to_owned(),
        server.tunnel.to_string(),
        server.token(),
        workspace().join("proto").display().to_string(),
    ];
    Process::spawn("python", &interpreter(), &args, &[], server.state())
}

async fn wait_for_line(python: &mut Process, line: &str) {
    let what = format!("{line:?} of the client");
    eventually(&what, SOON, async || {
        let found = python.stdout().lines().any(|printed| printed == line);
        if !found {
            python.assert_running();
        }
        found.then_some(())
    })
    .await;
}

/// The bytes that the client sends for `/down/N`.
fn expected(length: usize) -> Vec<u8> {
    (0..251_u8).cycle().take(length).collect()
}

/// CRC-32 (IEEE 802.3), as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| {
            (0..8).fold(byte, |crc, _| {
                if crc & 1 == 1 {
                    0xEDB8_8320 ^ (crc >> 1)
                } else {
                    crc >> 1
                }
            })
        })
        .collect();
    !bytes.iter().fold(!0, |crc, byte| {
        table[((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8)
    })
}

/// Small and large requests in both directions.
async fn is_served(server: &Server) {
    assert_eq!(
        get(server.http, HOST, "/hello").await.text(),
        "hello from python"
    );
    assert!(
        get(server.http, HOST, "/headers")
            .await
            .text()
            .contains("x-forwarded-for: 127.0.0.1")
    );
    let small = post(server.http, HOST, "/up", "small").await;
    assert_eq!(small.text(), format!("5 {}", crc32(b"small")));

    let body = expected(TEN_MIB);
    let sum = format!("{TEN_MIB} {}", crc32(&body));
    let body = Bytes::from(body);
    let up = async {
        let response = post(server.http, HOST, "/up", body.clone()).await;
        assert_eq!(response.text(), sum);
    };
    let down = async {
        let response = get(server.http, HOST, &format!("/down/{TEN_MIB}")).await;
        assert_eq!(response.status, 200);
        assert!(response.body == body, "{} bytes", response.body.len());
    };
    within("10 MiB in both directions at a time", SOON, async {
        tokio::join!(up, down)
    })
    .await;
    // A body in pieces without a length, over HTTP/2.
    let mut visitor = Visitor::http2(server.http, HOST).await;
    let streamed = body_of(Full::new(body));
    let request = visitor.request(&Method::POST, "/up", streamed);
    let response = within("an upload without a length", SOON, visitor.whole(request)).await;
    assert_eq!(response.unwrap().text(), sum);
}

/// F01, P-4: a complete client, which respects credit in both directions and replies to probes for longer than a link
/// without replies would live.
#[tokio::test]
async fn a_client_in_another_language_serves() {
    let server = Server::with("server:\n  timeouts: { heartbeat: 100ms, dead_after: 1s }\n").await;
    let mut client = python(&server, "serve");
    wait_for_line(&mut client, "ready").await;
    is_served(&server).await;
    wait_for_line(&mut client, "heartbeat responded 77").await;
    let epoch = count(&server.status().await, "/clients/0/epoch");
    stays("its link", Duration::from_millis(2500), async || {
        let status = server.status().await;
        status
            .pointer("/clients/0/epoch")
            .and_then(serde_json::Value::as_u64)
            == Some(epoch)
    })
    .await;
    assert_eq!(
        get(server.http, HOST, "/hello").await.text(),
        "hello from python"
    );
    assert!(!client.stdout().contains("overrun"), "{}", client.stdout());
}

/// P-6.5: a client that does not reply to probes is detected as dead.
#[tokio::test]
async fn a_client_that_replies_to_no_probe_is_dropped() {
    let server = Server::with("server:\n  timeouts: { heartbeat: 100ms, dead_after: 1s }\n").await;
    let mut client = python(&server, "mute");
    wait_for_line(&mut client, "ready").await;
    assert_eq!(
        get(server.http, HOST, "/hello").await.text(),
        "hello from python"
    );
    eventually("the end of its link", SOON, async || {
        let status = server.status().await;
        (status["clients"].as_array().map(Vec::len) == Some(0)).then_some(())
    })
    .await;
    eventually("the end of its stream", SOON, async || {
        client.stdout().contains("proxy ended").then_some(())
    })
    .await;
}

/// P-2.3: the order of fields does not matter, and unknown fields are skipped.
#[tokio::test]
async fn fields_may_come_in_any_order() {
    let server = Server::plain().await;
    let mut client = python(&server, "shuffled");
    wait_for_line(&mut client, "ready").await;
    is_served(&server).await;
}

/// P-1.7: either stream may end and be opened again under the same session; only the requests of a lost data stream fail.
#[tokio::test]
async fn control_and_data_stream_live_without_each_other() {
    let server = Server::plain().await;
    let mut client = python(&server, "streams");
    wait_for_line(&mut client, "ready").await;
    let epoch = count(&server.status().await, "/clients/0/epoch");
    let control_is = async |open: bool| {
        eventually("a change of the control stream", SOON, async || {
            let status = server.status().await;
            assert_eq!(count(&status, "/clients/0/epoch"), epoch);
            (status["clients"][0]["control"] == open).then_some(())
        })
        .await;
    };
    control_is(true).await;
    assert_eq!(get(server.http, HOST, "/end-control").await.status, 200);
    control_is(false).await;
    assert_eq!(
        get(server.http, HOST, "/hello").await.text(),
        "hello from python"
    );
    assert_eq!(get(server.http, HOST, "/open-control").await.status, 200);
    control_is(true).await;

    let lost = post(server.http, HOST, "/end-data", "x").await;
    assert_eq!((lost.status.as_u16(), lost.reason()), (502, "link_lost"));
    // Requests that arrive meanwhile wait.
    assert_eq!(
        get(server.http, HOST, "/hello").await.text(),
        "hello from python"
    );
    let status = server.status().await;
    assert_eq!(count(&status, "/clients/0/epoch"), epoch);
    assert_eq!(status["clients"][0]["control"], true);
}

/// P-4.4: a request that exceeds its limit is reset, and no other.
#[tokio::test]
async fn an_overrun_of_credit_costs_only_its_request() {
    let server = Server::plain().await;
    let mut client = python(&server, "serve");
    wait_for_line(&mut client, "ready").await;
    let epoch = count(&server.status().await, "/clients/0/epoch");
    let mut visitor = Visitor::http1(server.http, HOST).await;
    let request = visitor.request(&Method::GET, "/overrun", adit_e2e::empty());
    match within(
        "the head of a response, or an abort",
        SOON,
        visitor.send(request),
    )
    .await
    {
        // The head had been sent: the body must not look complete.
        Ok(response) if response.status() == 200 => {
            let body = response.into_body().collect();
            assert!(within("an abort", SOON, body).await.is_err());
        }
        Ok(response) => {
            assert_eq!(response.status(), 502);
            assert_eq!(response.headers()["adit-reason"], "flow_control");
        }
        Err(_) => {}
    }
    wait_for_line(&mut client, "reset RESET_CODE_FLOW_CONTROL /overrun").await;
    let status = server.status().await;
    assert_eq!(
        count(&status, "/clients/0/epoch"),
        epoch,
        "the link lives on"
    );
    assert_eq!(
        count(&status, "/visitors/failures/flow_control"),
        1,
        "{status}"
    );
    is_served(&server).await;
}

/// P-1.2, P-1.3, P-1.5, P-1.8: each refusal has its status and reason, and a new session of the same instance takes
/// over.
#[tokio::test]
async fn refusals_name_their_reason_and_the_same_instance_takes_over() {
    let server = Server::plain().await;
    let mut client = python(&server, "refusals");
    wait_for_line(&mut client, "ready").await;
    let output = client.stdout();
    for line in [
        "version FAILED_PRECONDITION version",
        "credential UNAUTHENTICATED unauthenticated",
        "nothing UNAUTHENTICATED unauthenticated",
        "control UNAUTHENTICATED stale_session",
        "instance ALREADY_EXISTS client_id_taken",
        "taken over True",
        "fenced UNAUTHENTICATED stale_session",
    ] {
        assert!(
            output.lines().any(|printed| printed == line),
            "{line:?} is not in\n{output}"
        );
    }
    let stale = output
        .lines()
        .filter(|line| *line == "session UNAUTHENTICATED stale_session");
    assert_eq!(stale.count(), 3, "{output}");
    assert!(output.contains("proxy ended"), "{output}");
    is_served(&server).await;
}
