//! Request targets are forwarded as visitors send them, and a host is not required where the port decides.

use std::sync::atomic::Ordering;

use adit_testlink::{
    HttpEntry,
    exchanges::{echo, hello},
    http_config,
    http1::{read_until, send},
    within,
};
use tokio::io::AsyncReadExt;

/// Sends `bytes` in pieces of `step`, and reads the whole response.
async fn raw(entry: &HttpEntry, bytes: &[u8], step: usize) -> String {
    let mut stream = entry.connect().await;
    for piece in bytes.chunks(step) {
        send(&mut stream, piece).await;
        tokio::task::yield_now().await;
    }
    let mut response = Vec::new();
    within(stream.read_to_end(&mut response)).await.unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

/// P-3.10: bytes above 0x20 other than 0x7F reach the service as the visitor sent them.
#[tokio::test(start_paused = true)]
async fn bytes_above_0x20_of_a_target_cross_as_they_came() {
    let entry = HttpEntry::serving(http_config(), hello);
    let all: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect();
    let targets: Vec<Vec<u8>> = (0x21..=0xff)
        .filter(|byte| *byte != 0x7f)
        .flat_map(|byte| [vec![b'/', byte], vec![b'/', b'?', b'k', b'=', byte]])
        .chain([
            b"/?key=\"a\"".to_vec(),
            b"/caf\xe9/\xc3\xa9?\xff".to_vec(),
            [b"/", &all[..], b"?", &all[..]].concat(),
        ])
        .collect();
    // All targets are sent on one connection, so that each must be assigned to its own request.
    let mut stream = entry.connect().await;
    for target in &targets {
        let head = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        send(&mut stream, &head).await;
        let response = read_until(&mut stream, "hello").await;
        assert!(
            response.starts_with("HTTP/1.1 200"),
            "{target:?}: {response}"
        );
        let seen = entry.seen().pop_front().unwrap();
        assert_eq!(seen.path[..], target[..]);
    }
}

#[tokio::test(start_paused = true)]
async fn pipelined_targets_keep_their_own_bytes() {
    let entry = HttpEntry::serving(http_config(), echo);
    let all = b"GET /\"1\" HTTP/1.1\r\nHost: a\r\n\r\n\
        POST http://a/<2> HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET /\"<>` \r\n\
        GET /3 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /`4?# HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\"<>\r\n0\r\n\r\n\
        GET /\xe9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for step in [1, 7, all.len()] {
        let responses = raw(&entry, all, step).await;
        assert_eq!(responses.matches("HTTP/1.1 200").count(), 5, "{responses}");
        assert!(responses.contains("GET /\"<>` "), "{responses}");
        assert!(responses.contains("\"<>"), "{responses}");
        let seen: Vec<_> = entry.seen().drain(..).collect();
        let paths: Vec<_> = seen.iter().map(|request| &request.path[..]).collect();
        let sent: [&[u8]; 5] = [b"/\"1\"", b"/<2>", b"/3", b"/`4?#", b"/\xe9"];
        assert_eq!(paths, sent);
    }
}

#[tokio::test(start_paused = true)]
async fn control_bytes_in_a_target_get_400_with_a_reason() {
    let entry = HttpEntry::serving(http_config(), hello);
    for byte in (0..0x20)
        .filter(|byte| !b"\n\r".contains(byte))
        .chain([0x7f])
    {
        let head = [b"GET /", &[byte][..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let response = raw(&entry, &head, head.len()).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{byte}: {response}");
        assert!(
            response.contains("adit-reason: bad_request\r\n"),
            "{response}"
        );
    }
    assert_eq!(entry.seen().len(), 0);
}

/// P-3.11: a request without a host is rejected, except where the port decides.
#[tokio::test(start_paused = true)]
async fn a_request_needs_no_host_where_its_port_decides() {
    let entry = HttpEntry::serving(http_config(), hello);
    let heads = [
        "GET /x HTTP/1.0\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        "GET /x HTTP/1.0\r\nHost: \r\n\r\n",
    ];
    for head in heads {
        let response = raw(&entry, head.as_bytes(), head.len()).await;
        assert!(response.contains(" 400 "), "{response}");
        assert!(
            response.contains("adit-reason: bad_request\r\n"),
            "{response}"
        );
    }
    entry.director.needs_host.store(false, Ordering::Relaxed);
    for head in heads {
        let response = raw(&entry, head.as_bytes(), head.len()).await;
        assert!(response.contains(" 200 "), "{response}");
        let seen = entry.seen().pop_front().unwrap();
        assert_eq!(
            (&seen.authority[..], &seen.path[..]),
            (&b""[..], &b"/x"[..])
        );
        assert_eq!(seen.headers.first(b"x-forwarded-host"), None);
    }
    // RFC 9112, 3.2: HTTP/1.1 has a host line in any case.
    let bare = "GET /x HTTP/1.1\r\n\r\n";
    let response = raw(&entry, bare.as_bytes(), bare.len()).await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}
