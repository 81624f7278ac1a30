//! What was sent before a connection breaks off arrives, and then the break (P-6.2, P-10.3).

use std::time::Duration;

use adit_splice::tcp::Socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{Pattern, RESET, World, read, read_all, reset, service, within, write_pattern};

const MEGABYTE: usize = 1_000_000;

/// Resets a connection whose peer's system has all that was written to it.
async fn break_off(stream: TcpStream) {
    let delivered = Socket::new(stream).reset_after_delivery(Duration::from_secs(50));
    within(delivered).await;
}

/// Reads a pattern up to a reset; how long it was.
async fn read_broken(stream: &mut TcpStream, mut pattern: Pattern) -> usize {
    let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
    loop {
        match within(stream.read(&mut buffer)).await {
            Ok(0) => panic!("it looks whole after {total} bytes"),
            Ok(count) => {
                pattern.check(&buffer[..count]);
                total += count;
            }
            Err(error) => {
                assert_eq!(Some(error.kind()), RESET);
                return total;
            }
        }
    }
}

/// A service that closes with unread bytes in its connection, which the system answers with a reset.
#[tokio::test]
async fn p_10_3_the_last_line_of_a_service_that_closes_unread_arrives() {
    const LINE: &[u8] = b"-ERR Protocol error\r\n";
    let (port, _) = service(|mut stream| async move {
        read(&mut stream, 10).await;
        stream.write_all(LINE).await.unwrap();
    })
    .await;
    let world = World::to(port).await;
    for _ in 0..100 {
        let mut visitor = world.visit().await;
        visitor.write_all(&[b'x'; 1000]).await.unwrap();
        assert_eq!(read_all(&mut visitor).await, (LINE.to_vec(), RESET));
    }
    world.settled().await;
}

#[tokio::test]
async fn p_10_3_a_megabyte_before_a_service_resets_arrives() {
    let (port, mut done) = service(|mut stream| async move {
        let mut pattern = Pattern::new(1);
        write_pattern(&mut stream, &mut pattern, MEGABYTE)
            .await
            .unwrap();
        break_off(stream).await;
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    assert_eq!(read_broken(&mut visitor, Pattern::new(1)).await, MEGABYTE);
    within(done.recv()).await.unwrap();
    world.settled().await;
}

/// The write that meets the reset takes the error, and a read finds an end in its place.
#[tokio::test]
async fn p_10_3_a_megabyte_before_a_reset_arrives_while_the_visitor_uploads() {
    let (port, _) = service(|mut stream| async move {
        read(&mut stream, 10).await;
        let mut pattern = Pattern::new(2);
        write_pattern(&mut stream, &mut pattern, MEGABYTE)
            .await
            .unwrap();
        break_off(stream).await;
    })
    .await;
    let world = World::to(port).await;
    let (mut from, mut to) = world.visit().await.into_split();
    let upload = tokio::spawn(async move { while to.write_all(&[1; 1000]).await.is_ok() {} });
    // Whether it ends with the error or without is up to the visitor's own writes.
    let mut pattern = Pattern::new(2);
    let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
    while let Ok(count @ 1..) = within(from.read(&mut buffer)).await {
        pattern.check(&buffer[..count]);
        total += count;
    }
    assert_eq!(total, MEGABYTE);
    within(upload).await.unwrap();
    world.settled().await;
}

#[tokio::test]
async fn p_10_3_what_a_visitor_sent_before_its_reset_reaches_the_service() {
    let (port, mut told) =
        service(|mut stream| async move { read_broken(&mut stream, Pattern::new(3)).await }).await;
    let world = World::to(port).await;
    for bytes in [1, 1000, MEGABYTE] {
        let mut visitor = world.visit().await;
        let mut pattern = Pattern::new(3);
        write_pattern(&mut visitor, &mut pattern, bytes)
            .await
            .unwrap();
        break_off(visitor).await;
        assert_eq!(within(told.recv()).await, Some(bytes));
    }
    // Before its connection has been led to the service.
    for _ in 0..20 {
        let mut visitor = world.visit().await;
        visitor.write_all(&Pattern::new(3).next(10)).await.unwrap();
        reset(visitor);
        assert_eq!(within(told.recv()).await, Some(10));
    }
    world.settled().await;
}

/// Its end stands before the reset, and so it does for the visitor.
#[tokio::test]
async fn p_10_3_a_service_that_ends_and_closes_unread_ends_before_the_reset() {
    let (port, _) = service(|mut stream| async move {
        read(&mut stream, 10).await;
        stream.write_all(b"+OK bye\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let world = World::to(port).await;
    for _ in 0..20 {
        let mut visitor = world.visit().await;
        visitor.write_all(&[1; 1000]).await.unwrap();
        let ended = (b"+OK bye\r\n".to_vec(), None);
        assert_eq!(read_all(&mut visitor).await, ended);
    }
    world.settled().await;
}
