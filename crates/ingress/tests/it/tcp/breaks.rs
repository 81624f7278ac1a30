//! The bytes that were sent before a connection breaks off arrive, and then the break (P-6.2, P-10.3).

use std::time::Duration;

use adit_splice::tcp::Socket;
use adit_testlink::{
    http1::send,
    tcp::{Pattern, RESET, read, read_all, read_pattern, reset, service, write_pattern},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::tcp::ToService;

const MEGABYTE: usize = 1_000_000;

/// Resets a connection once the peer's system has everything that was written.
async fn break_off(stream: TcpStream) {
    let delivered = Socket::new(stream).reset_after_delivery(Duration::from_secs(50));
    within(delivered).await;
}

/// Reads a pattern up to a reset, and returns its length.
async fn read_broken(stream: &mut TcpStream, pattern: Pattern) -> usize {
    let (length, ended) = within(read_pattern(stream, pattern)).await;
    assert_eq!(ended, RESET, "after {length} bytes");
    length
}

/// A service closes a connection with unread bytes, so that the system sends a reset.
#[tokio::test]
async fn p_10_3_the_last_line_of_a_service_that_closes_unread_arrives() {
    const LINE: &[u8] = b"-ERR Protocol error\r\n";
    let (port, _) = service(|mut stream, _| async move {
        read(&mut stream, 10).await;
        send(&mut stream, LINE).await;
    })
    .await;
    let entry = ToService::new(port);
    for _ in 0..100 {
        let mut visitor = entry.connect().await;
        send(&mut visitor, &[b'x'; 1000]).await;
        assert_eq!(read_all(&mut visitor).await, (LINE.to_vec(), RESET));
    }
    entry.settled().await;
}

#[tokio::test]
async fn p_10_3_a_megabyte_before_a_service_resets_arrives() {
    let (port, mut done) = service(|mut stream, _| async move {
        let mut pattern = Pattern::new(1);
        write_pattern(&mut stream, &mut pattern, MEGABYTE)
            .await
            .unwrap();
        break_off(stream).await;
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    assert_eq!(read_broken(&mut visitor, Pattern::new(1)).await, MEGABYTE);
    within(done.recv()).await.unwrap();
    entry.settled().await;
}

/// The write that fails with the reset consumes the error, and a later read finds an end instead.
#[tokio::test]
async fn p_10_3_a_megabyte_before_a_reset_arrives_while_the_visitor_uploads() {
    let (port, _) = service(|mut stream, _| async move {
        read(&mut stream, 10).await;
        let mut pattern = Pattern::new(2);
        write_pattern(&mut stream, &mut pattern, MEGABYTE)
            .await
            .unwrap();
        break_off(stream).await;
    })
    .await;
    let entry = ToService::new(port);
    let (mut from, mut to) = entry.connect().await.into_split();
    let upload = tokio::spawn(async move { while to.write_all(&[1; 1000]).await.is_ok() {} });
    // Whether the upload ends with an error depends on the visitor's own writes.
    let mut pattern = Pattern::new(2);
    let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
    while let Ok(count @ 1..) = within(from.read(&mut buffer)).await {
        pattern.check(&buffer[..count]);
        total += count;
    }
    assert_eq!(total, MEGABYTE);
    within(upload).await.unwrap();
    entry.settled().await;
}

#[tokio::test]
async fn p_10_3_bytes_before_a_visitors_reset_reach_the_service() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_broken(&mut stream, Pattern::new(3)).await })
            .await;
    let entry = ToService::new(port);
    for bytes in [1, 1000, MEGABYTE] {
        let mut visitor = entry.connect().await;
        let mut pattern = Pattern::new(3);
        write_pattern(&mut visitor, &mut pattern, bytes)
            .await
            .unwrap();
        break_off(visitor).await;
        assert_eq!(within(results.recv()).await, Some(bytes));
    }
    // The visitor resets before its connection has reached the service.
    for _ in 0..20 {
        let mut visitor = entry.connect().await;
        send(&mut visitor, &Pattern::new(3).next(10)).await;
        reset(visitor);
        assert_eq!(within(results.recv()).await, Some(10));
    }
    entry.settled().await;
}

/// The service's end arrives before its reset, and the visitor receives both in this order.
#[tokio::test]
async fn p_10_3_the_end_of_a_service_precedes_its_reset() {
    let (port, _) = service(|mut stream, _| async move {
        read(&mut stream, 10).await;
        send(&mut stream, b"+OK bye\r\n").await;
        stream.shutdown().await.unwrap();
    })
    .await;
    let entry = ToService::new(port);
    for _ in 0..20 {
        let mut visitor = entry.connect().await;
        send(&mut visitor, &[1; 1000]).await;
        let ended = (b"+OK bye\r\n".to_vec(), None);
        assert_eq!(read_all(&mut visitor).await, ended);
    }
    entry.settled().await;
}
