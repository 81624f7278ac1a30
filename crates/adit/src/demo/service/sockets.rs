//! The protocols of the demo service other than HTTP: echoes of TCP and UDP.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Runtime,
};

/// The text that is sent first on each connection, as by a mail or shell server.
pub(crate) const GREETING: &[u8] = b"220 demo\r\n";

/// The largest datagram (RFC 768: 65,535 less the headers).
const LARGEST_DATAGRAM: usize = 65_507;

/// The two sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Sockets {
    /// Binds both on free ports of the loopback interface.
    pub(super) fn bind(runtime: &Runtime) -> io::Result<Self> {
        let tcp = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        tcp.set_nonblocking(true)?;
        let udp = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
        udp.set_nonblocking(true)?;
        let _inside = runtime.enter();
        Ok(Self {
            tcp: TcpListener::from_std(tcp)?,
            udp: UdpSocket::from_std(udp)?,
        })
    }

    /// The addresses of the TCP and the UDP echo.
    pub(super) fn addrs(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.tcp.local_addr()?, self.udp.local_addr()?))
    }

    /// Serves both sockets until this is dropped.
    pub(super) async fn serve(self) {
        let Self { tcp, udp } = self;
        tokio::join!(
            async {
                loop {
                    if let Ok((stream, _)) = tcp.accept().await {
                        tokio::spawn(async move {
                            if let Err(error) = echo(stream).await {
                                tracing::debug!(%error, "demo service: a connection ended");
                            }
                        });
                    }
                }
            },
            async {
                let mut datagram = vec![0; LARGEST_DATAGRAM];
                loop {
                    if let Ok((length, from)) = udp.recv_from(&mut datagram).await {
                        let response = datagram.get(..length).unwrap_or_default();
                        if let Err(error) = udp.send_to(response, from).await {
                            tracing::debug!(%error, "demo service: a datagram was not sent");
                        }
                    }
                }
            },
        );
    }
}

/// Sends the greeting, echoes everything, and ends with the other side.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(GREETING).await?;
    let (mut read, mut write) = stream.split();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = read.read(&mut buffer).await?;
        if length == 0 {
            return write.shutdown().await;
        }
        write
            .write_all(buffer.get(..length).unwrap_or_default())
            .await?;
    }
}
