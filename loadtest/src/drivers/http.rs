//! HTTP/1.1 requests on plain sockets, without an HTTP library.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{connect, read, wrong_bytes};
use crate::failure::{Failed, Failure};
use crate::pattern::{Checksum, Pattern};
use crate::pool::Driver;
use crate::response::{self, Head};
use crate::scenario::Mix;
use crate::tally::Tally;
use crate::targets::Web;

/// How much of an upload is written at once.
const WRITE_BYTES: u64 = 64 * 1024;

/// How much is read at once: for large bodies, the bench measures the tunnel's work, not the visitor's reads.
const READ_BYTES: usize = 64 * 1024;

/// A connection and the bytes read from it.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(super) async fn open(target: SocketAddr, read_bytes: usize) -> Result<Self, Failed> {
        Ok(Self::on(connect(target).await?, read_bytes))
    }

    pub(super) fn on(stream: TcpStream, read_bytes: usize) -> Self {
        Self {
            stream,
            buffer: vec![0; read_bytes],
            filled: 0,
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|error| Failed::new(Failure::Write, error))
    }

    /// Reads the head of a response with status 200; returns the head, and the range of the buffer with the remaining
    /// bytes. Interim responses are skipped. `parse` parses a head.
    pub(super) async fn head<E>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<Head>, E>,
    ) -> Result<(Head, Range<usize>), Failed> {
        self.filled = 0;
        let head = loop {
            match parse(&self.buffer[..self.filled]) {
                Ok(Some(head)) if (100..200).contains(&head.status) && head.status != 101 => {
                    self.buffer.copy_within(head.end..self.filled, 0);
                    self.filled -= head.end;
                }
                Ok(Some(head)) => break head,
                Ok(None) if self.filled < self.buffer.len() => {
                    self.filled += read(&mut self.stream, &mut self.buffer[self.filled..]).await?;
                }
                Ok(None) | Err(_) => return Err(Failure::Unreadable.into()),
            }
        };
        if head.status != 200 {
            return Err(Failed::new(Failure::Status, self.refusal(&head)));
        }
        Ok((head, head.end..self.filled))
    }

    /// The status, and adit's reason if the response has one.
    fn refusal(&self, head: &Head) -> String {
        let text = String::from_utf8_lossy(&self.buffer[..head.end]).to_ascii_lowercase();
        let reason = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.ends_with("-reason").then(|| value.trim().to_owned())
        });
        match reason {
            Some(reason) => format!("{} {reason}", head.status),
            None => head.status.to_string(),
        }
    }

    pub(super) fn bytes(&self, piece: Range<usize>) -> &[u8] {
        &self.buffer[piece]
    }

    /// Reads the next bytes, at most the given number.
    pub(super) async fn more(&mut self, most: usize) -> Result<Range<usize>, Failed> {
        let most = most.min(self.buffer.len());
        let read = read(&mut self.stream, &mut self.buffer[..most]).await?;
        Ok(0..read)
    }

    /// Reads a body that contains the pattern from `offset` on.
    async fn pattern(
        &mut self,
        head: &Head,
        rest: Range<usize>,
        offset: u64,
        tally: &Tally,
    ) -> Result<(), Failed> {
        let (mut got, mut piece) = (0, rest);
        loop {
            let bytes = &self.buffer[piece];
            let after = got + bytes.len() as u64;
            if after > head.length || !Pattern::shared().matches(offset + got, bytes) {
                return Err(Failure::WrongBytes.into());
            }
            tally.body_bytes.fetch_add(bytes.len() as u64, Relaxed);
            got = after;
            if got == head.length {
                return Ok(());
            }
            piece = self.more(usize::MAX).await?;
        }
    }
}

/// Sends the same request repeatedly; the response is the pattern.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) target: SocketAddr,
    pub(crate) request: Vec<u8>,
    pub(crate) read_bytes: usize,
    pub(crate) tally: Arc<Tally>,
}

impl Driver for Fetch {
    type Session = Connection;

    async fn open(&self) -> Result<Connection, Failed> {
        Connection::open(self.target, self.read_bytes).await
    }

    async fn exchange(&self, connection: &mut Connection, _: u64) -> Result<bool, Failed> {
        connection.write(&self.request).await?;
        let (head, rest) = connection.head(response::parse).await?;
        connection.pattern(&head, rest, 0, &self.tally).await?;
        Ok(!head.close)
    }

    async fn close(&self, _: Connection) -> Result<(), Failed> {
        Ok(())
    }
}

/// Requests of many sizes, each with its own bytes.
pub(super) struct Http {
    web: Web,
    sizes: Mix,
    upload: bool,
    /// Whether each request has `connection: close`.
    close: bool,
    tally: Arc<Tally>,
}

impl Http {
    pub(super) fn new(web: &Web, sizes: Mix, upload: bool, close: bool, tally: Arc<Tally>) -> Self {
        Self {
            web: web.clone(),
            sizes,
            upload,
            close,
            tally,
        }
    }

    fn head(&self, method_and_path: &str, more: &str) -> String {
        let host = &self.web.host;
        let close = if self.close {
            "connection: close\r\n"
        } else {
            ""
        };
        format!("{method_and_path} HTTP/1.1\r\nhost: {host}\r\n{more}{close}\r\n")
    }

    async fn get(&self, connection: &mut Connection, number: u64) -> Result<bool, Failed> {
        let (bytes, from) = (self.sizes.pick(number), Pattern::place(number));
        let request = self.head(&format!("GET /bytes/{bytes}?from={from}"), "");
        connection.write(request.as_bytes()).await?;
        let (head, rest) = connection.head(response::parse).await?;
        if head.length != bytes {
            let text = format!("{} bytes announced, not {bytes}", head.length);
            return Err(wrong_bytes(&self.web, text));
        }
        connection.pattern(&head, rest, from, &self.tally).await?;
        Ok(!head.close)
    }

    async fn post(&self, connection: &mut Connection, number: u64) -> Result<bool, Failed> {
        let (bytes, from) = (self.sizes.pick(number), Pattern::place(number));
        let mut request = self
            .head("POST /upload", &format!("content-length: {bytes}\r\n"))
            .into_bytes();
        let mut sum = Checksum::new();
        let mut sent = 0;
        // The first piece is sent together with the head.
        loop {
            let piece = Pattern::shared().piece(from + sent, (bytes - sent).min(WRITE_BYTES));
            sum.update(piece);
            sent += piece.len() as u64;
            request.extend_from_slice(piece);
            connection.write(&request).await?;
            self.tally.body_bytes.fetch_add(piece.len() as u64, Relaxed);
            request.clear();
            if sent == bytes {
                break;
            }
        }
        let (_, checksum) = sum.finish();
        let wanted = format!("{{\"bytes\":{bytes},\"checksum\":\"{checksum:016x}\"}}\n");
        let (head, rest) = connection.head(response::parse).await?;
        let mut got = connection.bytes(rest).to_vec();
        while (got.len() as u64) < head.length && got.len() <= wanted.len() {
            let more = connection.more(usize::MAX).await?;
            got.extend_from_slice(connection.bytes(more));
        }
        if got != wanted.as_bytes() {
            return Err(wrong_bytes(&self.web, "another checksum"));
        }
        Ok(!head.close)
    }
}

impl Driver for Http {
    type Session = Connection;

    async fn open(&self) -> Result<Connection, Failed> {
        Connection::open(self.web.addr, READ_BYTES).await
    }

    async fn exchange(&self, connection: &mut Connection, number: u64) -> Result<bool, Failed> {
        if self.upload {
            self.post(connection, number).await
        } else {
            self.get(connection, number).await
        }
    }

    async fn close(&self, _: Connection) -> Result<(), Failed> {
        Ok(())
    }
}
