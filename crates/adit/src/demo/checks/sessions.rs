//! TCP and UDP, through ports of their own.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::super::{
    pattern::{self, Digest, Pattern},
    service::GREETING,
};
use crate::demo::table::Measured;

/// Bytes that are echoed on one connection.
const STREAMED: u64 = 64 << 20;

/// Sizes of datagrams: empty, small, near and above the MTU of Ethernet, the largest.
const DATAGRAMS: [usize; 5] = [0, 1, 1400, 9000, 65_507];

/// The service sends first; then both directions carry many bytes at once, and the end of one leaves the other open.
pub(in crate::demo) async fn tcp(addr: SocketAddr) -> Result<Measured, String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect(addr).await.map_err(failed("connect"))?;
    let mut greeting = vec![0; GREETING.len()];
    let greeted = stream.read_exact(&mut greeting).await;
    greeted.map_err(failed("greeting"))?;
    if greeting != GREETING {
        return Err("unexpected greeting".into());
    }
    let started = Instant::now();
    let (mut read, mut write) = stream.split();
    let sending = async {
        for piece in Pattern::new(STREAMED) {
            write.write_all(&piece).await.map_err(failed("send"))?;
        }
        write.shutdown().await.map_err(failed("end"))
    };
    let receiving = async {
        let mut digest = Digest::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match read.read(&mut buffer).await.map_err(failed("receive"))? {
                0 => return Ok(digest),
                length => digest.update(buffer.get(..length).unwrap_or_default()),
            }
        }
    };
    let ((), back) = tokio::try_join!(sending, receiving)?;
    back.same_as(&pattern::digest(STREAMED))?;
    Ok(Measured::moved(2 * STREAMED, started.elapsed()))
}

/// Each datagram is echoed completely.
pub(in crate::demo) async fn udp(addr: SocketAddr) -> Result<Measured, String> {
    let text = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.map_err(text)?;
    socket.connect(addr).await.map_err(text)?;
    let mut buffer = vec![0; 65_536];
    for (turn, length) in DATAGRAMS.iter().enumerate() {
        #[allow(clippy::cast_possible_truncation)] // any bytes will do
        let datagram: Vec<u8> = (0..*length).map(|at| (at + turn) as u8).collect();
        socket.send(&datagram).await.map_err(text)?;
        let received = socket.recv(&mut buffer).await.map_err(text)?;
        if buffer.get(..received) != Some(&datagram[..]) {
            return Err(format!(
                "{length} bytes were sent, {received} other bytes were received"
            ));
        }
    }
    let [.., largest] = DATAGRAMS;
    Ok(Measured::words(format!(
        "{} datagrams of up to {largest} bytes, whole",
        DATAGRAMS.len()
    )))
}
