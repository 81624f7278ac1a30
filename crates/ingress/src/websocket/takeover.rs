//! An HTTP/1 connection that becomes a WebSocket, or changes to another protocol.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Context,
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use super::WebSocket;
use crate::{connection::Connection, socket::VisitorSocket, upgrade::Upgraded};

/// What is to become of an HTTP/1 connection when hyper lets go of it.
#[derive(Default)]
pub(crate) struct Takeover(Mutex<Next>);

#[derive(Default)]
struct Next {
    /// Gives the socket back. hyper hands it over when the last request that asked for another protocol is over, whatever
    /// the answer was, and shuts down nothing then.
    upgrade: Option<OnUpgrade>,
    session: Option<Session>,
}

/// What an HTTP/1 connection carries after its last request.
enum Session {
    WebSocket(Box<WebSocket>),
    Upgraded(Box<Upgraded>),
}

impl Takeover {
    pub(crate) fn set_upgrade(&self, upgrade: OnUpgrade) {
        self.lock().upgrade = Some(upgrade);
    }

    pub(crate) fn set_websocket(&self, websocket: WebSocket) {
        self.lock().session = Some(Session::WebSocket(Box::new(websocket)));
    }

    pub(crate) fn set_upgraded(&self, upgraded: Upgraded) {
        self.lock().session = Some(Session::Upgraded(Box::new(upgraded)));
    }

    fn take(&self) -> Next {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

/// Forgets what was to become of a connection that ends otherwise: a WebSocket knows its connection, and neither would
/// go without the other.
struct Forget<'c>(&'c Connection);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        drop(self.0.takeover().take());
    }
}

/// What comes after hyper has let go of an HTTP/1 connection: its WebSocket, or its end.
pub(crate) struct OnEnd<'c>(Forget<'c>);

/// To be had before the connection is served, so that nothing is left behind however it ends.
pub(crate) const fn on_end(connection: &Connection) -> OnEnd<'_> {
    OnEnd(Forget(connection))
}

impl OnEnd<'_> {
    /// To be called when hyper's connection has been dropped. `stall`: see [`VisitorSocket::take_over`].
    pub(crate) async fn run(self, stall: Duration, keepalive: Option<Duration>) {
        let next = self.0.0.takeover().take();
        if next.upgrade.is_some() {
            // On the heap: every connection's future has room for this, and few come here.
            Box::pin(next.follow(stall, keepalive)).await;
        }
    }
}

impl Next {
    async fn follow(self, stall: Duration, keepalive: Option<Duration>) {
        let Some(upgrade) = self.upgrade else {
            return;
        };
        let Ok(upgraded) = upgrade.await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<VisitorSocket>>() else {
            return;
        };
        let mut socket = parts.io.into_inner();
        match self.session {
            Some(Session::WebSocket(websocket)) => {
                socket.take_over(stall, keepalive);
                let is_gone = |socket: &mut VisitorSocket, _: &mut Context<'_>| socket.is_gone();
                drop(websocket.run(socket, parts.read_buf, is_gone).await);
            }
            Some(Session::Upgraded(upgraded)) => {
                socket.take_over(stall, keepalive);
                upgraded.run(socket, parts.read_buf).await;
            }
            None => {
                let mut socket = pin!(socket);
                // Whatever it was, it is over.
                let _ = poll_fn(|cx| socket.as_mut().poll_shutdown(cx)).await;
            }
        }
    }
}
