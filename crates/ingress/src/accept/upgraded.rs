//! The session after the last request of an HTTP/1 connection that offered to change its protocol.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Context,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use crate::{accept::socket::VisitorSocket, config::HttpConfig, protocol::http::Session};

/// What to do when hyper releases an HTTP/1 connection. Filled by its requests, and dropped with the connection if that
/// ends otherwise.
#[derive(Default)]
pub(super) struct AfterHttp1(Mutex<Next>);

#[derive(Default)]
struct Next {
    /// Returns the socket. hyper releases it after the last request that offered another protocol, whatever the
    /// response was, and does not shut it down then.
    on_upgrade: Option<OnUpgrade>,
    session: Option<Session>,
}

impl AfterHttp1 {
    pub(super) fn set_upgrade(&self, upgrade: OnUpgrade) {
        self.lock().on_upgrade = Some(upgrade);
    }

    pub(super) fn set_session(&self, session: Session) {
        self.lock().session = Some(session);
    }

    /// Runs the session of the connection, or ends the connection. Call it when hyper's connection has been dropped.
    pub(super) async fn run(&self, config: &HttpConfig) {
        let next = std::mem::take(&mut *self.lock());
        if let Some(upgrade) = next.on_upgrade {
            // Boxed: it is rarely used, and unboxed it would enlarge every connection's future.
            Box::pin(follow(upgrade, next.session, config)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(upgrade: OnUpgrade, session: Option<Session>, config: &HttpConfig) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<VisitorSocket>>() else {
        return;
    };
    let mut socket = parts.io.into_inner();
    match session {
        Some(Session::WebSocket(websocket)) => {
            socket.leave_http(config.session_stall, config.session_keepalive);
            let is_gone = |socket: &mut VisitorSocket, _: &mut Context<'_>| socket.is_gone();
            drop(websocket.run(socket, parts.read_buf, is_gone).await);
        }
        Some(Session::Upgrade(upgrade)) => {
            socket.leave_http(config.session_stall, config.session_keepalive);
            upgrade.run(socket.into_stream(), parts.read_buf).await;
        }
        None => {
            let mut socket = pin!(socket);
            // The connection is over, with or without an error.
            let _ = poll_fn(|cx| socket.as_mut().poll_shutdown(cx)).await;
        }
    }
}
