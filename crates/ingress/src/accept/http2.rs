//! HTTP/2 connections of visitors, read and written by h2: hyper's server on top of it gives no access to interim
//! responses (docs/decisions/0026).
//!
//! One future accepts the requests of a connection and pings its visitor; each request has a task of its own.

mod keep_alive;
mod responder;
mod stream;
mod tunnel;

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use h2::{
    Reason,
    server::{self, Handshake},
};

use self::keep_alive::KeepAlive;
use crate::{
    accept::socket::VisitorSocket,
    config::HttpConfig,
    forward::{connection::Connection, context::HttpContext, response_body::Chunk},
};

/// Limit of the header lines of a request, counted as in RFC 9113, 6.5.2: more than may be forwarded (P-2.10), so that
/// a request with too many receives a response that contains its size. Above it h2 rejects a request without a reason.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;

/// Window of one request body.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes of one response that h2 buffers before they are written.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// One connection while it is served.
pub(super) struct Serving {
    context: Arc<HttpContext>,
    connection: Arc<Connection>,
    state: State,
    /// No more requests are accepted.
    is_stopping: bool,
}

enum State {
    Handshaking(Handshake<VisitorSocket, Chunk>),
    Open(server::Connection<VisitorSocket, Chunk>, KeepAlive),
}

impl Serving {
    pub(super) fn new(
        socket: VisitorSocket,
        context: Arc<HttpContext>,
        connection: Arc<Connection>,
    ) -> Self {
        Self {
            state: State::Handshaking(settings(&context.config).handshake(socket)),
            context,
            connection,
            is_stopping: false,
        }
    }

    /// Stops accepting requests. The connection ends when the open ones are over.
    pub(super) fn graceful_shutdown(self: Pin<&mut Self>) {
        let this = self.get_mut();
        if !mem::replace(&mut this.is_stopping, true)
            && let State::Open(h2, _) = &mut this.state
        {
            h2.graceful_shutdown();
        }
    }
}

fn settings(config: &HttpConfig) -> server::Builder {
    let mut settings = server::Builder::new();
    settings
        .max_concurrent_streams(config.max_streams)
        .initial_window_size(STREAM_WINDOW_BYTES)
        // The window of all request bodies together: a stalled body must not use up the window of the others.
        .initial_connection_window_size(STREAM_WINDOW_BYTES.saturating_mul(config.max_streams))
        .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        // Extended CONNECT is for WebSockets (RFC 8441, 3); other protocols are rejected.
        .enable_connect_protocol();
    settings
}

impl Future for Serving {
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Handshaking(handshake) => {
                    let mut h2 = ready!(Pin::new(handshake).poll(cx))?;
                    let keep_alive = KeepAlive::new(h2.ping_pong());
                    if this.is_stopping {
                        h2.graceful_shutdown();
                    }
                    this.state = State::Open(h2, keep_alive);
                }
                State::Open(h2, keep_alive) => {
                    if keep_alive.poll(cx, &this.connection).is_ready() {
                        tracing::debug!(
                            peer = this.connection.visitor.as_str(),
                            "connection ended: no reply to a ping"
                        );
                        h2.abrupt_shutdown(Reason::NO_ERROR);
                    }
                    let Some(accepted) = ready!(h2.poll_accept(cx)) else {
                        return Poll::Ready(Ok(()));
                    };
                    let (request, respond) = accepted?;
                    let (context, connection) = (this.context.clone(), this.connection.clone());
                    tokio::spawn(stream::serve(context, connection, request, respond));
                }
            }
        }
    }
}
