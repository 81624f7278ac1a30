//! Datagrams: each one is sent back to its sender.

use socket2::SockRef;
use tokio::net::UdpSocket;

/// The receive buffer for bursts: datagrams that the kernel drops here would look like losses of the tunnel.
pub(crate) const BUFFER_BYTES: usize = 4 << 20;

pub(super) async fn serve(socket: UdpSocket) {
    // The system may set a smaller buffer.
    let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES);
    let mut datagram = vec![0; 65_536];
    loop {
        // The error belongs to an earlier datagram whose visitor has disconnected.
        if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.try_send_to(&datagram[..length], from);
        }
    }
}
