//! A visitor that sends exactly the given bytes.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection ended in order: everything that was sent has arrived.
    Closed,
    /// The connection ended with a reset.
    Reset,
    /// The connection has not ended.
    Open,
}

/// The bytes that were read, and the end of the connection.
#[derive(Debug, Clone)]
pub struct Read {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How the connection ended.
    pub end: End,
}

impl Read {
    /// The bytes as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The status of the first response.
    ///
    /// # Panics
    /// Panics when the bytes do not begin with a response.
    #[must_use]
    pub fn status(&self) -> u16 {
        let text = self.text();
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no response: {self:?}"))
    }

    /// The value of a header line of the first response, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let head = text.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

/// A connection on which bytes are written and read as they are.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub stream: TcpStream,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// Panics when the connection is refused.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream }
    }

    /// Connects with a receive buffer of a few KiB, so that unread bytes wait at the sender.
    ///
    /// # Panics
    /// Panics when the connection is refused.
    pub async fn narrow(addr: SocketAddr, receive_buffer_bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(receive_buffer_bytes)
            .expect("a socket option");
        let stream = socket.connect(addr).await.expect("a connection");
        Self { stream }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// Panics when the other side is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Reads to the end of the connection.
    ///
    /// # Panics
    /// Panics when the connection does not end in time.
    pub async fn read_to_end(&mut self) -> Read {
        let read = self.read_until(|_| false).await;
        assert_ne!(read.end, End::Open, "it stays open: {:?}", read.text());
        read
    }

    /// Reads until `enough` returns true, the connection ends, or nothing arrives for a long time.
    pub async fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Read {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        let end = loop {
            if enough(&bytes) {
                break End::Open;
            }
            match timeout(PATIENCE, self.stream.read(&mut piece)).await {
                Err(_) => break End::Open,
                Ok(Ok(0)) => break End::Closed,
                Ok(Ok(length)) => bytes.extend_from_slice(&piece[..length]),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    break End::Reset;
                }
                Ok(Err(error)) => panic!("reading: {error}"),
            }
        };
        Read { bytes, end }
    }

    /// Reads until a text has arrived.
    ///
    /// # Panics
    /// Panics when the text does not arrive.
    pub async fn read_text(&mut self, text: &str) -> Read {
        let wanted = text.as_bytes();
        let has = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
        let read = self.read_until(has).await;
        assert!(has(&read.bytes), "no {text:?} in {:?}", read.text());
        read
    }

    /// Ends the connection with a reset.
    ///
    /// # Panics
    /// Panics when the socket does not allow it.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket option");
    }
}
