//! Request targets cross as visitors send them, and requests without a host where the port decides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod world;

use world::{World, echo, hello, read_until, within};

/// Sends `bytes` in pieces of `step`, and reads all of the answer.
async fn raw(world: &World, bytes: &[u8], step: usize) -> String {
    let mut stream = world.connect().await;
    for piece in bytes.chunks(step) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// P-3.10.
#[tokio::test]
async fn bytes_above_0x20_of_a_target_cross_as_they_came() {
    let world = World::new(hello).await;
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
    // One connection, so that each target belongs to its own request.
    let mut stream = world.connect().await;
    for target in &targets {
        let head = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        stream.write_all(&head).await.unwrap();
        let answer = read_until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{target:?}: {answer}");
        let seen = world.seen.lock().unwrap().pop_front().unwrap();
        assert_eq!(seen.path[..], target[..]);
    }
}

#[tokio::test]
async fn pipelined_targets_keep_their_own_bytes() {
    let world = World::new(echo).await;
    let all = b"GET /\"1\" HTTP/1.1\r\nHost: a\r\n\r\n\
        POST http://a/<2> HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET /\"<>` \r\n\
        GET /3 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /`4?# HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\"<>\r\n0\r\n\r\n\
        GET /\xe9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for step in [1, 7, all.len()] {
        let answers = raw(&world, all, step).await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 5, "{answers}");
        assert!(answers.contains("GET /\"<>` "), "{answers}");
        assert!(answers.contains("\"<>"), "{answers}");
        let seen: Vec<_> = world.seen.lock().unwrap().drain(..).collect();
        let paths: Vec<_> = seen.iter().map(|request| &request.path[..]).collect();
        let sent: [&[u8]; 5] = [b"/\"1\"", b"/<2>", b"/3", b"/`4?#", b"/\xe9"];
        assert_eq!(paths, sent);
    }
}

#[tokio::test]
async fn control_bytes_in_a_target_get_400_with_a_reason() {
    let world = World::new(hello).await;
    for byte in (0..0x20)
        .filter(|byte| !b"\n\r".contains(byte))
        .chain([0x7f])
    {
        let head = [b"GET /", &[byte][..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let answer = raw(&world, &head, head.len()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{byte}: {answer}");
        assert!(answer.contains("adit-reason: bad_request\r\n"), "{answer}");
    }
    assert_eq!(world.seen.lock().unwrap().len(), 0);
}

/// P-3.11.
#[tokio::test]
async fn a_request_without_a_host_is_served_where_the_port_decides() {
    let world = World::new(hello).await;
    let heads = [
        "GET /x HTTP/1.0\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        "GET /x HTTP/1.0\r\nHost: \r\n\r\n",
    ];
    for head in heads {
        let answer = raw(&world, head.as_bytes(), head.len()).await;
        assert!(answer.contains(" 400 "), "{answer}");
        assert!(answer.contains("adit-reason: bad_request\r\n"), "{answer}");
    }
    world.director.needs_host.store(false, Ordering::Relaxed);
    for head in heads {
        let answer = raw(&world, head.as_bytes(), head.len()).await;
        assert!(answer.contains(" 200 "), "{answer}");
        let seen = world.seen.lock().unwrap().pop_front().unwrap();
        assert_eq!(
            (&seen.authority[..], &seen.path[..]),
            (&b""[..], &b"/x"[..])
        );
        assert_eq!(seen.headers.first(b"x-forwarded-host"), None);
    }
    // RFC 9112, 3.2: HTTP/1.1 has a host line in any case.
    let bare = "GET /x HTTP/1.1\r\n\r\n";
    let answer = raw(&world, bare.as_bytes(), bare.len()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
