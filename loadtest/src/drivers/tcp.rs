//! Bytes: echoed on long-lived connections, or sent in one direction until the end of the stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{connect, read};
use crate::failure::{Failed, Failure};
use crate::pattern::{PIECE, Pattern};
use crate::pool::Driver;
use crate::scenario::Mix;
use crate::tally::Tally;

fn write_failed(error: std::io::Error) -> Failed {
    Failed::new(Failure::Write, error)
}

fn read_failed(error: std::io::Error) -> Failed {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Failure::Cut.into();
    }
    Failed::new(Failure::Read, error)
}

/// Checks that the other side ends the stream now, without another byte.
async fn end(stream: &mut TcpStream) -> Result<(), Failed> {
    let mut more = [0; 64];
    match stream.read(&mut more).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failed::new(Failure::WrongBytes, "more than was sent")),
        Err(error) => Err(Failed::new(Failure::Read, error)),
    }
}

pub(super) struct Echo {
    entry: SocketAddr,
    sizes: Mix,
    tally: Arc<Tally>,
}

impl Echo {
    pub(super) fn new(entry: SocketAddr, sizes: Mix, tally: Arc<Tally>) -> Self {
        Self {
            entry,
            sizes,
            tally,
        }
    }
}

impl Driver for Echo {
    /// A connection, and a buffer for one message.
    type Session = (TcpStream, Vec<u8>);

    async fn open(&self) -> Result<Self::Session, Failed> {
        let mut stream = connect(self.entry).await?;
        stream.write_u8(b'e').await.map_err(write_failed)?;
        Ok((stream, Vec::new()))
    }

    async fn exchange(
        &self,
        (stream, got): &mut Self::Session,
        number: u64,
    ) -> Result<bool, Failed> {
        let message = Pattern::shared().piece(Pattern::place(number), self.sizes.pick(number));
        got.resize(message.len(), 0);
        let (mut from, mut to) = stream.split();
        // Both directions run at once: a message may be larger than the buffers on the path.
        let (written, received) = tokio::join!(to.write_all(message), from.read_exact(got));
        written.map_err(write_failed)?;
        received.map_err(read_failed)?;
        if got != message {
            return Err(Failed::new(Failure::WrongBytes, "another message"));
        }
        self.tally.body_bytes.fetch_add(got.len() as u64, Relaxed);
        Ok(true)
    }

    async fn close(&self, (mut stream, _): Self::Session) -> Result<(), Failed> {
        stream.shutdown().await.map_err(write_failed)?;
        end(&mut stream).await
    }
}

/// A new connection for each exchange.
pub(super) struct Bulk {
    entry: SocketAddr,
    sizes: Mix,
    up: bool,
    tally: Arc<Tally>,
}

impl Bulk {
    pub(super) fn new(entry: SocketAddr, sizes: Mix, up: bool, tally: Arc<Tally>) -> Self {
        Self {
            entry,
            sizes,
            up,
            tally,
        }
    }

    async fn send(&self, stream: &mut TcpStream, bytes: u64) -> Result<(), Failed> {
        let mut sent = 0;
        while sent < bytes {
            let piece = Pattern::shared().piece(sent, (bytes - sent).min(64 * 1024));
            let written = stream.write(piece).await.map_err(write_failed)? as u64;
            sent += written;
            self.tally.body_bytes.fetch_add(written, Relaxed);
        }
        // The service compared every byte and reports the result.
        match stream.read_u8().await.map_err(read_failed)? {
            b'1' => Ok(()),
            _ => Err(Failed::new(
                Failure::WrongBytes,
                "the service received other bytes",
            )),
        }
    }

    async fn receive(&self, stream: &mut TcpStream, bytes: u64) -> Result<(), Failed> {
        let mut buffer = vec![0; PIECE];
        let mut got = 0;
        while got < bytes {
            let read = read(stream, &mut buffer).await?;
            if !Pattern::shared().matches(got, &buffer[..read]) {
                return Err(Failed::new(Failure::WrongBytes, "in a download"));
            }
            got += read as u64;
            self.tally.body_bytes.fetch_add(read as u64, Relaxed);
        }
        if got > bytes {
            return Err(Failed::new(Failure::WrongBytes, "more than was requested"));
        }
        Ok(())
    }
}

impl Driver for Bulk {
    type Session = TcpStream;

    async fn open(&self) -> Result<TcpStream, Failed> {
        connect(self.entry).await
    }

    async fn exchange(&self, stream: &mut TcpStream, number: u64) -> Result<bool, Failed> {
        let bytes = self.sizes.pick(number);
        let mut wish = vec![if self.up { b'u' } else { b'd' }];
        wish.extend_from_slice(&bytes.to_be_bytes());
        stream.write_all(&wish).await.map_err(write_failed)?;
        if self.up {
            self.send(stream, bytes).await?;
        } else {
            self.receive(stream, bytes).await?;
        }
        end(stream).await?;
        Ok(false)
    }

    async fn close(&self, _: TcpStream) -> Result<(), Failed> {
        Ok(())
    }
}
