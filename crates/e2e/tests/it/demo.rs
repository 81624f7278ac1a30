//! F43: `adit demo`, the shortest way to try adit.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{Process, binary, get, run};

/// Checks everything that this version supports, and reports the result with its exit code.
#[tokio::test]
async fn demo_once_checks_itself() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().display().to_string();
    let once = run(
        "adit",
        &["demo", "--once"],
        &[("ADIT__STATE_DIR", &state)],
        dir.path(),
    )
    .await;
    assert_eq!(once.code, Some(0), "{}\n{}", once.stdout, once.stderr);
}

/// The demonstration prints the URL first, serves it, and ends after a signal.
#[tokio::test]
async fn demo_serves_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let env = [(
        "ADIT__STATE_DIR".to_owned(),
        dir.path().display().to_string(),
    )];
    let mut demo = Process::spawn("demo", &binary("adit"), &["demo"], &env, dir.path());
    let url = demo.first_line().await;
    let host = url
        .strip_prefix("http://")
        .expect("a URL on the first line")
        .trim_end_matches('/');
    let port: u16 = host
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let response = get(SocketAddr::from(([127, 0, 0, 1], port)), host, "/").await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.reason(), "");
    demo.terminate();
    assert_eq!(demo.exit(Duration::from_secs(20)).await.code(), Some(0));
}
