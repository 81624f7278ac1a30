use std::sync::atomic::AtomicU64;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::pattern::Pattern;

fn plan(target: SocketAddr) -> Plan {
    Plan {
        target,
        host: "web.localhost".to_owned(),
        path: "/small".to_owned(),
        connections: 1,
        new_connection: false,
        rate: None,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(200),
        read_bytes: 4_096,
        progress: false,
    }
}

/// A server that responds to each request of each connection with the result of `response`, and counts the connections.
async fn server(
    response: impl Fn(u64) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let (seen, response) = (Arc::clone(&connections), Arc::new(response));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let connection = seen.fetch_add(1, Relaxed);
            let response = Arc::clone(&response);
            tokio::spawn(async move {
                let mut request = [0; 1_024];
                while let Ok(read @ 1..) = stream.read(&mut request).await {
                    assert!(request[..read].ends_with(b"\r\n\r\n"));
                    let Some(bytes) = response(connection) else {
                        return;
                    };
                    stream.write_all(&bytes).await.unwrap();
                }
            });
        }
    });
    (address, connections)
}

fn good() -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_vec();
    bytes.extend_from_slice(Pattern::shared().piece(0, 10));
    bytes
}

#[tokio::test]
async fn a_closed_loop_reuses_its_connection_and_counts_bytes() {
    let (target, connections) = server(|_| Some(good())).await;
    let mut samples = 0;
    let outcome = run(plan(target), || {
        samples += 1;
        samples
    })
    .await
    .unwrap();
    assert!(outcome.requests > 10, "{outcome:?}");
    assert_eq!((outcome.before, outcome.after), (1, 2));
    assert_eq!(outcome.failures.total(), 0, "{}", outcome.failures);
    assert_eq!(connections.load(Relaxed), 1);
    assert!(
        outcome.body_bytes / 10 >= outcome.requests
            && outcome.body_bytes / 10 <= outcome.requests + 1
    );
    // The request in progress at the end is timed but did not end in the window.
    let timed = outcome.latency_us.len();
    assert!(
        timed == outcome.requests || timed == outcome.requests + 1,
        "{timed}"
    );
}

#[tokio::test]
async fn a_new_connection_for_each_request_if_set() {
    let (target, connections) = server(|_| Some(good())).await;
    let outcome = run(
        Plan {
            new_connection: true,
            ..plan(target)
        },
        || (),
    )
    .await
    .unwrap();
    assert_eq!(outcome.failures.total(), 0, "{}", outcome.failures);
    assert_eq!(connections.load(Relaxed), outcome.latency_us.len());
}

#[tokio::test]
async fn interim_responses_are_skipped() {
    let (target, _) = server(|_| {
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".to_vec();
        bytes.extend_from_slice(&good());
        Some(bytes)
    })
    .await;
    let outcome = run(plan(target), || ()).await.unwrap();
    assert!(
        outcome.requests > 10 && outcome.failures.total() == 0,
        "{}",
        outcome.failures
    );
}

#[tokio::test]
async fn each_failure_is_counted_by_its_kind() {
    type Response = fn() -> Option<Vec<u8>>;
    let cases: [(&str, Response); 6] = [
        ("cut", || None),
        ("status", || {
            Some(b"HTTP/1.1 503 -\r\ncontent-length: 0\r\n\r\n".to_vec())
        }),
        ("unreadable", || Some(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
        ("wrong_bytes", || {
            Some(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n----".to_vec())
        }),
        ("wrong_bytes", || Some([good(), b"more".to_vec()].concat())),
        ("unfinished", || {
            Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec())
        }),
    ];
    for (kind, response) in cases {
        let (target, _) = server(move |_| response()).await;
        let outcome = run(
            Plan {
                duration: Duration::from_millis(50),
                ..plan(target)
            },
            || (),
        )
        .await
        .unwrap();
        assert_eq!(outcome.requests, 0, "{kind}");
        let shown = outcome.failures.to_string();
        assert!(
            shown.ends_with(kind) && !shown.contains(','),
            "{kind}: {shown}"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_and_not_a_hang() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    drop(listener);
    let outcome = run(plan(target), || ()).await.unwrap();
    assert!(
        outcome.failures.to_string().ends_with(" connect"),
        "{}",
        outcome.failures
    );
}

#[tokio::test]
async fn requests_that_an_open_loop_could_not_send_are_reported() {
    // Two connections without responses take one request each.
    let (target, _) = server(|_| Some(Vec::new())).await;
    let rate = Some(100.0);
    let outcome = run(
        Plan {
            rate,
            connections: 2,
            ..plan(target)
        },
        || (),
    )
    .await
    .unwrap();
    assert_eq!(outcome.failures.to_string(), "2 unfinished, 18 unsent");
}

#[tokio::test]
async fn a_plan_without_sense_is_refused() {
    let target = SocketAddr::from(([127, 0, 0, 1], 1));
    let none = run(
        Plan {
            connections: 0,
            ..plan(target)
        },
        || (),
    )
    .await;
    assert!(matches!(none, Err(RunError::NoConnections)));
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = run(
            Plan {
                rate: Some(rate),
                ..plan(target)
            },
            || (),
        )
        .await;
        assert!(matches!(refused, Err(RunError::Rate(_))), "{rate}");
    }
}
