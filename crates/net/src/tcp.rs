//! What is set and asked of a TCP socket, for a stream with one owner and for one that is shared.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Probes of a silent connection follow each other at this share of the silence that began them.
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

/// Readies a socket for [`is_delivered`].
pub(crate) fn shrink_send_buffer(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    // With the smallest buffer, and none of it for unsent bytes, the connection is writable when its queue is all but
    // empty. Where that cannot be set, it is writable sooner.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let lowered = socket.set_tcp_notsent_lowat(1);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let lowered = Ok(());
    if let Err(error) = lowered.and_then(|()| socket.set_send_buffer_size(1)) {
        tracing::debug!(%error, "the wait for delivery is inexact");
    }
}

/// Also of a connection that has failed: nothing more leaves it.
pub(crate) fn is_delivered(tcp: &TcpStream) -> bool {
    let mut one = [PollFd::new(tcp, PollFlags::OUT)];
    poll(&mut one, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}
