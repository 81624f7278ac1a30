//! Visitors and services of HTTP/1, byte by byte.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{tcp, within};

/// Sends text.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), text: impl AsRef<[u8]>) {
    within(stream.write_all(text.as_ref())).await.unwrap();
}

/// Reads to the end of the connection. `Err` is a reset, with the bytes before it.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, String> {
    let (all, error) = tcp::read_all(stream).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    if error.is_none() {
        return Ok(all);
    }
    assert_eq!(error, tcp::RESET, "after {all:?}");
    Err(all)
}

/// Reads up to and including `end`. `Err` has the bytes that arrived before the connection ended.
async fn try_read_until(
    stream: &mut (impl AsyncRead + Unpin),
    end: &str,
) -> Result<String, (io::Error, String)> {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        match stream.read_u8().await {
            Ok(byte) => all.push(byte),
            Err(error) => return Err((error, String::from_utf8_lossy(&all).into_owned())),
        }
    }
    Ok(String::from_utf8(all).unwrap())
}

pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    within(try_read_until(stream, end)).await.unwrap()
}

/// Reads a head; `None` when the connection ends before it.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    try_read_until(stream, "\r\n\r\n").await.ok()
}

/// The values of a header.
pub fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let named = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value).collect()
}

/// Sends the same bytes in response to each HTTP request without a body.
pub async fn fixed(response: &'static str) -> u16 {
    let respond = move |mut stream: TcpStream, _| async move {
        while read_head(&mut stream).await.is_some() {
            send(&mut stream, response).await;
        }
    };
    tcp::serve(respond).await
}
