//! Connections of visitors of HTTP/2, read and written by h2: hyper's server on top of it gives no access to interim
//! responses (docs/decisions/0026).
//!
//! One future accepts the requests of a connection and pings its visitor; each request has a task of its own. Nothing
//! else here depends on this module but the loop that serves connections.

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
    body::Chunk, config::HttpConfig, connection::Connection, http::Http, socket::VisitorSocket,
};

/// Header lines of a request, by the count of RFC 9113, 6.5.2: more than cross (P-2.10), so that a request with too many
/// gets an answer that names its size. h2 refuses what is above without a reason.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;

/// Credit of one upload.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Of one response, what h2 takes before it is written.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// One connection while it is served.
pub(crate) struct Serving {
    http: Arc<Http>,
    connection: Arc<Connection>,
    state: State,
    /// No more requests are to be taken.
    stops: bool,
}

enum State {
    Handshaking(Handshake<VisitorSocket, Chunk>),
    Open(server::Connection<VisitorSocket, Chunk>, KeepAlive),
}

impl Serving {
    pub(crate) fn new(socket: VisitorSocket, http: Arc<Http>, connection: Arc<Connection>) -> Self {
        Self {
            state: State::Handshaking(settings(&http.config).handshake(socket)),
            http,
            connection,
            stops: false,
        }
    }

    /// Has it take no more requests. It ends when those that run are over.
    pub(crate) fn graceful_shutdown(self: Pin<&mut Self>) {
        let this = self.get_mut();
        if !mem::replace(&mut this.stops, true)
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
        // All uploads together: one that stalls must not take the others' credit.
        .initial_connection_window_size(STREAM_WINDOW_BYTES.saturating_mul(config.max_streams))
        .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        // For WebSockets (RFC 8441, 3); other protocols are refused.
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
                    if this.stops {
                        h2.graceful_shutdown();
                    }
                    this.state = State::Open(h2, keep_alive);
                }
                State::Open(h2, keep_alive) => {
                    if keep_alive.poll(cx, &this.connection).is_ready() {
                        tracing::debug!(
                            peer = this.connection.visitor.as_str(),
                            "a ping was not answered"
                        );
                        h2.abrupt_shutdown(Reason::NO_ERROR);
                    }
                    let Some(accepted) = ready!(h2.poll_accept(cx)) else {
                        return Poll::Ready(Ok(()));
                    };
                    let (request, respond) = accepted?;
                    let (http, connection) = (this.http.clone(), this.connection.clone());
                    tokio::spawn(stream::serve(http, connection, request, respond));
                }
            }
        }
    }
}
