//! TLS above a listener: time limits, turns, detection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code)]
mod support;

use std::time::Duration;

use adit_net::{HandshakeError, HttpVersion, TlsAcceptor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use self::support::{memory, tcp, tls};

const WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_silent_peer_has_no_more_than_its_time() {
    let (_visitor, accepted) = memory();
    let acceptor = TlsAcceptor::new(tls(&[]).server, WITHIN, 1);
    let began = Instant::now();
    let error = acceptor.accept(accepted).await.unwrap_err();
    assert!(matches!(error, HandshakeError::TimedOut(WITHIN)), "{error}");
    assert_eq!(began.elapsed(), WITHIN);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_tls_is_refused() {
    let (mut visitor, accepted) = memory();
    let acceptor = TlsAcceptor::new(tls(&[]).server, WITHIN, 1);
    visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = acceptor.accept(accepted).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Failed(_)), "{error}");
}

/// When the handshake fails, most bytes of the peer are unread: a close would be a reset, which discards the alert.
#[tokio::test]
async fn a_peer_without_tls_receives_the_alert() {
    let acceptor = TlsAcceptor::new(tls(&[]).server, WITHIN, 1);
    let (mut visitor, accepted) = tcp().await;
    visitor.write_all(&[b'x'; 48 * 1024]).await.unwrap();
    let reading = async {
        let mut alert = Vec::new();
        visitor.read_to_end(&mut alert).await.unwrap();
        drop(visitor);
        alert
    };
    let (refused, alert) = tokio::join!(acceptor.accept(accepted), reading);
    let error = refused.unwrap_err();
    assert!(matches!(error, HandshakeError::Failed(_)), "{error}");
    // RFC 8446, 5.1 and 6: a record of type alert, fatal.
    assert_eq!((alert[0], alert[5]), (21, 2), "{alert:?}");
}

/// Only one handshake may run at a time, and the handshake of a silent peer runs until its time limit.
#[tokio::test(start_paused = true)]
async fn handshakes_wait_for_their_turn_within_their_time() {
    let tls = tls(&[]);
    let acceptor = TlsAcceptor::new(tls.server.clone(), WITHIN, 1);
    let ((_silent, first), (visitor, second)) = (memory(), memory());
    let began = Instant::now();
    let waiting = async {
        tokio::time::sleep(WITHIN / 2).await;
        let (connected, accepted) = tokio::join!(tls.connect(visitor), acceptor.accept(second));
        drop(connected);
        accepted.unwrap();
        began.elapsed()
    };
    let (refused, took) = tokio::join!(acceptor.accept(first), waiting);
    refused.unwrap_err();
    assert_eq!(took, WITHIN, "as soon as the first is over");
}

#[tokio::test]
async fn the_protocol_of_the_handshake_is_the_version_of_http() {
    for (alpn, version) in [
        (&b"h2"[..], HttpVersion::Http2),
        (b"http/1.1", HttpVersion::Http1),
    ] {
        let tls = tls(&[alpn]);
        let acceptor = TlsAcceptor::new(tls.server.clone(), WITHIN, 1);
        let (visitor, accepted) = memory();
        let (_visitor, accepted) = tokio::join!(tls.connect(visitor), acceptor.accept(accepted));
        let mut accepted = accepted.unwrap();
        let detected = HttpVersion::detect(&mut accepted).await.unwrap();
        assert_eq!(detected, Some(version), "no byte is needed");
        assert!(accepted.read_ahead().is_empty());
    }
}

#[tokio::test]
async fn without_alpn_the_first_bytes_decide() {
    let tls = tls(&[]);
    let acceptor = TlsAcceptor::new(tls.server.clone(), WITHIN, 1);
    let (visitor, accepted) = memory();
    let (mut visitor, accepted) = tokio::join!(tls.connect(visitor), acceptor.accept(accepted));
    let mut accepted = accepted.unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    visitor.flush().await.unwrap();
    let detected = HttpVersion::detect(&mut accepted).await.unwrap();
    assert_eq!(detected, Some(HttpVersion::Http1));
    assert_eq!(accepted.read_ahead(), b"GET / HTTP/1.1\r\n");
}
