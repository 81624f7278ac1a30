//! Datagrams: each goes back to where it came from.

use socket2::SockRef;
use tokio::net::UdpSocket;

/// Room for bursts: what the kernel drops here would look as if the tunnel had lost it.
pub(crate) const BUFFER_BYTES: usize = 4 << 20;

pub(super) async fn serve(socket: UdpSocket) {
    // The system may grant less.
    let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES);
    let mut datagram = vec![0; 65_536];
    loop {
        // An error is that of an earlier datagram whose visitor is gone.
        if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.try_send_to(&datagram[..length], from);
        }
    }
}
