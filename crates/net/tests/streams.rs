//! The promises of every kind of stream, and the differences between them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::Ipv4Addr,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use adit_net::{Departure, Scheme, SharedStream, Stream, TlsAcceptor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _},
    time::timeout,
};

use self::support::{Pair, addr, memory, tcp, tls, unix};

const LONG: Duration = Duration::from_secs(60);

/// TLS over `transport`.
async fn over_tls((visitor, accepted): Pair) -> Pair {
    let tls = tls(&[b"h2"]);
    let acceptor = TlsAcceptor::new(tls.server.clone(), LONG, 1);
    let (visitor, accepted) = tokio::join!(tls.connect(visitor), acceptor.accept(accepted));
    (visitor, accepted.unwrap())
}

async fn all() -> [(&'static str, Pair); 5] {
    [
        ("tcp", tcp().await),
        ("unix", unix().await),
        ("memory", memory()),
        ("tls over tcp", over_tls(tcp().await).await),
        ("tls over memory", over_tls(memory()).await),
    ]
}

/// Waits for bytes or the end, without consuming them.
async fn peek(stream: &mut Stream, room: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let count = poll_fn(|cx| stream.poll_peek(cx, &mut buffer)).await?;
    buffer.truncate(count);
    Ok(buffer)
}

#[tokio::test]
async fn every_kind_carries_bytes_to_their_end() {
    for (kind, (mut visitor, mut ours)) in all().await {
        let sent = vec![7; 200_000];
        let sending = async {
            let written = poll_fn(|cx| {
                let slices = [IoSlice::new(b"head "), IoSlice::new(b"body ")];
                Pin::new(&mut visitor).poll_write_vectored(cx, &slices)
            });
            assert_eq!(
                written.await.unwrap(),
                10,
                "{kind}: both slices in one write"
            );
            visitor.write_all(&sent).await.unwrap();
            visitor.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), count) = tokio::join!(sending, ours.read_to_end(&mut read));
        assert_eq!(count.unwrap(), 200_010, "{kind}");
        assert!(read.starts_with(b"head body \x07"), "{kind}");
        ours.write_all(b"back").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut back = String::new();
        visitor.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back", "{kind}");
    }
}

#[tokio::test]
async fn addresses_and_schemes_are_those_of_the_kind() {
    let local = |port| std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for (kind, (visitor, ours)) in all().await {
        let (peer, own) = (ours.peer_addr().unwrap(), ours.local_addr().unwrap());
        match kind {
            "unix" => assert_eq!((peer, own), (local(0), local(0))),
            "memory" | "tls over memory" => assert_eq!((peer, own), (addr(4000), addr(80))),
            _ => assert_eq!(peer, visitor.local_addr().unwrap()),
        }
        let is_tls = kind.starts_with("tls");
        let scheme = if is_tls { Scheme::Https } else { Scheme::Http };
        assert_eq!(ours.scheme(), scheme, "{kind}");
        assert_eq!(ours.alpn(), is_tls.then_some(&b"h2"[..]), "{kind}");
        assert_eq!(ours.peer_uid().is_some(), kind == "unix", "{kind}");
        ours.set_nodelay().unwrap();
        ours.set_unsent_bytes(1024).unwrap();
        ours.set_keepalive().unwrap();
        ours.keep_alive(LONG);
    }
}

#[tokio::test]
async fn bytes_read_ahead_come_first_in_every_way() {
    for (kind, (mut visitor, mut ours)) in all().await {
        visitor.write_all(b"first ").await.unwrap();
        visitor.flush().await.unwrap();
        let count = poll_fn(|cx| ours.poll_read_ahead(cx)).await.unwrap();
        assert_eq!((count, ours.read_ahead()), (6, &b"first "[..]), "{kind}");
        visitor.write_all(b"second").await.unwrap();
        visitor.shutdown().await.unwrap();
        assert_eq!(peek(&mut ours, 3).await.unwrap(), b"fir", "{kind}");
        let count = poll_fn(|cx| ours.poll_read_ahead(cx)).await.unwrap();
        assert_eq!(count, 6, "{kind}");
        let mut start = [0; 3];
        ours.read_exact(&mut start).await.unwrap();
        let mut rest = String::new();
        ours.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&start, &*rest), (b"fir", "st second"), "{kind}");
        let count = poll_fn(|cx| ours.poll_read_ahead(cx)).await.unwrap();
        assert_eq!(count, 0, "{kind}: the end");
    }
}

#[tokio::test]
async fn peeked_bytes_stay_and_are_counted() {
    for (kind, (mut visitor, mut ours)) in all().await {
        visitor.write_all(b"unread").await.unwrap();
        visitor.flush().await.unwrap();
        assert_eq!(peek(&mut ours, 4).await.unwrap(), b"unre", "{kind}");
        let all = ours.peek_all(100);
        if kind.starts_with("tls") {
            assert_eq!(all, None, "{kind}: more may be enciphered");
        } else {
            assert_eq!(all.as_deref(), Some(&b"unread"[..]), "{kind}");
            assert_eq!(ours.peek_all(6), None, "{kind}: there may be more");
        }
        let mut read = [0; 6];
        ours.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"unread", "{kind}");
        visitor.shutdown().await.unwrap();
        assert_eq!(peek(&mut ours, 4).await.unwrap(), b"", "{kind}");
    }
}

/// Waits until the kernel reports that the peer has left.
async fn departure(stream: &mut Stream) -> Departure {
    // A departure makes the stream readable, and may be reported together with unread bytes.
    timeout(LONG, async {
        loop {
            if let Some(how) = stream.departure() {
                return how;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_departure_is_seen_behind_unread_bytes() {
    for (kind, (mut visitor, mut ours)) in all().await {
        visitor.write_all(b"unread").await.unwrap();
        visitor.flush().await.unwrap();
        assert_eq!(ours.departure(), None, "{kind}");
        visitor.shutdown().await.unwrap();
        assert_eq!(departure(&mut ours).await, Departure::Fin, "{kind}");
        assert_eq!(peek(&mut ours, 6).await.unwrap(), b"unread", "{kind}");
    }
}

#[tokio::test]
async fn a_reset_is_a_departure_and_an_error() {
    for (kind, (mut visitor, mut ours)) in all().await {
        visitor.reset_on_drop();
        drop(visitor);
        let how = departure(&mut ours).await;
        if kind == "unix" {
            assert_eq!(how, Departure::Fin, "a Unix socket has no reset");
            continue;
        }
        assert_eq!(how, Departure::Reset, "{kind}");
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{kind}");
    }
}

#[tokio::test]
async fn a_shared_stream_carries_both_directions() {
    for (kind, (mut visitor, ours)) in all().await {
        let ours = SharedStream::new(ours);
        ours.keep_alive(LONG);
        visitor.write_all(b"ping").await.unwrap();
        visitor.flush().await.unwrap();
        let mut buffer = [0; 8];
        let read = poll_fn(|cx| {
            loop {
                std::task::ready!(ours.poll_readable(cx)).unwrap();
                match ours.try_read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            }
        });
        assert_eq!(read.await.unwrap(), 4, "{kind}");
        let slices = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
        let written = poll_fn(|cx| ours.poll_write(cx, &slices, 4)).await.unwrap();
        assert_eq!(written, 4, "{kind}");
        poll_fn(|cx| ours.poll_flush(cx)).await.unwrap();
        poll_fn(|cx| ours.poll_finish(cx)).await.unwrap();
        let mut read = String::new();
        visitor.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "pong", "{kind}");
        // The end of one direction is not a failure.
        tokio::select! {
            biased;
            error = ours.failed() => panic!("{kind}: {error}"),
            () = tokio::task::yield_now() => {}
        }
        let mut ours = ours.into_inner();
        ours.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_failure_wakes_a_shared_stream_that_does_nothing() {
    for (kind, (mut visitor, ours)) in all().await {
        if kind == "unix" {
            continue;
        }
        visitor.write_all(b"unread").await.unwrap();
        visitor.flush().await.unwrap();
        let ours = SharedStream::new(ours);
        let leaving = async {
            tokio::task::yield_now().await;
            visitor.reset_on_drop();
            drop(visitor);
        };
        let (error, ()) = tokio::join!(timeout(LONG, ours.failed()), leaving);
        assert_eq!(
            error.unwrap().kind(),
            io::ErrorKind::ConnectionReset,
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn delivery_waits_until_the_peer_has_read() {
    let (mut visitor, mut ours) = memory();
    ours.write_all(b"last words").await.unwrap();
    let mut delivery = ours.begin_delivery(LONG);
    let began = tokio::time::Instant::now();
    let reading = async {
        tokio::time::sleep(LONG / 2).await;
        visitor.read_exact(&mut [0; 10]).await.unwrap();
    };
    let delivered = poll_fn(|cx| ours.poll_delivery(cx, &mut delivery));
    tokio::join!(delivered, reading);
    let took = began.elapsed();
    assert!(
        (LONG / 2..LONG / 2 + Duration::from_secs(1)).contains(&took),
        "{took:?}"
    );
    ours.write_all(b"never read").await.unwrap();
    let mut delivery = ours.begin_delivery(LONG);
    poll_fn(|cx| ours.poll_delivery(cx, &mut delivery)).await;
    assert!(began.elapsed() >= LONG + LONG / 2, "its time is over");
}

#[tokio::test]
async fn a_stream_moves_to_another_runtime() {
    for (kind, (mut visitor, mut ours)) in all().await {
        visitor.write_all(b"ahead").await.unwrap();
        visitor.flush().await.unwrap();
        poll_fn(|cx| ours.poll_read_ahead(cx)).await.unwrap();
        let detached = ours.detach();
        if kind.starts_with("tls") {
            assert_eq!(detached.unwrap_err().kind(), io::ErrorKind::Unsupported);
            continue;
        }
        let detached = detached.unwrap();
        let read = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let mut ours = detached.attach().unwrap();
                let mut read = String::new();
                ours.read_to_string(&mut read).await.unwrap();
                read
            })
        });
        visitor.write_all(b" behind").await.unwrap();
        visitor.shutdown().await.unwrap();
        let read = tokio::task::spawn_blocking(|| read.join().unwrap());
        assert_eq!(read.await.unwrap(), "ahead behind", "{kind}");
    }
}

#[tokio::test]
async fn a_closed_stream_reads_as_ended() {
    let mut closed = Stream::default();
    assert_eq!(closed.read(&mut [0]).await.unwrap(), 0);
    let error = closed.write(&[0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert_eq!(closed.departure(), Some(Departure::Reset));
    assert!(closed.peer_addr().is_err() && closed.local_addr().is_err());
    closed.reset_on_drop();
}
