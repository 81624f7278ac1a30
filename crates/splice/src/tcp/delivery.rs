//! The wait between the last write and a reset: a reset throws away what the system has not sent yet.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// The first look at the connection comes after this, the next ones after twice the time before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest time between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits until the system has sent what was written to a connection, and the peer has acknowledged all of it but the
/// last segment. There is no event for it that safe code can wait for: the connection is looked at, less and less often.
#[derive(Debug)]
pub struct Delivery {
    until: Instant,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delivery {
    /// Of what has been written to `stream`, to which nothing more will be written; for at most `within`.
    pub fn new(stream: &TcpStream, within: Duration) -> Self {
        let socket = SockRef::from(stream);
        // With the smallest buffer, and none of it for unsent bytes, the connection is writable when its queue is as good
        // as empty. Where that cannot be set, it is writable sooner.
        let set = socket
            .set_tcp_notsent_lowat(1)
            .and_then(|()| socket.set_send_buffer_size(1));
        if let Err(error) = set {
            tracing::debug!(%error, "the wait for delivery is inexact");
        }
        Self {
            until: Instant::now() + within,
            pause: FIRST_PAUSE,
            sleep: None,
        }
    }

    /// Ready when all is on its way, the connection has failed, or the time is over.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &TcpStream) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            let now = Instant::now();
            if is_delivered(stream) || now >= self.until {
                return Poll::Ready(());
            }
            let next = (now + self.pause).min(self.until);
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(next),
                none => *none = Some(Box::pin(sleep_until(next))),
            }
        }
    }
}

/// Also of a connection that has failed: nothing more leaves it.
fn is_delivered(stream: &TcpStream) -> bool {
    let mut one = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut one, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}
