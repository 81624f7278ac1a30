//! Options and state of a TCP socket, for a stream with one owner and for one that is shared.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The pause between probes of a silent connection, as a share of the silence before the first.
const PROBES_PER_SILENCE: u32 = 4;

/// Has the kernel probe a silent peer.
pub(crate) fn keep_alive(tcp: &TcpStream, silence: Duration) {
    let times = TcpKeepalive::new()
        .with_time(silence)
        .with_interval((silence / PROBES_PER_SILENCE).max(Duration::from_secs(1)));
    if let Err(error) = SockRef::from(tcp).set_tcp_keepalive(&times) {
        tracing::debug!(%error, "keepalive could not be set");
    }
}

/// Prepares a socket for [`is_delivered`].
pub(crate) fn shrink_send_buffer(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    // With the smallest buffer, and no unsent bytes in it, the connection is writable when its queue is nearly empty.
    // If that cannot be set, it is writable sooner.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let lowered = socket.set_tcp_notsent_lowat(1);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let lowered = Ok(());
    if let Err(error) = lowered.and_then(|()| socket.set_send_buffer_size(1)) {
        tracing::debug!(%error, "the send buffer cannot be set: the wait for delivery is inexact");
    }
}

/// Whether the peer's system has received everything that was written. Also true for a connection that has failed: it
/// sends nothing more.
pub(crate) fn is_delivered(tcp: &TcpStream) -> bool {
    let mut one = [PollFd::new(tcp, PollFlags::OUT)];
    poll(&mut one, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}
