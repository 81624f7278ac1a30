//! Visitors and services of HTTP/1, byte by byte.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::within;

/// Sends text.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), text: impl AsRef<[u8]>) {
    within(stream.write_all(text.as_ref())).await.unwrap();
}

/// Reads to the end of the connection. `Err` is a reset, with the bytes before it.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, String> {
    let mut all = Vec::new();
    let ended = within(stream.read_to_end(&mut all)).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    match ended {
        Ok(_) => Ok(all),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after {all:?}");
            Err(all)
        }
    }
}

/// Reads up to and including `end`.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        match within(stream.read_u8()).await {
            Ok(byte) => all.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8(all).unwrap()
}

/// Reads a head; `None` when the connection ends before it.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// The values of a header.
pub fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let named = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value).collect()
}
